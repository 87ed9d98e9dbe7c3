"""The page in a browser, against the running service: what a person sees and can do.

Needs Chromium; without it these tests are skipped, unless REQUIRE_BROWSER is set.
"""

import io
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FilePayload,
    Page,
    Route,
    expect,
    sync_playwright,
)

from tests.conftest import PHOTO
from tests.demands import program
from tests.request_literals import advice, asking
from tests.serving import Resizer, running
from upscaler.app import create_app
from upscaler.contract import MAX_BODY_BYTES, Size, output_size, scaled_size
from upscaler.errors import Busy, Unavailable, UpscalerError
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Settings

TOKEN = "zweites-schlüsselwort"
RED, CYAN = (200, 40, 40), (55, 215, 215)
PHONE = {"width": 375, "height": 812}
DESKTOP = {"width": 1440, "height": 900}
HOSTILE_NAME = 'it\'s "a" $(touch owned) `cat`; \\n%s <b>&.png'

CHROMIUM = program("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


class Darkroom(Resizer):
    """Makes negatives, so that before and after are never confused; waits and fails on demand."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.failure: UpscalerError | None = None
        self.calls = 0

    def reset(self) -> None:
        self.open.set()
        self.failure = None
        self.calls = 0

    def upscale(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.calls += 1
        assert self.open.wait(30)
        if self.failure:
            raise self.failure
        return [255 - strip for strip in super().upscale(*args, **kwargs)]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing: the test's output is for failures."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another server, with the photo."""
    handler = partial(Quiet, directory=str(PHOTO.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/photo.png"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def darkroom() -> Darkroom:
    return Darkroom()


@pytest.fixture(scope="module")
def service(darkroom: Darkroom, elsewhere: str) -> Iterator[str]:
    settings = Settings(
        tokens=("first", TOKEN),
        fetch_ports=(int(re.split("[:/]", elsewhere)[4]),),
        fetch_networks=(ip_network("127.0.0.0/8"),),
    )
    with running(create_app(darkroom, settings)) as url:
        yield url
        darkroom.open.set()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    options = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def options() -> dict[str, Any]:
    """How the browser is set up; a test may ask for others by its parameters."""
    return {}


@pytest.fixture
def context(
    browser: Browser, service: str, darkroom: Darkroom, options: dict[str, Any]
) -> Iterator[BrowserContext]:
    darkroom.reset()
    context = browser.new_context(**{"base_url": service, "viewport": DESKTOP} | options)
    context.set_default_timeout(10_000)
    yield context
    darkroom.open.set()
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The page, ready; at the end of the test it must not have complained of anything."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # A status of 4xx or 5xx is a complaint of the browser's, not of the page's.
        if message.type in {"error", "warning"} and "Failed to load" not in message.text:
            complaints.append(message.text)

    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    expect(page.locator("#model")).to_have_value(UpscalingModel.X4_PLUS)
    yield page
    assert complaints == []


def picture(size: Size = (300, 280), colour: tuple[int, ...] = RED) -> FilePayload:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": out.getvalue()}


def choose(page: Page, file: FilePayload | Path) -> None:
    page.set_input_files("#file", file)
    expect(page.locator("#caption")).to_contain_text("×")


def upscale(page: Page, file: FilePayload | Path | None = None) -> None:
    """From the first sight of the page to the result."""
    choose(page, file or picture())
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()


def box(page: Page) -> tuple[float, float, float, float]:
    """Where the picture is on the screen: left, top, width and height."""
    found = page.locator("#view").bounding_box()
    assert found
    return found["x"], found["y"], found["width"], found["height"]


def seen(page: Page, x: float) -> tuple[int, ...]:
    """The colour on the screen at this share of the picture's width, away from what is over it."""
    left, top, width, height = box(page)
    left, top = left + x * width, top + 0.8 * height
    shot = page.screenshot(clip={"x": left, "y": top, "width": 1, "height": 1})
    pixel = Image.open(io.BytesIO(shot)).convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(map(int, pixel))


def natural_size(page: Page, image: str) -> list[int]:
    found: list[int] = page.eval_on_selector(image, "i => [i.naturalWidth, i.naturalHeight]")
    return found


def downloaded(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click("#download")
    return download.value.suggested_filename, download.value.path().read_bytes()


def words(page: Page, selector: str) -> str:
    return (page.locator(selector).text_content() or "").replace("\u00a0", " ")


# -- From a picture to its result ------------------------------------------------------------------


def test_a_photo_is_enlarged(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(PHOTO)
    expect(page.locator("#caption")).to_contain_text("photo.png · 304 × 256")
    assert words(page, "#output-size") == "304 × 256 becomes 1216 × 1024 pixels."
    page.fill("#token", TOKEN)
    page.click("#start")

    expect(page.locator("#summary")).to_contain_text("304 × 256 became 1216 × 1024 in ")
    assert natural_size(page, "img.after") == [1216, 1024]
    assert natural_size(page, "img.before") == [304, 256]
    told = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all(), strict=True))
    assert told["Model"].inner_text() == "real-esrgan-x4-plus"
    assert re.fullmatch(r"[\w-]{8,}", told["Request"].inner_text())
    assert told["File"].inner_text().startswith("PNG, ")
    stages = page.locator("#stages th").all_inner_texts()
    assert "Read the picture" in stages
    assert stages[-1] == "Send and receive"
    name, file = downloaded(page)
    assert name == "photo-x4.png"
    assert Image.open(io.BytesIO(file)).size == (1216, 1024)
    before = np.array(
        Image.open(PHOTO).convert("RGB").resize((1216, 1024), Image.Resampling.LANCZOS)
    )
    assert np.array_equal(np.array(Image.open(io.BytesIO(file))), 255 - before)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page: Page, event: str) -> None:
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const options = {bubbles: true, cancelable: true};
            document.querySelector("#settings").dispatchEvent(event === "drop"
                ? new DragEvent("drop", {...options, dataTransfer: data})
                : new ClipboardEvent("paste", {...options, clipboardData: data}));
        }""",
        [event, list(picture()["buffer"])],
    )
    expect(page.locator("#caption")).to_contain_text("dropped.png · 300 × 280")


def test_an_address_may_be_given(page: Page, elsewhere: str, tmp_path: Path, service: str) -> None:
    page.fill("#address", elsewhere)
    page.press("#address", "Enter")
    expect(page.locator("#caption")).to_have_text("photo.png · 304 × 256")
    page.check("input[value=width]", force=True)
    page.fill("#number", "500")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("304 × 256 became 500 × 421")
    assert page.locator("#split").is_visible()
    name, file = downloaded(page)
    assert name == "photo-500x421.png"
    assert run_curl(page, tmp_path) == {"photo-500x421.png": file}


def test_the_result_stands_alone_where_the_browser_cannot_show_the_original(
    page: Page, elsewhere: str
) -> None:
    page.route(elsewhere, lambda route: route.abort())
    page.fill("#address", elsewhere)
    page.click("#address-form button")
    expect(page.locator("#picture-note")).to_contain_text("cannot show this picture from there")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("304 × 256 became 1216 × 1024")
    expect(page.locator("#picture-note")).to_contain_text("this is the result alone")
    assert page.locator("img.after").is_visible()
    assert not page.locator("img.before").is_visible()
    assert not page.locator("#split").is_visible()


def test_an_original_that_comes_late_leaves_the_result_alone(page: Page, elsewhere: str) -> None:
    held: list[Route] = []
    page.route(elsewhere, lambda route: held.append(route))  # noqa: PLW0108  playwright marks it
    page.fill("#address", elsewhere)
    page.click("#address-form button")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    with page.expect_event("requestfinished"):
        held[0].fulfill(path=PHOTO)
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert page.locator("#details").is_visible()
    assert page.locator("img.after").is_visible()


def test_what_is_no_address_is_told(page: Page) -> None:
    for address in ("", "photo.png", "file:///etc/passwd", "javascript:alert(1)"):
        choose(page, picture())
        expect(page.locator("#picture-error")).to_be_empty()
        page.fill("#address", address)
        page.click("#address-form button")
        expect(page.locator("#picture-error")).to_contain_text("begins with http:// or https://")
        expect(page.locator("#address")).to_have_attribute("aria-invalid", "true")


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
    expect(page.locator("#facts")).to_contain_text("real-esrgan-x2-plus")
    name, file = downloaded(page)
    assert name == "photo-923x777.jpg"
    image = Image.open(io.BytesIO(file))
    assert (image.format, image.size) == ("JPEG", (923, 777))


def test_another_picture_puts_the_result_away(page: Page) -> None:
    upscale(page)
    choose(page, PHOTO)
    expect(page.locator("#details")).to_be_hidden()
    expect(page.locator("#download")).to_be_hidden()
    assert natural_size(page, "img.before") == [304, 256]
    page.click("#start")
    expect(page.locator("#summary")).to_contain_text("1216 × 1024")


def test_a_written_scale_outlives_the_choice_of_a_model(page: Page) -> None:
    page.fill("#number", "1.5")
    page.select_option("#model", "real-esrgan-x2-plus")
    expect(page.locator("#number")).to_have_value("1.5")
    assert "Its own scale is 2." in words(page, "#model-hint")


# -- The slider ------------------------------------------------------------------------------------


def test_the_slider_moves_by_keyboard(page: Page) -> None:
    upscale(page)
    slider = page.locator("#split")
    expect(slider).to_be_focused()
    assert (seen(page, 0.25), seen(page, 0.75)) == (RED, CYAN)
    page.keyboard.press("Home")
    assert (seen(page, 0.25), seen(page, 0.75)) == (CYAN, CYAN)
    page.keyboard.press("End")
    assert (seen(page, 0.25), seen(page, 0.75)) == (RED, RED)
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert float(slider.input_value()) == 97
    assert (seen(page, 0.95), seen(page, 0.99)) == (RED, CYAN)
    expect(slider).to_have_attribute("aria-valuetext", "97 % before")


def test_the_slider_moves_by_mouse(page: Page) -> None:
    upscale(page)
    left, top, width, height = box(page)
    page.mouse.click(left + 0.8 * width, top + 0.3 * height)
    assert (seen(page, 0.78), seen(page, 0.82)) == (RED, CYAN)
    page.mouse.move(left + 0.8 * width, top + 0.5 * height)
    page.mouse.down()
    page.mouse.move(left + 0.5 * width, top + 0.5 * height)
    page.mouse.move(left + 0.1 * width, top + 0.5 * height)
    page.mouse.up()
    assert (seen(page, 0.08), seen(page, 0.12)) == (RED, CYAN)


@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True, "is_mobile": True}])
def test_the_slider_moves_by_touch(page: Page) -> None:
    upscale(page)
    left, top, width, height = box(page)
    page.touchscreen.tap(left + 0.3 * width, top + 0.4 * height)
    assert (seen(page, 0.27), seen(page, 0.33)) == (RED, CYAN)


def test_at_1_to_1_the_picture_is_moved_below_the_divider(page: Page) -> None:
    """Left of the divider is always the original, whichever part of the picture is seen."""
    wide = Image.new("RGB", (600, 300), RED)
    wide.paste((40, 40, 200), (300, 0, 600, 300))
    out = io.BytesIO()
    wide.save(out, "PNG")
    upscale(page, {"name": "wide.png", "mimeType": "image/png", "buffer": out.getvalue()})
    page.check("input[value=actual]", force=True)
    assert page.eval_on_selector("img.after", "i => i.getBoundingClientRect().width") == 2400
    assert (seen(page, 0.4), seen(page, 0.6)) == (RED, (215, 215, 55))
    page.focus(".pan")
    pan = page.locator(".pan")
    pan.evaluate("pan => pan.scrollTo(0, 0)")
    expect(pan).to_have_js_property("scrollLeft", 0)
    assert (seen(page, 0.4), seen(page, 0.6)) == (RED, CYAN)
    left, top, width, height = box(page)
    page.mouse.move(left + width / 4, top + height / 2)
    page.mouse.wheel(5000, 0)
    end = pan.evaluate("pan => pan.scrollWidth - pan.clientWidth")
    assert end > 1000
    expect(pan).to_have_js_property("scrollLeft", end)
    assert (seen(page, 0.4), seen(page, 0.6)) == ((40, 40, 200), (215, 215, 55))
    page.mouse.move(left + width / 2, top + height / 2)
    page.mouse.down()
    page.mouse.move(left + width / 4, top + height / 2)
    page.mouse.up()
    assert (seen(page, 0.2), seen(page, 0.3)) == ((40, 40, 200), (215, 215, 55))


# -- Limits, told at once --------------------------------------------------------------------------


def test_a_picture_beyond_the_limits_is_told_at_once(page: Page) -> None:
    error = page.locator("#picture-error")
    for size, right in (
        ((256, 2048), True),
        ((255, 300), False),
        ((2048, 256), True),
        ((300, 2049), False),
    ):
        choose(page, picture(size))
        told = f"256 to 2048 pixels, and this picture is {size[0]} × {size[1]}."
        expect(error).to_have_text("" if right else f"Each side must have {told}")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#file")).to_be_focused()
    expect(page.locator("#progress")).to_be_hidden()


def test_a_picture_is_measured_upright(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (400, 300)).save(out, "JPEG", exif=exif)
    choose(page, {"name": "turned.jpg", "mimeType": "image/jpeg", "buffer": out.getvalue()})
    assert "300 × 400" in words(page, "#caption")


def test_a_file_of_another_type_is_told_at_once(page: Page) -> None:
    for n, content in enumerate((b"", b"GIF89a" + bytes(50), b"%PDF-1.7", b"RIFF1234WAVEfmt ")):
        file: FilePayload = {"name": f"{n}.png", "mimeType": "image/png", "buffer": content}
        page.set_input_files("#file", file)
        told = f"“{n}.png” is not a PNG, JPEG or WebP picture."
        expect(page.locator("#picture-error")).to_have_text(told)


def test_a_file_that_is_too_long_is_told_at_once(page: Page, tmp_path: Path) -> None:
    """In base64 it would just not fit into a body."""
    path = tmp_path / "long.png"
    data = PHOTO.read_bytes()
    path.write_bytes(data + bytes(MAX_BODY_BYTES * 3 // 4 - len(data)))
    choose(page, path)
    expect(page.locator("#picture-error")).to_contain_text("A file may have at most 25.2 MB")
    path.write_bytes(data + bytes(MAX_BODY_BYTES * 3 // 4 - len(data) - 200))
    choose(page, path)
    expect(page.locator("#picture-error")).to_be_empty()


def test_too_large_a_result_is_told_at_once(page: Page) -> None:
    choose(page, PHOTO)
    for kind, field, number in (
        ("scale", "scale", "27"),
        ("width", "output_image_width", "8193"),
        ("height", "output_image_height", "8000"),
    ):
        page.check(f"input[value={kind}]", force=True)
        page.fill("#number", number)
        most = advice((304, 256), field)
        expect(page.locator("#size-error")).to_have_text(
            "The result may have at most 8192 pixels on each side. "
            f"For this picture the largest {kind} is {most}."
        )
        page.fill("#number", str(most))
        expect(page.locator("#size-error")).to_be_empty()


def test_what_is_no_number_is_told_at_once(page: Page) -> None:
    none = ("", "0", "-1", "two", "1e3", "0x10", "1.2.3", "9" * 400)
    for kind, numbers, told in (
        ("scale", none, "Give a number above 0, such as 2.5."),
        ("width", (*none, "1.5"), "Give a whole number of pixels."),
    ):
        page.check(f"input[value={kind}]", force=True)
        for number in numbers:
            page.fill("#number", "2")
            expect(page.locator("#size-error")).to_be_empty()
            page.fill("#number", number)
            expect(page.locator("#size-error")).to_have_text(told)


def test_a_comma_is_a_point(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#number", "2,5")
    assert words(page, "#output-size") == "304 × 256 becomes 760 × 640 pixels."


def test_sizes_are_the_contracts(page: Page) -> None:
    """REQ-16, with ties that binary numbers miss, and the largest that is allowed (REQ-14)."""
    ties = [
        ((side, 2048), "scale", n / 100)
        for side in range(256, 400)
        for n in range(1, 300)
        if side * n % 100 == 50
    ]
    scales = [0.35, 1e-7, 5e-324, 0.1, 1.005, 2.675, 3.9999999, 4.0002, 31.999, 1 / 3, 4, 1e21]
    cases: list[tuple[Size, str, float]] = [
        *ties,
        *(((290, 1000), "scale", scale) for scale in scales),
        *(((257, 2048), "width", width) for width in (1, 3, 4, 500, 1028)),
        *(((2048, 257), "height", height) for height in (1, 3, 4, 500, 1028)),
        *(((997, 641), kind, n) for kind in ("width", "height") for n in range(1, 3000, 7)),
    ]
    found = page.evaluate(
        """async (cases) => {
            const { outputSize } = await import("/page/sizes.js");
            return cases.map(([[width, height], kind, number]) => {
                const size = outputSize({width, height}, kind, number);
                return [size.width, size.height];
            });
        }""",
        cases,
    )
    assert len(ties) > 500
    for (size, kind, number), output in zip(cases, found, strict=True):
        if kind == "scale":
            expected = scaled_size(size, number)
        else:
            expected = output_size(asking(f"output_image_{kind}", str(number)), size)
        assert tuple(output) == pytest.approx(expected, abs=0, rel=1e-15), (size, kind, number)


def test_the_largest_size_is_the_contracts(page: Page) -> None:
    fields = {"scale": "scale", "width": "output_image_width", "height": "output_image_height"}
    sizes = [(256, 256), (2048, 2048), (256, 2048), (300, 299), (299, 300), (257, 256), (997, 641)]
    cases = [(size, kind) for size in sizes for kind in fields]
    found = page.evaluate(
        """async (cases) => {
            const { largest } = await import("/page/sizes.js");
            return cases.map(([[width, height], kind]) => largest({width, height}, kind, 8192));
        }""",
        cases,
    )
    assert found == [float(advice(size, fields[kind])) for size, kind in cases]


# -- What goes wrong -------------------------------------------------------------------------------


def test_nothing_is_sent_before_all_is_given(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.click("#start")
    expect(page.locator("#picture-error")).to_have_text("Choose a picture first.")
    expect(page.locator("#token-error")).to_contain_text("Give the service’s token.")
    expect(page.locator("#file")).to_be_focused()
    choose(page, PHOTO)
    page.click("#start")
    expect(page.locator("#token")).to_be_focused()
    assert not [url for url in asked if url.endswith("/upscaling")]


def test_a_wrong_token_is_told_at_its_field(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#token", "wrong")
    page.click("#start")
    expect(page.locator("#token-error")).to_contain_text("The service does not know this token.")
    expect(page.locator("#token")).to_be_focused()
    expect(page.locator("#token")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#request-id")).to_have_text(re.compile(r"Request [\w-]{8,}"))
    page.keyboard.insert_text(TOKEN)
    expect(page.locator("#token-error")).to_be_empty()
    page.fill("#token", f"  {TOKEN} ")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()


def test_what_only_the_service_sees_is_told_at_its_field(page: Page) -> None:
    """An animation, which a browser shows like any other picture."""
    out = io.BytesIO()
    frames = [Image.new("RGB", (300, 300), colour) for colour in (RED, CYAN)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    choose(page, {"name": "moving.webp", "mimeType": "image/webp", "buffer": out.getvalue()})
    expect(page.locator("#picture-error")).to_be_empty()
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#picture-error")).to_contain_text("animated")
    expect(page.locator("#file")).to_be_focused()


def test_an_address_that_leads_nowhere_is_told_at_its_field(page: Page, elsewhere: str) -> None:
    page.fill("#address", elsewhere.replace("photo", "nothing"))
    page.click("#address-form button")
    expect(page.locator("#picture-note")).not_to_be_empty()
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#picture-error")).not_to_be_empty()
    expect(page.locator("#address")).to_be_focused()


def test_a_busy_service_is_told_with_when_to_try_again(page: Page, darkroom: Darkroom) -> None:
    darkroom.failure = Busy("as many pictures wait as there is room for", 7)
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    problem = page.locator("#problem")
    expect(problem).to_contain_text("As many pictures wait as there is room for.")
    expect(page.locator("#retry")).to_have_text(re.compile(r"Try again \(in [67] s\)"))
    expect(page.locator("#retry")).to_have_text(re.compile(r"Try again \(in [1-5] s\)"))
    expect(page.locator("#request-id")).to_have_text(re.compile(r"Request [\w-]{8,}"))
    expect(page.locator("#retry")).to_be_focused()
    darkroom.failure = None
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    expect(problem).to_be_hidden()


def test_a_service_that_cannot_is_told(page: Page, darkroom: Darkroom) -> None:
    darkroom.failure = Unavailable("/somewhere/is damaged")
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_contain_text("The service cannot do this at present")
    expect(page.locator("#retry")).to_have_text("Try again")


def test_a_service_that_is_gone_is_told(page: Page) -> None:
    page.route("**/upscaling", lambda route: route.abort())
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_contain_text("The service cannot be reached")
    page.unroute("**/upscaling")
    page.click("#retry")
    expect(page.locator("#details")).to_be_visible()


def test_any_answer_is_told_in_words(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    for status, body, told in (
        (413, '{"detail": "the body is too long"}', "The body is too long."),
        (422, '{"detail": [{"loc": ["body", "model"], "msg": "no", "type": "x"}]}', "No."),
        (422, '{"detail": [{"loc": ["header", "X-A"], "msg": "no", "type": "x"}]}', "X-A: no."),
        (408, '{"detail": "too slow"}', "The service answered with an error (408). Too slow."),
        (502, "<b>Bad gateway</b>", "The service answered with an error (502)."),
        (200, "<b>Not it</b>", "no picture"),
        (500, '{"detail": "<img src=x onerror=alert(1)>"}', "<img src=x onerror=alert(1)>"),
    ):
        page.unroute("**/upscaling")
        page.route("**/upscaling", partial(answering, status=status, body=body))
        page.click("#start")
        expect(page.get_by_text(told, exact=told == "No.").first).to_be_visible()
        expect(page.locator("#start")).to_be_visible()


def answering(route: Route, status: int, body: str) -> None:
    route.fulfill(status=status, body=body)


# -- Progress --------------------------------------------------------------------------------------


def test_progress_is_told_and_never_arrives_early(page: Page, darkroom: Darkroom) -> None:
    darkroom.open.clear()
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#words")).to_contain_text("Upscaling … 0\u00a0s")
    expect(page.locator("#cancel")).to_be_focused()
    expect(page.locator("#status")).to_contain_text("Upscaling")
    expect(page.locator("#model")).to_be_disabled()
    first = float(page.locator("#bar").get_attribute("value") or 0)
    expect(page.locator("#words")).to_contain_text("Upscaling … 1\u00a0s")
    second = float(page.locator("#bar").get_attribute("value") or 0)
    assert 0 < first < second < 0.91
    darkroom.open.set()
    expect(page.locator("#details")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("Done: 1216 by 1024 pixels")


def test_what_is_being_received_is_told(page: Page, context: BrowserContext) -> None:
    """And from then on nothing of upscaling any more."""
    slow = {"offline": False, "latency": 0, "uploadThroughput": -1, "downloadThroughput": 400_000}
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.evaluate(
        """() => {
            window.told = [];
            const note = () => window.told.push(document.querySelector("#words").textContent);
            new MutationObserver(note).observe(
                document.querySelector("#words"), {childList: true, characterData: true});
        }"""
    )
    page.click("#start")
    expect(page.locator("#details")).to_be_visible(timeout=20_000)
    told = [text.split(" ")[0] for text in page.evaluate("window.told")]
    assert list(dict.fromkeys(told)) == ["Checking", "Sending", "Upscaling", "Receiving"]
    assert told == sorted(told, key=list(dict.fromkeys(told)).index)
    assert told.count("Receiving") > 3


def test_a_call_can_be_cancelled_and_made_again(page: Page, darkroom: Darkroom) -> None:
    darkroom.open.clear()
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#words")).to_contain_text("Upscaling")
    with page.expect_event("requestfailed") as failed:
        page.keyboard.press("Enter")
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#start")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(page.locator("#problem")).to_be_hidden()
    darkroom.open.set()
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()


# -- The curl line and the token -------------------------------------------------------------------


def run_curl(page: Page, folder: Path) -> dict[str, bytes]:
    """Run the line in bash in `folder`, and give the files that it has made."""
    before = set(folder.iterdir())
    line = page.locator("#curl").text_content() or ""
    environment = {"PATH": os.environ["PATH"], "UPSCALER_TOKEN": TOKEN}
    subprocess.run(["bash", "-euc", line], cwd=folder, env=environment, check=True, timeout=60)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path not in before}


@pytest.mark.skipif(not program("curl"), reason="curl is not installed")
@pytest.mark.parametrize("name", ["photo.png", HOSTILE_NAME, "-o.png", "no suffix"])
def test_the_curl_line_does_the_same(page: Page, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(PHOTO, folder / name)
    choose(page, folder / name)
    page.fill("#number", "1.5")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    _, file = downloaded(page)
    made = run_curl(page, folder)
    assert list(made.values()) == [file]
    (made_name,) = made
    assert made_name.endswith("-x1.5.png")


def test_the_curl_line_can_be_copied(page: Page) -> None:
    upscale(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#curl").text_content()
    assert copied.startswith('(printf \'%s\' \'{"model":"real-esrgan-x4-plus","scale":4,')


def test_the_token_is_nowhere_but_in_the_header(page: Page, context: BrowserContext) -> None:
    sent: list[str | None] = []
    page.on("request", lambda request: sent.append(request.headers.get("authorization")))
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url + (request.post_data or "")))
    upscale(page)
    assert len([header for header in sent if header]) == 2
    assert not [url for url in urls if TOKEN in url]
    kept = page.evaluate(
        """async () => JSON.stringify([
            {...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state,
            await indexedDB.databases(), await caches.keys(), window.name,
            document.documentElement.outerHTML])"""
    )
    assert TOKEN not in kept
    assert "$UPSCALER_TOKEN" in kept
    assert context.cookies() == []
    assert context.storage_state() == {"cookies": [], "origins": []}
    page.reload()
    expect(page.locator("#model")).to_have_value(UpscalingModel.X4_PLUS)
    expect(page.locator("#token")).to_have_value("")


# -- For everybody ---------------------------------------------------------------------------------


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
