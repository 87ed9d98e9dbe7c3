"""The page: by keyboard, on a phone, in dark mode, and under a path prefix of a proxy."""

from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.service.playground.actions import (
    PHONE,
    TOKEN,
    InvertingUpscaler,
    choose,
    png,
    text,
    upscale,
)
from tests.support.paths import PHOTO
from tests.support.requirements import needs_browser
from upscaler.errors import Busy
from upscaler.models import MODELS

pytestmark = needs_browser


def tab_to(page: Page, selector: str) -> None:
    for _ in range(20):
        if page.locator(selector).evaluate("e => e === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def test_an_image_is_upscaled_by_keyboard_alone(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # or Chromium may open its own dialog first
    tab_to(page, "#file")
    expect(page.locator("#file")).to_have_accessible_name("Choose an image")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(PHOTO)
    expect(page.locator("#caption")).to_contain_text("304 × 256")
    tab_to(page, "#model")
    page.keyboard.type("real-esrgan-x2")
    tab_to(page, "input[name=kind]:checked")
    page.keyboard.press("ArrowRight")
    tab_to(page, "#number")
    page.keyboard.press("Control+A")
    page.keyboard.type("400")
    tab_to(page, "input[name=encoding]:checked")
    tab_to(page, "#token")
    page.keyboard.insert_text(TOKEN)
    page.keyboard.press("Tab")
    expect(page.locator("#start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_contain_text("became 400 × 337")
    expect(page.locator("#slider")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    assert float(page.locator("#slider").input_value()) == 49
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#download")).to_be_focused()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "photo-400x337.png"
    tab_to(page, "#copy")


@pytest.mark.slow
def test_the_focused_control_has_an_outline(page: Page) -> None:
    """Some controls are invisible, and another element is drawn in their place."""
    upscale(page)
    for selector, drawn in (
        ("#file", "#choose"),
        ("#slider", ".divider"),
        ("input[name=kind]:checked", "input[name=kind]:checked + span"),
        ("#start", "#start"),
        ("#token", "#token"),
    ):
        page.keyboard.press("Tab")  # :focus-visible matches only after a key press
        page.focus(selector)
        pseudo = "::after" if drawn == ".divider" else ""
        style = page.locator(drawn).evaluate(
            "(e, pseudo) => getComputedStyle(e, pseudo || null).outlineStyle", pseudo
        )
        assert style == "solid", selector


UNNAMED = """() => [...document.querySelectorAll("input, select, button, a, progress, img")]
    .filter((element) => element.checkVisibility())
    .filter((element) => ![...(element.labels ?? [])].some((label) => label.innerText.trim()))
    .filter((element) => !element.ariaLabel && !element.getAttribute("aria-labelledby"))
    .filter((element) => !element.innerText?.trim() && !element.hasAttribute("alt"))
    .map((element) => element.outerHTML)"""

FAINT = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3)
        .map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const background = (element) => {
        for (; element; element = element.parentElement) {
            const colour = channels(getComputedStyle(element).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
            if (colour[3] > 0) return [0, 0, 0];  // the labels over the image: white on dark
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    let texts = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        texts += 1;
        const pair = [getComputedStyle(element).color, background(element)];
        const [light, dark] = [luminance(channels(pair[0])), luminance(pair[1])]
            .sort((a, b) => b - a);
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < 4.5) found.push([walker.currentNode.data.trim(), ratio, ...pair]);
    }
    return [texts, found];
}"""


@pytest.mark.first(1)
@pytest.mark.parametrize("options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=str)
def test_controls_have_names_and_text_has_contrast(
    page: Page, stub: InvertingUpscaler, options: dict[str, Any]
) -> None:
    def check(at_least: int) -> None:
        assert page.evaluate(UNNAMED) == []
        texts, faint = page.evaluate(FAINT)
        assert faint == []
        assert texts >= at_least

    check(20)
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(red) > 200) == (options["color_scheme"] == "light")
    page.click("#start")
    check(22)
    stub.failure = Busy("busy", 7)
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_be_visible()
    check(22)
    stub.failure = None
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    check(35)


SMALL = """() =>
    [...document.querySelectorAll("input:not(.visually-hidden), select, button, a, label.button")]
    .filter((element) => element.checkVisibility())
    .map((element) => element.type === "checkbox" ? element.closest("label") : element)
    .map((element) => [element.outerHTML, element.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44)
    .map(([html]) => html)"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True, "is_mobile": True}])
def test_the_page_fits_a_phone(page: Page, stub: InvertingUpscaler) -> None:
    def check() -> None:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("innerWidth") == PHONE["width"]
        assert page.evaluate(SMALL) == []

    check()
    page.click("#start")
    check()
    stub.failure = Busy("the queue is full", 7)
    choose(page, {**png(), "name": "a-very-long-name" * 20 + ".png"})
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_be_visible()
    check()
    stub.failure = None
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    expect(page.locator("#view")).to_be_in_viewport(ratio=0.9)
    check()
    page.check("input[value=actual]", force=True)
    check()


def test_every_model_can_be_chosen(page: Page) -> None:
    for model in MODELS.values():
        page.select_option("#model", model.name)
        expect(page.locator("#number")).to_have_value(str(model.scale))
        assert f"Native scale: {model.scale}." in text(page, "#model-hint")


def test_a_file_chosen_before_the_page_is_ready_is_not_lost(context: BrowserContext) -> None:
    """The page handles events only once its configuration has loaded, which may take a while."""
    held: list[Route] = []
    page = context.new_page()
    # playwright cannot wrap a builtin method
    page.route("**/page/config.json", lambda route: held.append(route))  # noqa: PLW0108
    page.goto("/")
    page.set_input_files("#file", PHOTO)
    expect(page.locator("#caption")).to_have_text("")
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(page.locator("#caption")).to_contain_text("304 × 256")


def test_the_page_works_under_a_path_prefix(context: BrowserContext) -> None:
    """Its URLs are relative, and so are those of its requests."""
    requested: list[str] = []

    def strip(route: Route) -> None:
        requested.append(route.request.url)
        route.continue_(url=route.request.url.replace("/below/", "/"))

    page = context.new_page()
    page.route("**/below/**", strip)
    page.goto("/below/")
    upscale(page)
    assert "/below/upscaling'" in text(page, "#curl")
    assert [url for url in requested if url.endswith("/below/upscaling")]
