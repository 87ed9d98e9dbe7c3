"""The page: choosing an image, its result, and the slider between the two."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.service.playground.actions import (
    ASCII_TOKEN,
    CYAN,
    PHONE,
    RED,
    TOKEN,
    choose,
    colour_at,
    downloaded,
    natural_size,
    png,
    run_curl,
    text,
    upscale,
    view_box,
)
from tests.support.paths import PHOTO
from tests.support.requirements import needs_browser

pytestmark = needs_browser


def test_a_photo_is_upscaled(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(PHOTO)
    expect(page.locator("#caption")).to_contain_text("photo.png · 304 × 256")
    assert text(page, "#output-size") == "304 × 256 becomes 1216 × 1024 pixels."
    page.fill("#token", TOKEN)
    page.click("#start")

    expect(page.locator("#summary")).to_contain_text("304 × 256 became 1216 × 1024 in ")
    assert natural_size(page, "img.after") == [1216, 1024]
    assert natural_size(page, "img.before") == [304, 256]
    details = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all(), strict=True))
    assert details["Model"].inner_text() == "real-esrgan-x4-plus"
    assert re.fullmatch(r"[\w-]{8,}", details["Request ID"].inner_text())
    assert details["Output"].inner_text().startswith("PNG, ")
    stages = page.locator("#stages th").all_inner_texts()
    assert "Decode the image" in stages
    assert stages[-1] == "Send and receive"
    name, file = downloaded(page)
    assert name == "photo-x4.png"
    assert Image.open(io.BytesIO(file)).size == (1216, 1024)
    before = np.array(
        Image.open(PHOTO).convert("RGB").resize((1216, 1024), Image.Resampling.LANCZOS)
    )
    assert np.array_equal(np.array(Image.open(io.BytesIO(file))), 255 - before)


def test_a_newcomer_needs_neither_a_picture_nor_to_copy_the_token(page: Page, service: str) -> None:
    page.goto(f"/#token={ASCII_TOKEN}")
    expect(page.locator("#token")).to_have_value(ASCII_TOKEN)
    assert page.url == f"{service}/", "the token is not left in the address"
    page.click("#sample")
    expect(page.locator("#caption")).to_contain_text("sample.jpg · 304 × 256")
    expect(page.locator("#image-error")).to_be_empty()


@pytest.mark.slow
@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_can_be_dropped_or_pasted(page: Page, event: str) -> None:
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const options = {bubbles: true, cancelable: true};
            document.querySelector("#settings").dispatchEvent(event === "drop"
                ? new DragEvent("drop", {...options, dataTransfer: data})
                : new ClipboardEvent("paste", {...options, clipboardData: data}));
        }""",
        [event, list(png()["buffer"])],
    )
    expect(page.locator("#caption")).to_contain_text("dropped.png · 300 × 280")


def test_a_url_can_be_entered(page: Page, photo_url: str, tmp_path: Path, service: str) -> None:
    page.fill("#image-url", photo_url)
    page.press("#image-url", "Enter")
    expect(page.locator("#caption")).to_have_text("photo.png · 304 × 256")
    page.check("input[value=width]", force=True)
    page.fill("#number", "500")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("304 × 256 became 500 × 421")
    assert page.locator("#slider").is_visible()
    name, file = downloaded(page)
    assert name == "photo-500x421.png"
    assert run_curl(page, tmp_path) == {"photo-500x421.png": file}


@pytest.mark.slow
def test_only_the_result_is_shown_if_the_original_cannot_be(page: Page, photo_url: str) -> None:
    page.route(photo_url, lambda route: route.abort())
    page.fill("#image-url", photo_url)
    page.click("#url-form button")
    expect(page.locator("#image-note")).to_contain_text("cannot show this image from that URL")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("304 × 256 became 1216 × 1024")
    expect(page.locator("#image-note")).to_contain_text("only the result is shown")
    assert page.locator("img.after").is_visible()
    assert not page.locator("img.before").is_visible()
    assert not page.locator("#slider").is_visible()


