"""The page: errors, progress, the curl command, and the token."""

import io
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.service.playground.actions import (
    ASCII_TOKEN,
    CYAN,
    HOSTILE_NAME,
    RED,
    TOKEN,
    InvertingUpscaler,
    choose,
    downloaded,
    run_curl,
    upscale,
)
from tests.support.paths import PHOTO
from tests.support.requirements import needs_browser, program
from upscaler.errors import Busy, FieldError, InvalidRequest, Unavailable
from upscaler.models import UpscalingModel

pytestmark = needs_browser


@pytest.mark.slow
def test_an_incomplete_form_is_not_sent(page: Page) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.click("#start")
    expect(page.locator("#image-error")).to_have_text("Choose an image first.")
    expect(page.locator("#token-error")).to_contain_text("Enter the service’s token.")
    expect(page.locator("#file")).to_be_focused()
    choose(page, PHOTO)
    page.click("#start")
    expect(page.locator("#token")).to_be_focused()
    assert not [url for url in requested if url.endswith("/upscaling")]


def test_a_wrong_token_is_reported_at_its_field(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#token", "wrong")
    page.click("#start")
    expect(page.locator("#token-error")).to_contain_text("The service does not accept this token.")
    expect(page.locator("#token")).to_be_focused()
    expect(page.locator("#token")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#request-id")).to_have_text(re.compile(r"Request ID [\w-]{8,}"))
    page.keyboard.insert_text(TOKEN)
    expect(page.locator("#token-error")).to_be_empty()
    page.fill("#token", f"  {TOKEN} ")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()


def test_an_error_from_the_service_is_reported_at_its_field(page: Page) -> None:
    """An animation: the browser shows it, and only the service rejects it."""
    out = io.BytesIO()
    frames = [Image.new("RGB", (300, 300), colour) for colour in (RED, CYAN)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    choose(page, {"name": "moving.webp", "mimeType": "image/webp", "buffer": out.getvalue()})
    expect(page.locator("#image-error")).to_be_empty()
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#image-error")).to_contain_text("animated")
    expect(page.locator("#file")).to_be_focused()


def test_faces_are_restored_if_that_is_ticked(page: Page) -> None:
    page.check("text=Restore faces")
    with page.expect_request("**/upscaling") as sent:
        upscale(page)
    assert '"face_enhance":true' in (sent.value.post_data or "")
    expect(page.locator("#detail-list")).to_contain_text("2 restored")
    page.uncheck("text=Restore faces")
    with page.expect_request("**/upscaling") as sent:
        page.click("#start")
    assert "face_enhance" not in (sent.value.post_data or "")


def test_too_many_faces_are_reported_at_the_box(page: Page, stub: InvertingUpscaler) -> None:
    stub.failure = InvalidRequest(
        FieldError(("body", "face_enhance"), "the picture has too many", "too_many_faces")
    )
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.check("#faces")
    page.click("#start")
    expect(page.locator("#faces-error")).to_have_text("The picture has too many.")
    expect(page.locator("#faces")).to_be_focused()


def test_a_failed_download_is_reported_at_the_url(page: Page, photo_url: str) -> None:
    page.fill("#image-url", photo_url.replace("photo", "nothing"))
    page.click("#url-form button")
    expect(page.locator("#image-note")).not_to_be_empty()
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#image-error")).not_to_be_empty()
    expect(page.locator("#image-url")).to_be_focused()


@pytest.mark.slow
def test_a_busy_service_is_reported_with_a_countdown(page: Page, stub: InvertingUpscaler) -> None:
    stub.failure = Busy("the queue is full", 7)
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    problem = page.locator("#problem")
    expect(problem).to_contain_text("The queue is full.")
    expect(page.locator("#retry")).to_have_text(re.compile(r"Try again \(in [67] s\)"))
    expect(page.locator("#retry")).to_have_text(re.compile(r"Try again \(in [1-5] s\)"))
    expect(page.locator("#request-id")).to_have_text(re.compile(r"Request ID [\w-]{8,}"))
    expect(page.locator("#retry")).to_be_focused()
    stub.failure = None
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    expect(problem).to_be_hidden()


@pytest.mark.slow
def test_an_unavailable_service_is_reported(page: Page, stub: InvertingUpscaler) -> None:
    stub.failure = Unavailable("/somewhere/is damaged")
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_contain_text("The service cannot do this at present")
    expect(page.locator("#retry")).to_have_text("Try again")


def test_an_unreachable_service_is_reported(page: Page) -> None:
    page.route("**/upscaling*", lambda route: route.abort())
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#problem")).to_contain_text("The service cannot be reached")
    page.unroute("**/upscaling*")
    page.click("#retry")
    expect(page.locator("#details")).to_be_visible()


def test_every_error_response_is_reported(page: Page) -> None:
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    for status, body, shown in (
        (413, '{"detail": "the body is too long"}', "The body is too long."),
        (422, '{"detail": [{"loc": ["body", "model"], "msg": "no", "type": "x"}]}', "No."),
        (422, '{"detail": [{"loc": ["header", "X-A"], "msg": "no", "type": "x"}]}', "X-A: no."),
        (408, '{"detail": "too slow"}', "The service returned an error (408). Too slow."),
        (502, "<b>Bad gateway</b>", "The service returned an error (502)."),
        (200, "<b>Not it</b>", "Upscaling failed: the response is"),
        (500, '{"detail": "<img src=x onerror=alert(1)>"}', "<img src=x onerror=alert(1)>"),
    ):
        page.unroute("**/upscaling*")
        page.route("**/upscaling*", partial(respond, status=status, body=body))
        page.click("#start")
        expect(page.get_by_text(shown, exact=shown == "No.").first).to_be_visible()
        expect(page.locator("#start")).to_be_visible()


def respond(route: Route, status: int, body: str) -> None:
    route.fulfill(status=status, body=body)


# Progress


@pytest.mark.slow
def test_without_events_progress_is_estimated_and_never_completes_early(
    page: Page, stub: InvertingUpscaler
) -> None:
    """An older service, or a proxy in between, knows nothing of them."""
    page.route("**/upscaling?*", ask_for_the_file_alone)
    stub.open.clear()
    choose(page, PHOTO)
    page.fill("#token", ASCII_TOKEN)
    page.click("#start")
    expect(page.locator("#progress-text")).to_contain_text("Upscaling … 0\u00a0s")
    expect(page.locator("#cancel")).to_be_focused()
    expect(page.locator("#status")).to_contain_text("Upscaling")
    expect(page.locator("#model")).to_be_disabled()
    first = float(page.locator("#progress-bar").get_attribute("value") or 0)
    expect(page.locator("#progress-text")).to_contain_text("Upscaling … 1\u00a0s")
    second = float(page.locator("#progress-bar").get_attribute("value") or 0)
    assert 0 < first < second < 0.91
    stub.open.set()
    expect(page.locator("#details")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("Done: 1216 by 1024 pixels")


def ask_for_the_file_alone(route: Route) -> None:
    headers = route.request.headers
    types = headers["accept"].split(", ")
    assert types == ["text/event-stream", "image/png"]
    route.continue_(headers={**headers, "accept": types[1]})


@pytest.mark.slow
def test_receiving_is_shown_as_progress(page: Page, context: BrowserContext) -> None:
    """And the estimate of the stage before no longer overwrites it."""
    slow = {"offline": False, "latency": 0, "uploadThroughput": -1, "downloadThroughput": 400_000}
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.evaluate(
        """() => {
            window.shown = [];
            const text = document.querySelector("#progress-text");
            const record = () => window.shown.push(text.textContent);
            new MutationObserver(record).observe(text, {childList: true, characterData: true});
        }"""
    )
    page.click("#start")
    expect(page.locator("#details")).to_be_visible(timeout=20_000)
    shown = [text.split(" ")[0] for text in page.evaluate("window.shown")]
    assert list(dict.fromkeys(shown)) == ["Checking", "Sending", "Upscaling", "Receiving"]
    assert shown == sorted(shown, key=list(dict.fromkeys(shown)).index)
    assert shown.count("Receiving") > 3


@pytest.mark.slow
def test_a_request_can_be_cancelled_and_repeated(page: Page, stub: InvertingUpscaler) -> None:
    stub.open.clear()
    choose(page, PHOTO)
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#progress-text")).to_contain_text("Upscaling")
    with page.expect_event("requestfailed") as failed:
        page.keyboard.press("Enter")
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#start")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(page.locator("#problem")).to_be_hidden()
    stub.open.set()
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()


# The curl command and the token


@pytest.mark.first(1)
@pytest.mark.skipif(not program("curl"), reason="curl is not installed")
@pytest.mark.parametrize("name", ["photo.png", HOSTILE_NAME, "-o.png", "no suffix"])
def test_the_curl_command_gives_the_same_file(page: Page, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(PHOTO, folder / name)
    choose(page, folder / name)
    page.fill("#number", "1.5")
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()
    _, file = downloaded(page)
    created = run_curl(page, folder)
    assert list(created.values()) == [file]
    (created_name,) = created
    assert created_name.endswith("-x1.5.png")


def test_the_curl_command_can_be_copied(page: Page) -> None:
    upscale(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#curl").text_content()
    assert copied.startswith('(printf \'%s\' \'{"model":"real-esrgan-x4-plus","scale":4,')


def test_the_token_is_only_in_the_header(page: Page, context: BrowserContext) -> None:
    sent: list[str | None] = []
    page.on("request", lambda request: sent.append(request.headers.get("authorization")))
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url + (request.post_data or "")))
    upscale(page)
    # A dry run, the request, its events, its result, and that it be forgotten.
    assert len([header for header in sent if header]) == 5
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
