"""Programs in Node that ask OctoAI's real hosts, with the script that sends them to a mock."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from mock_server import MockServer
from mock_server.serving.cli import main
from tests.support.raw_http import PATIENCE_S

if not shutil.which("node") and not os.environ.get("REQUIRE_CORPORA"):
    pytest.skip("Node is not here", allow_module_level=True)

ASKING: Final = """
    import http from "node:http";
    import * as https from "node:https";
    import dns from "node:dns";

    const told = {};
    const text = (ask) => new Promise((done, fail) => {
        ask((answer) => {
            let body = "";
            answer.on("data", (part) => { body += part; });
            answer.on("end", () => done([answer.statusCode, JSON.parse(body)]));
        }).on("error", fail).end();
    });
    const ways = {
        fetch: async () => {
            const answer = await fetch("https://image.octoai.run/livez?a=%20");
            return [answer.status, await answer.json()];
        },
        post: async () => {
            const request = new Request("https://image.octoai.run./upscaling", {
                method: "POST", body: "{}", headers: {Authorization: "Bearer mock-token"},
            });
            const answer = await fetch(request);
            return [answer.status, (await answer.json()).detail[0].type];
        },
        request: () => text((done) => https.request("https://image.octoai.run/livez", done)),
        options: () => text((done) => http.request(
            {host: "API.octoai.cloud:443", path: "/livez", agent: new http.Agent()}, done)),
        get: () => text((done) => https.get(new URL("https://octo.ai/livez"), {timeout: 9}, done)),
        elsewhere: () => text((done) => http.get(`${process.env.ELSEWHERE}/livez`, done)),
        lookup: () => new Promise((done, fail) => dns.lookup("octoai.run", {all: true},
            (error, found) => error ? fail(error) : done(found))),
    };
    for (const [name, way] of Object.entries(ways)) {
        try {
            told[name] = await way();
        } catch (error) {
            told[name] = String(error.cause ?? error);
        }
    }
    console.log(JSON.stringify(told));
"""
ALIVE: Final = [200, {"status": "ok"}]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer() as server:
        yield server


def told(capsys: pytest.CaptureFixture[str], **environment: str) -> dict[str, Any]:
    """What came of each way to ask."""
    assert main(["--node-preload"]) == 0
    preload = capsys.readouterr().out.strip()
    ours = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    done = subprocess.run(
        ["node", "--require", preload, "--input-type=module", "--eval", ASKING],
        env=ours | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_requests_to_the_real_hosts_reach_the_mock(
    mock: MockServer, capsys: pytest.CaptureFixture[str]
) -> None:
    mock.reset()
    assert told(capsys, UPSCALING_MOCK_URL=mock.url, ELSEWHERE=mock.url) == {
        "fetch": ALIVE,
        "post": [422, "content_type"],
        "request": ALIVE,
        "options": ALIVE,
        "get": ALIVE,
        "elsewhere": ALIVE,
        "lookup": "Error: a request to octoai.run was kept from leaving this machine: "
        "give the client the URL that upscaler-mock prints",
    }
    assert [entry.path for entry in mock.journal.find()] == ["/livez", "/upscaling"] + [
        "/livez"
    ] * 4


@pytest.mark.parametrize("url", ["", "127.0.0.1:1", "localhost:1", "//127.0.0.1:1", "ftp://a.b"])
def test_without_the_url_of_a_mock_they_are_refused(
    mock: MockServer, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    mock.reset()
    found = told(capsys, UPSCALING_MOCK_URL=url, ELSEWHERE=mock.url)
    assert found.pop("elsewhere") == ALIVE
    assert len(mock.journal.find()) == 1
    del found["lookup"]
    for said in found.values():
        assert "was kept from leaving this machine: UPSCALING_MOCK_URL must be the URL" in said
        assert url in said