@pytest.mark.slow
def test_an_original_that_loads_late_does_not_replace_the_result(
    page: Page, photo_url: str
) -> None:
    held: list[Route] = []
    page.route(photo_url, lambda route: held.append(route))  # noqa: PLW0108  playwright cannot wrap a builtin method
    page.fill("#image-url", photo_url)
    page.click("#url-form button")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    with page.expect_event("requestfinished"):
        held[0].fulfill(path=PHOTO)
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert page.locator("#details").is_visible()
    assert page.locator("img.after").is_visible()


def test_the_result_is_measured_where_a_proxy_removes_the_headers(page: Page) -> None:
    def strip(route: Route) -> None:
        response = route.fetch()
        headers = {
            name: value for name, value in response.headers.items() if "upscaler" not in name
        }
        route.fulfill(response=response, headers=headers)

    page.route("**/v1/responses/*", strip)
    choose(page, png())
    page.fill("#token", ASCII_TOKEN)  # route.fetch garbles others
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("300 × 280 became 1200 × 1120 in ")


def test_an_invalid_url_is_reported(page: Page) -> None:
    for url in ("", "photo.png", "file:///etc/passwd", "javascript:alert(1)"):
        choose(page, png())
        expect(page.locator("#image-error")).to_be_empty()
        page.fill("#image-url", url)
        page.click("#url-form button")
        expect(page.locator("#image-error")).to_contain_text("starts with http:// or https://")
        expect(page.locator("#image-url")).to_have_attribute("aria-invalid", "true")


@pytest.mark.slow
def test_a_jpeg_by_height_with_another_model(page: Page) -> None:
    choose(page, PHOTO)
    page.select_option("#model", "real-esrgan-x2-plus")
    expect(page.locator("#number")).to_have_value("2")
    page.check("input[value=height]", force=True)
    expect(page.locator("#number")).to_have_value("512")
    page.fill("#number", "777")
    page.check("input[value=jpeg]", force=True)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#detail-list")).to_contain_text("real-esrgan-x2-plus")
    name, file = downloaded(page)
    assert name == "photo-923x777.jpg"
    image = Image.open(io.BytesIO(file))
    assert (image.format, image.size) == ("JPEG", (923, 777))


def test_a_format_that_the_service_adds_can_be_chosen(page: Page) -> None:
    """The page has no list of its own: neither of names, nor of media types and suffixes."""
    added = {"name": "new", "media_type": "image/webp", "suffix": ".xyz", "description": "Newer."}
    accepted = []

    def config(route: Route) -> None:
        known = route.fetch().json()
        route.fulfill(json={**known, "encodings": [*known["encodings"], added]})

    def respond(route: Route) -> None:
        accepted.append(route.request.headers["accept"])
        assert '"output_image_encoding":"new"' in (route.request.post_data or "")
        if "x-upscaler-dry-run" in route.request.headers:
            route.fulfill(json={"estimated_seconds": 0.1})
        else:
            file = io.BytesIO()
            Image.new("RGB", (1200, 1120), RED).save(file, "WEBP")
            route.fulfill(body=file.getvalue(), content_type="image/webp")

    page.route("**/page/config.json", config)
    page.route("**/upscaling*", respond)
    page.reload()
    expect(page.locator("input[value=png]")).to_be_checked()
    assert page.locator("#encodings label").all_inner_texts() == ["PNG", "JPEG", "NEW"]
    page.check("input[value=new]", force=True)
    assert text(page, "#encoding-hint") == "Newer."
    upscale(page)
    assert accepted == ["application/json", "text/event-stream, image/webp"]
    assert "Accept: image/webp" in text(page, "#curl")
    assert downloaded(page)[0] == "input-x4.xyz"


def test_another_image_removes_the_result(page: Page) -> None:
    upscale(page)
    choose(page, PHOTO)
    expect(page.locator("#details")).to_be_hidden()
    expect(page.locator("#download")).to_be_hidden()
    assert natural_size(page, "img.before") == [304, 256]
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("1216 × 1024")


