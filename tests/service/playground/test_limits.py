"""The page: the limits of images and sizes, checked before anything is sent."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.service.playground.actions import TOKEN, choose, png, text
from tests.support.paths import PHOTO
from tests.support.request_literals import advice, asking
from tests.support.requirements import needs_browser
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.api.sizes import Size, output_size, scaled_size

pytestmark = needs_browser


def test_an_image_beyond_the_limits_is_reported_at_once(page: Page) -> None:
    error = page.locator("#image-error")
    for size, valid in (
        ((256, 2048), True),
        ((255, 300), False),
        ((2048, 256), True),
        ((300, 2049), False),
    ):
        choose(page, png(size))
        message = f"Each side must have 256 to 2048 pixels; this image is {size[0]} × {size[1]}."
        expect(error).to_have_text("" if valid else message)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#file")).to_be_focused()
    expect(page.locator("#progress")).to_be_hidden()


def test_an_image_is_measured_after_exif_rotation(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (400, 300)).save(out, "JPEG", exif=exif)
    choose(page, {"name": "turned.jpg", "mimeType": "image/jpeg", "buffer": out.getvalue()})
    assert "300 × 400" in text(page, "#caption")


def test_another_file_type_is_reported_at_once(page: Page) -> None:
    for n, content in enumerate((b"", b"GIF89a" + bytes(50), b"%PDF-1.7", b"RIFF1234WAVEfmt ")):
        file: FilePayload = {"name": f"{n}.png", "mimeType": "image/png", "buffer": content}
        page.set_input_files("#file", file)
        message = f"“{n}.png” is not a PNG, JPEG or WebP image."
        expect(page.locator("#image-error")).to_have_text(message)


@pytest.mark.slow
def test_too_large_a_file_is_reported_at_once(page: Page, tmp_path: Path) -> None:
    """In base64 it is just too large for a request body."""
    path = tmp_path / "long.png"
    data = PHOTO.read_bytes()
    path.write_bytes(data + bytes(MAX_BODY_BYTES * 3 // 4 - len(data)))
    choose(page, path)
    expect(page.locator("#image-error")).to_contain_text("The file can have at most 25.2 MB")
    path.write_bytes(data + bytes(MAX_BODY_BYTES * 3 // 4 - len(data) - 200))
    choose(page, path)
    expect(page.locator("#image-error")).to_be_empty()


@pytest.mark.slow
def test_too_large_an_output_is_reported_at_once(page: Page) -> None:
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
            "The output can have at most 8192 pixels on each side. "
            f"For this image the largest {kind} is {most}."
        )
        page.fill("#number", str(most))
        expect(page.locator("#size-error")).to_be_empty()


def test_an_invalid_number_is_reported_at_once(page: Page) -> None:
    invalid = ("", "0", "-1", "two", "1e3", "0x10", "1.2.3", "9" * 400)
    for kind, numbers, message in (
        ("scale", invalid, "Enter a number above 0, such as 2.5."),
        ("width", (*invalid, "1.5"), "Enter a whole number of pixels."),
    ):
        page.check(f"input[value={kind}]", force=True)
        for number in numbers:
            page.fill("#number", "2")
            expect(page.locator("#size-error")).to_be_empty()
            page.fill("#number", number)
            expect(page.locator("#size-error")).to_have_text(message)


def test_a_comma_is_a_decimal_point(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#number", "2,5")
    assert text(page, "#output-size") == "304 × 256 becomes 760 × 640 pixels."


def test_output_sizes_follow_the_contract(page: Page) -> None:
    """REQ-16, with ties that binary floating point would get wrong."""
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


@pytest.mark.slow
def test_the_largest_number_follows_the_contract(page: Page) -> None:
    fields = {"scale": "scale", "width": "output_image_width", "height": "output_image_height"}
    sizes = [(256, 256), (2048, 2048), (256, 2048), (300, 299), (299, 300), (257, 256), (997, 641)]
    cases = [(size, kind) for size in sizes for kind in fields]
    found = page.evaluate(
        """async (cases) => {
            const { largestNumber } = await import("/page/sizes.js");
            return cases.map(
                ([[width, height], kind]) => largestNumber({width, height}, kind, 8192));
        }""",
        cases,
    )
    assert found == [float(advice(size, fields[kind])) for size, kind in cases]
