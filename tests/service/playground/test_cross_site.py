"""The mock's admin API against pages of other sites in the same browser."""

import json
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright

from mock_server import MockServer
from tests.service.playground.conftest import launched
from tests.support.requirements import needs_browser

pytestmark = needs_browser

REBOUND = "attacker.example"
"""A host name that resolves to this machine, as after DNS rebinding."""
ATTACK = """async (mock) => {
    const results = [];
    const attempt = async (name, options) => {
        try {
            const answer = await fetch(`${mock}/_mock/${name}`, options);
            const text = await answer.text();
            results.push([name, options.mode, answer.type, answer.status, text]);
        } catch (error) {
            results.push([name, options.mode, "error", 0, ""]);
        }
    };
    const body = JSON.stringify({sequence: "503x*", advance: 1000, pending: 9});
    for (const mode of ["no-cors", "cors"]) {
        const headers = {"Content-Type": "text/plain"};
        for (const name of ["faults", "clock", "progress", "reset"])
            await attempt(name, {method: "POST", mode, body, headers});
        await attempt("requests", {mode});
    }
    await attempt("requests", {method: "DELETE", mode: "cors"});
    await attempt("faults", {method: "POST", mode: "cors", body,
                             headers: {"Content-Type": "application/json"}});
    navigator.sendBeacon(`${mock}/_mock/faults`, body);
    await new Promise((done) => {
        const image = new Image();
        image.onload = image.onerror = done;
        image.src = `${mock}/_mock/requests`;
    });
    // A text/plain form sends name=value: here the "=" falls within a string of the JSON.
    const frame = Object.assign(document.createElement("iframe"), {name: "target"});
    document.body.append(frame);
    const form = document.body.appendChild(document.createElement("form"));
    Object.assign(form, {method: "POST", enctype: "text/plain", target: "target",
                         action: `${mock}/_mock/faults`});
    const field = form.appendChild(document.createElement("input"));
    field.name = '{"sequence": "503x*", "on": "upscaling", "x';
    field.value = '": 1}';
    await new Promise((done) => { frame.onload = done; form.submit(); });
    let seen = "";
    try { seen = frame.contentDocument?.body.textContent ?? ""; } catch { /* cross-origin */ }
    results.push(["form", "navigate", "", 0, seen]);
    return results;
}"""


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with MockServer() as mock:
        mock.faults.set("429x2", "poll")
        httpx.get(f"{mock.url}/livez", headers={"X-Secret": "canary"})
        yield mock


def assert_unharmed(
    mock: MockServer, before: dict[str, object], results: list[list[object]]
) -> None:
    assert mock.faults.to_dict() == before
    assert mock.clock.advanced_s == 0
    assert mock.jobs.progress.pending == 0
    assert [entry for entry in mock.journal.find() if "x-secret" in entry.headers]
    assert "canary" not in json.dumps(results)


def attack(page: Page, mock: str) -> list[list[object]]:
    results: list[list[object]] = page.evaluate(ATTACK, mock)
    assert len(results) == 13
    return results


def test_another_origin_neither_controls_nor_reads_the_mock(
    browser: Browser, other_site: str, mock: MockServer
) -> None:
    before = mock.faults.to_dict()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(other_site)
        results = attack(page, mock.url)
    assert_unharmed(mock, before, results)
    assert {text for *_, text in results} == {""}


@pytest.mark.slow
def test_dns_rebinding_neither_controls_nor_reads_the_mock(
    playwright: Playwright, mock: MockServer
) -> None:
    """To the browser it is the mock's own origin, so it can read that it is refused."""
    before = mock.faults.to_dict()
    url = httpx.URL(mock.url)
    rule = f"--host-resolver-rules=MAP {REBOUND} {url.host}"
    with launched(playwright, rule) as browser:
        page = browser.new_page()
        page.goto(f"http://{REBOUND}:{url.port}/livez")
        results = attack(page, f"http://{REBOUND}:{url.port}")
    assert_unharmed(mock, before, results)
    fetched = results[:-1]
    assert {status for *_, status, _ in fetched} == {403}
    assert all("--admin-host" in str(text) for *_, text in results)


@pytest.mark.slow
def test_the_mocks_own_page_is_allowed(browser: Browser, mock: MockServer) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{mock.url}/_mock/requests")
        assert "canary" in page.content(), "a user who types the URL is not refused"
        page.goto(f"{mock.url}/livez")
        page.evaluate("fetch('/_mock/faults', {method: 'POST', body: '{\"sequence\": \"503\"}'})")
    assert mock.faults.to_dict()["api"]["upscaling"] == "503"
