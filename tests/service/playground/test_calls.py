"""The page: what goes wrong, how far it is, and the same call with curl."""

import io
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.service.playground.actions import (
    CYAN,
    HOSTILE_NAME,
    RED,
    TOKEN,
    Darkroom,
    choose,
    downloaded,
    needs_browser,
    run_curl,
    upscale,
)
from tests.support.paths import PHOTO
from tests.support.requirements import program
from upscaler.errors import Busy, Unavailable
from upscaler.models import UpscalingModel

pytestmark = needs_browser


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


# Progress


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


# The curl line and the token


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