def test_a_typed_scale_survives_a_change_of_model(page: Page) -> None:
    page.fill("#number", "1.5")
    page.select_option("#model", "real-esrgan-x2-plus")
    expect(page.locator("#number")).to_have_value("1.5")
    assert "Native scale: 2." in text(page, "#model-hint")


# The slider


@pytest.mark.slow
def test_the_slider_moves_by_keyboard(page: Page) -> None:
    upscale(page)
    slider = page.locator("#slider")
    expect(slider).to_be_focused()
    assert (colour_at(page, 0.25), colour_at(page, 0.75)) == (RED, CYAN)
    page.keyboard.press("Home")
    assert (colour_at(page, 0.25), colour_at(page, 0.75)) == (CYAN, CYAN)
    page.keyboard.press("End")
    assert (colour_at(page, 0.25), colour_at(page, 0.75)) == (RED, RED)
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert float(slider.input_value()) == 97
    assert (colour_at(page, 0.95), colour_at(page, 0.99)) == (RED, CYAN)
    expect(slider).to_have_attribute("aria-valuetext", "97 % before")


def test_the_slider_moves_by_mouse(page: Page) -> None:
    upscale(page)
    left, top, width, height = view_box(page)
    page.mouse.click(left + 0.8 * width, top + 0.3 * height)
    assert (colour_at(page, 0.78), colour_at(page, 0.82)) == (RED, CYAN)
    page.mouse.move(left + 0.8 * width, top + 0.5 * height)
    page.mouse.down()
    page.mouse.move(left + 0.5 * width, top + 0.5 * height)
    page.mouse.move(left + 0.1 * width, top + 0.5 * height)
    page.mouse.up()
    assert (colour_at(page, 0.08), colour_at(page, 0.12)) == (RED, CYAN)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True, "is_mobile": True}])
def test_the_slider_moves_by_touch(page: Page) -> None:
    upscale(page)
    left, top, width, height = view_box(page)
    page.touchscreen.tap(left + 0.3 * width, top + 0.4 * height)
    assert (colour_at(page, 0.27), colour_at(page, 0.33)) == (RED, CYAN)


@pytest.mark.slow
def test_at_1_to_1_the_image_scrolls_below_the_divider(page: Page) -> None:
    """Left of the divider is always the original, whichever part of the image is visible."""
    wide = Image.new("RGB", (600, 300), RED)
    wide.paste((40, 40, 200), (300, 0, 600, 300))
    out = io.BytesIO()
    wide.save(out, "PNG")
    upscale(page, {"name": "wide.png", "mimeType": "image/png", "buffer": out.getvalue()})
    page.check("input[value=actual]", force=True)
    assert page.eval_on_selector("img.after", "i => i.getBoundingClientRect().width") == 2400
    assert (colour_at(page, 0.4), colour_at(page, 0.6)) == (RED, (215, 215, 55))
    page.focus(".scroller")
    scroller = page.locator(".scroller")
    scroller.evaluate("e => e.scrollTo(0, 0)")
    expect(scroller).to_have_js_property("scrollLeft", 0)
    assert (colour_at(page, 0.4), colour_at(page, 0.6)) == (RED, CYAN)
    left, top, width, height = view_box(page)
    page.mouse.move(left + width / 4, top + height / 2)
    page.mouse.wheel(5000, 0)
    end = scroller.evaluate("e => e.scrollWidth - e.clientWidth")
    assert end > 1000
    expect(scroller).to_have_js_property("scrollLeft", end)
    assert (colour_at(page, 0.4), colour_at(page, 0.6)) == ((40, 40, 200), (215, 215, 55))
    page.mouse.move(left + width / 2, top + height / 2)
    page.mouse.down()
    page.mouse.move(left + width / 4, top + height / 2)
    page.mouse.up()
    assert (colour_at(page, 0.2), colour_at(page, 0.3)) == ((40, 40, 200), (215, 215, 55))
