"""The page while a job goes on: its rows, its place in line, and a connection that is lost."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.service.playground.actions import (
    CYAN,
    PHONE,
    TOKEN,
    InvertingUpscaler,
    choose,
    png,
    view_box,
)
from tests.support.raw_http import PATIENCE_S
from tests.support.requirements import needs_browser
from tests.support.service import GOOD

pytestmark = needs_browser
ALL = 10_000
"""More rows than a result has."""


@pytest.fixture
def api(service: str, stub: InvertingUpscaler) -> Iterator[httpx.Client]:
    headers = {b"Authorization": f"Bearer {TOKEN}".encode()}
    with httpx.Client(base_url=service, headers=headers, timeout=PATIENCE_S) as client:
        for job in jobs(client):  # of other tests
            client.delete(job["poll_url"])
        yield client
        stub.ends.put(ALL)


def jobs(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/v1/requests").json()["requests"]
    return found


def begin(page: Page, stub: InvertingUpscaler) -> None:
    """Begin with an image of RED, whose result, CYAN, will have 1120 rows."""
    stub.stepwise = True
    choose(page, png())
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#progress-text")).to_contain_text("Upscaling … 0\u00a0%")


def grown(page: Page) -> list[list[int]]:
    """The red, green, blue and alpha of each row of the canvas."""
    samples: list[int] = page.eval_on_selector(
        "canvas", "c => [...c.getContext('2d').getImageData(9, 0, 1, c.height).data]"
    )
    return [samples[at : at + 4] for at in range(0, len(samples), 4)]


def test_rows_are_shown_as_they_come(
    page: Page, stub: InvertingUpscaler, api: httpx.Client
) -> None:
    sent: list[tuple[str, str]] = []
    page.on("request", lambda each: sent.append((each.method, each.url.split("/")[-1])))
    begin(page, stub)
    stub.ends.put(560)
    expect(page.locator("canvas")).to_be_visible(timeout=1000 * PATIENCE_S)
    expect(page.locator("#progress-text")).to_contain_text("Upscaling … 50\u00a0%")
    page.wait_for_function("document.querySelector('#progress-bar').value > 0.5")
    rows = grown(page)
    assert len(rows) == 374, "a third of 1120 or a little more"
    assert [bool(alpha) for *_, alpha in rows] == [row < 176 for row in range(374)]
    assert np.abs(np.array(rows)[:176, :3] - CYAN).max() < 12
    expect(page.locator("img.before")).to_be_visible()
    stub.ends.put(ALL)
    expect(page.locator("#details")).to_be_visible(timeout=1000 * PATIENCE_S)
    expect(page.locator("canvas")).to_be_hidden()
    assert page.locator("#view").get_attribute("data-mode") == "both"
    assert jobs(api) == [], "the service forgets what the page has"
    assert [method for method, _ in sent if method != "GET"] == ["POST", "POST", "DELETE"]
    assert [url for _, url in sent if "events" in url] == ["events?preview=1"]


@pytest.mark.slow
def test_a_job_in_line_says_so_and_is_cancelled(
    page: Page, stub: InvertingUpscaler, api: httpx.Client
) -> None:
    stub.stepwise = True
    api.post("/upscaling", json=GOOD, headers={"X-OctoAI-Async": "1"})
    choose(page, png())
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#progress-text")).to_have_text("Waiting … 1 image ahead")
    stub.ends.put(ALL)
    expect(page.locator("#progress-text")).to_contain_text("Upscaling … 0\u00a0%")
    stub.ends.put(560)
    expect(page.locator("canvas")).to_be_visible(timeout=1000 * PATIENCE_S)
    with page.expect_request_finished(lambda each: each.method == "DELETE"):
        page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(page.locator("canvas")).to_be_hidden()
    assert page.locator("#view").get_attribute("data-mode") == "before"
    assert [each["output_width"] for each in jobs(api)] == [608], "the other one is still there"


@pytest.mark.slow
def test_a_page_that_is_left_cancels_its_job(
    page: Page, stub: InvertingUpscaler, api: httpx.Client
) -> None:
    begin(page, stub)
    (job,) = jobs(api)
    page.goto("/docs")
    until_s = time.monotonic() + PATIENCE_S
    while api.get(job["poll_url"]).status_code != 404:
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_connection_is_taken_up_again(page: Page, stub: InvertingUpscaler) -> None:
    """After the last event, also if the service cannot be reached, or its proxy says so."""
    rows = '{"rows_done": 9, "rows": 90, "seconds_left": 5}'
    lost = f"event: progress\nid: progress-9+32\ndata: {rows}\n"
    last_ids: list[str | None] = []

    def answer(route: Route) -> None:
        last_ids.append(route.request.headers.get("last-event-id"))
        if len(last_ids) == 1:
            route.fulfill(body=f"{lost}\n: \n\n{lost}", content_type="text/event-stream")
        elif len(last_ids) == 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/events?preview=1", answer)
    stub.stepwise = True
    choose(page, png())
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#progress-text")).to_have_text("Connection lost, trying again …")
    stub.ends.put(ALL)
    expect(page.locator("#details")).to_be_visible(timeout=1000 * PATIENCE_S)
    assert last_ids == [None, "progress-9+32", "progress-9+32"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True, "is_mobile": True}])
def test_on_a_phone_the_image_and_the_bar_are_both_in_view(
    page: Page, stub: InvertingUpscaler, api: httpx.Client
) -> None:
    begin(page, stub)
    stub.ends.put(560)
    expect(page.locator("canvas")).to_be_visible(timeout=1000 * PATIENCE_S)
    expect(page.locator(".view")).to_be_in_viewport(ratio=1)
    expect(page.locator("#cancel")).to_be_in_viewport(ratio=1)
    left, top, width, height = view_box(page)
    bar = page.locator("#progress").bounding_box()
    assert bar
    assert 0 <= left < left + width <= PHONE["width"]
    assert top + height <= bar["y"], "the bar hides nothing of it"
