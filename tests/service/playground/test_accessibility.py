"""The page: by keyboard, on a phone, in the dark, and below a path of another server."""

from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.service.playground.actions import (
    PHONE,
    TOKEN,
    Darkroom,
    choose,
    needs_browser,
    picture,
    upscale,
    words,
)
from tests.support.paths import PHOTO
from upscaler.errors import Busy
from upscaler.models import MODELS

pytestmark = needs_browser


def tab_to(page: Page, selector: str) -> None:
    for _ in range(20):
        if page.locator(selector).evaluate("e => e === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # or the browser may open a window of its own first
    tab_to(page, "#file")
    expect(page.locator("#file")).to_have_accessible_name("Choose a picture")
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
    expect(page.locator("#split")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    assert float(page.locator("#split").input_value()) == 49
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#download")).to_be_focused()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "photo-400x337.png"
    tab_to(page, "#copy")


def test_what_is_in_focus_is_marked(page: Page) -> None:
    """Also the controls that are drawn by something else than themselves."""
    upscale(page)
    for selector, drawn in (
        ("#file", "#choose"),
        ("#split", ".divider"),
        ("input[name=kind]:checked", "input[name=kind]:checked + span"),
        ("#start", "#start"),
        ("#token", "#token"),
    ):
        page.keyboard.press("Tab")  # from here on the browser takes it for work by keyboard
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
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const colour = channels(getComputedStyle(element).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
            if (colour[3] > 0) return [0, 0, 0];  // the labels over the picture: white on dark
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
        const pair = [getComputedStyle(element).color, ground(element)];
        const [light, dark] = [luminance(channels(pair[0])), luminance(pair[1])]
            .sort((a, b) => b - a);
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < 4.5) found.push([walker.currentNode.data.trim(), ratio, ...pair]);
    }
    return [texts, found];
}"""


@pytest.mark.parametrize("options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=str)
def test_everything_has_a_name_and_can_be_read(
    page: Page, darkroom: Darkroom, options: dict[str, Any]
) -> None:
    def check(at_least: int) -> None:
        assert page.evaluate(UNNAMED) == []
        texts, faint = page.evaluate(FAINT)
        assert faint == []
        assert texts >= at_least

    check(20)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(ground) > 200) == (options["color_scheme"] == "light")
    page.click("#start")
    check(22)
    darkroom.failure = Busy("busy", 7)
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_be_visible()
    check(22)
    darkroom.failure = None
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    check(35)


SMALL = """() =>
    [...document.querySelectorAll("input:not(.unseen), select, button, a, label.button")]
    .filter((element) => element.checkVisibility())
    .map((element) => [element.outerHTML, element.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44)
    .map(([html]) => html)"""


@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True, "is_mobile": True}])
def test_a_phone_is_wide_enough(page: Page, darkroom: Darkroom) -> None:
    def check() -> None:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("innerWidth") == PHONE["width"]
        assert page.evaluate(SMALL) == []

    check()
    page.click("#start")
    check()
    darkroom.failure = Busy("as many pictures wait as there is room for", 7)
    choose(page, {**picture(), "name": "a-very-long-name" * 20 + ".png"})
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_be_visible()
    check()
    darkroom.failure = None
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
        assert f"Its own scale is {model.scale}." in words(page, "#model-hint")


def test_a_file_chosen_before_the_page_is_ready_is_not_lost(context: BrowserContext) -> None:
    """The page listens once it has the service's limits and models, which may come late."""
    held: list[Route] = []
    page = context.new_page()
    # playwright cannot wrap a builtin method
    page.route("**/page/facts.json", lambda route: held.append(route))  # noqa: PLW0108
    page.goto("/")
    page.set_input_files("#file", PHOTO)
    expect(page.locator("#caption")).to_have_text("")
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(page.locator("#caption")).to_contain_text("304 × 256")


def test_the_page_works_below_a_path_of_another_server(context: BrowserContext) -> None:
    """All its addresses are relative; so are those of its calls."""
    asked: list[str] = []

    def strip(route: Route) -> None:
        asked.append(route.request.url)
        route.continue_(url=route.request.url.replace("/below/", "/"))

    page = context.new_page()
    page.route("**/below/**", strip)
    page.goto("/below/")
    upscale(page)
    assert "/below/upscaling'" in words(page, "#curl")
    assert [url for url in asked if url.endswith("/below/upscaling")]
