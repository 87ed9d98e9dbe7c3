"""OctoAI's own clients, unchanged, with `upscaler-mock` on a socket.

Each runs in its own process (tests/support/clients/drive.py and drive.mjs). What it sent, how often
and when, is in the mock's journal. docs/MOCK.md has a table of what is seen here.
"""

import base64
import importlib.util
import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from PIL import Image

from mock_server.serving.cli import NODE_PRELOAD
from tests.support.clients.packages import NODE, OLDER, needs_clients
from tests.support.mock_servers import mock_child
from tests.support.paths import ROOT
from tests.support.service import PHOTO_B64
from tests.support.stub_servers import stub_server
from upscaler.errors import OutOfMemory
from upscaler.service.responses import BEAT, _unfinished

if importlib.util.find_spec("octoai") is None:
    pytest.skip("octoai is in the other environment", allow_module_level=True)

pytestmark = [pytest.mark.dev, needs_clients()]

TOKEN: Final = "mock-token"
DRIVE: Final = ROOT / "tests" / "support" / "clients" / "drive.mjs"
INPUTS: Final = {"init_image": PHOTO_B64, "scale": 2.5}
SIZE: Final = (760, 640)


@dataclass(frozen=True)
class Client:
    """One of them, and what it is like.

    It asks `tries` times in all while it is told one of `again`, and waits in between for at least
    `waits_s`, or for no time to speak of. What it raises is `refused` or, from 500, `failed`.
    """

    version: str
    refused: str
    failed: str
    tries: int
    waits_s: tuple[float, ...]
    again: tuple[int, ...]
    names_request: bool
    follows: bool


CLIENTS: Final = {
    # As the README has it, with a carrier that is not told to follow.
    "octoai": Client(
        version="1.11.0",
        refused="HTTPStatusError",
        failed="HTTPStatusError",
        tries=5,
        waits_s=(1, 2, 4, 8),
        again=(429, 503),
        names_request=False,
        follows=False,
    ),
    "octoai-sdk": Client(
        version="0.10.1",
        refused="OctoAIClientError",
        failed="OctoAIServerError",
        tries=5,
        waits_s=(1, 2, 4, 8),
        again=(429, 503),
        names_request=True,
        follows=False,
    ),
    "@octoai/sdk": Client(
        version="1.11.0",
        refused="OctoAIError",
        failed="OctoAIError",
        tries=3,
        waits_s=(0, 0),
        again=(408, 429, 503),
        names_request=False,
        follows=True,
    ),
    "@octoai/client": Client(
        version="0.5.2",
        refused="OctoAIClientError",
        failed="OctoAIServerError",
        tries=1,
        waits_s=(),
        again=(),
        names_request=True,
        follows=True,
    ),
}
OF_PYTHON: Final = ("octoai", "octoai-sdk")


class Driver:
    """A process with one of the clients."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self.client = CLIENTS[name]
        self._process = process
        assert self.told() == self.client.version

    def ask(self, call: str, url: str = "", **more: object) -> dict[str, Any]:
        """What comes of a call: `answer`, or `error` with all that it `says`."""
        self.send(call, url, **more)
        answer: dict[str, Any] = self.told()
        return answer

    def send(self, call: str, url: str = "", **more: object) -> None:
        asked = {"call": call, "url": url, "token": TOKEN, "inputs": INPUTS, "carrier": {}, **more}
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(asked)}\n")
        self._process.stdin.flush()

    def told(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def is_silent_for(self, seconds: float) -> bool:
        assert self._process.stdout
        return not select.select([self._process.stdout], [], [], seconds)[0]


@contextmanager
def driven(name: str) -> Iterator[Driver]:
    environment = {name: value for name, value in os.environ.items() if name != "OCTOAI_TOKEN"}
    command = ["node", str(DRIVE), name, str(NODE)]
    if name in OF_PYTHON:
        command = [sys.executable, "-m", "tests.support.clients.drive", name]
    if name == "octoai-sdk":
        environment["PYTHONPATH"] = str(OLDER)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment, text=True
    ) as process:
        try:
            yield Driver(name, process)
        finally:
            process.kill()


@contextmanager
def mocked(folder: Path) -> Iterator[httpx.Client]:
    with mock_child(folder) as child, httpx.Client(base_url=child.url) as api:
        yield api


@pytest.fixture(scope="module", autouse=True)
def hopeless(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[httpx.Client, dict[str, Driver]]]:
    """A mock that always says 429, and the clients, which have asked it and go on asking.

    They need 15 to 19 seconds until they give up, so this begins before all else.
    """
    with ExitStack() as stack:
        api = stack.enter_context(mocked(tmp_path_factory.mktemp("hopeless")))
        happens(api, "429x*")
        drivers = {name: stack.enter_context(driven(name)) for name in CLIENTS}
        for name, driver in drivers.items():
            driver.send("infer", f"{api.base_url}/upscaling?by={name}")
        yield api, drivers


@pytest.fixture(scope="module", params=CLIENTS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driven(request.param) as driver:
        yield driver


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with mocked(tmp_path_factory.mktemp("mock")) as api:
        yield api


@pytest.fixture
def api(running: httpx.Client) -> httpx.Client:
    running.post("/_mock/reset").raise_for_status()
    return running


@pytest.fixture
def url(api: httpx.Client) -> str:
    return f"{api.base_url}/upscaling"


def happens(api: httpx.Client, sequence: str, on: str = "upscaling") -> None:
    api.post("/_mock/faults", json={"sequence": sequence, "on": on}).raise_for_status()


def progresses(api: httpx.Client, **progress: int) -> None:
    api.post("/_mock/progress", json=progress).raise_for_status()


def journal(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/_mock/requests").json()["requests"]
    return found


def statuses(api: httpx.Client) -> list[int]:
    return [request["status"] for request in journal(api)]


def check_picture(told: dict[str, Any]) -> None:
    assert told.keys() == {"answer"}, told
    assert told["answer"]["removed_for_safety"] is False
    image = Image.open(io.BytesIO(base64.b64decode(told["answer"]["image_b64"], validate=True)))
    image.load()
    assert (image.format, image.size) == ("PNG", SIZE)


def check_error(told: dict[str, Any], client: Client, status: int) -> None:
    assert told.get("error") == (client.failed if status >= 500 else client.refused), told
    assert str(status) in told["says"]


def check_waits(client: Client, requests: list[dict[str, Any]], limit_s: float) -> None:
    """It waited for its own delays, and not for Retry-After."""
    waited_s = [later["time"] - sooner["time"] for sooner, later in pairwise(requests)]
    assert len(waited_s) <= len(client.waits_s)
    for seconds, at_least_s in zip(waited_s, client.waits_s, strict=False):
        assert at_least_s <= seconds < at_least_s + limit_s


@pytest.mark.first(2)
def test_it_gets_an_image_and_sends_its_token(api: httpx.Client, url: str, driver: Driver) -> None:
    check_picture(driver.ask("infer", url))
    (request,) = journal(api)
    assert request["headers"]["authorization"] == "Bearer ***"
    assert request["headers"]["content-type"] == "application/json"
    fields = request["fields"]
    assert fields["scale"] == 2.5
    assert (fields["init_image"]["width"], fields["init_image"]["height"]) == (304, 256)


def test_what_fails_after_its_answer_has_begun_is_an_error(driver: Driver) -> None:
    """Even if a proxy ends it as if all were there: see `KeepAliveJSONResponse`."""
    body = BEAT + _unfinished(OutOfMemory("far too large"))
    with stub_server(lambda _: (200, {"Content-Type": "application/json"}, body)) as server:
        told = driver.ask("infer", f"{server.url}/upscaling")
    assert "error" in told


def test_it_gets_an_image_asynchronously(api: httpx.Client, url: str, driver: Driver) -> None:
    progresses(api, pending=1, running=1)
    future = driver.ask("infer_async", url)["answer"]
    assert future.keys() == {"response_id", "poll_url"}
    assert driver.ask("is_future_ready", future=future) == {"answer": False}
    early = driver.ask("get_future_result", future=future)
    if driver.name == "@octoai/client":
        check_error(early, driver.client, 425)  # which it makes up itself
    else:
        assert early == {"answer": None}
    assert driver.ask("is_future_ready", future=future) == {"answer": True}
    check_picture(driver.ask("get_future_result", future=future))
    requests = journal(api)
    routes = [request["route"] for request in requests]
    assert routes == ["upscaling", "poll", "poll", "poll", "poll", "result"]
    assert requests[0]["headers"]["x-octoai-async"] == "1"
    assert {request["headers"]["authorization"] for request in requests} == {"Bearer ***"}


def test_a_failed_asynchronous_inference_is_an_error(
    api: httpx.Client, url: str, driver: Driver
) -> None:
    """Only the newer one for JavaScript asks for the result again, since it does so with all."""
    progresses(api, fails=503)
    future = driver.ask("infer_async", url)["answer"]
    check_error(driver.ask("get_future_result", future=future), driver.client, 503)
    tries = driver.client.tries if driver.name == "@octoai/sdk" else 1
    assert statuses(api) == [200, 200, *[503] * tries]


def test_a_health_check_waits_until_it_passes(api: httpx.Client, driver: Driver) -> None:
    happens(api, "503,ok", on="healthcheck")
    assert driver.ask("health_check", f"{api.base_url}/healthcheck") == {"answer": 200}
    assert statuses(api) == [503, 200]


def test_a_422_is_not_retried_and_names_its_field(
    api: httpx.Client, url: str, driver: Driver
) -> None:
    for call in ("infer", "infer_async"):
        told = driver.ask(call, url, inputs={**INPUTS, "scale": -1})
        check_error(told, driver.client, 422)
        assert "scale" in told["says"]
        assert "greater_than" in told["says"]
        request_id = journal(api)[-1]["request_id"]
        assert (request_id in told["says"]) == driver.client.names_request
    assert statuses(api) == [422, 422]


def test_a_401_is_not_retried(api: httpx.Client, url: str, driver: Driver) -> None:
    check_error(driver.ask("infer", url, token="wrong-token"), driver.client, 401)
    assert statuses(api) == [401]


@pytest.mark.slow
def test_429_is_retried_without_retry_after(api: httpx.Client, url: str, driver: Driver) -> None:
    happens(api, "429:retry-after=9,429:retry-after=9,ok")
    told = driver.ask("infer", url)
    if 429 not in driver.client.again:
        check_error(told, driver.client, 429)
        assert statuses(api) == [429]
        return
    check_picture(told)
    assert statuses(api) == [429, 429, 200]
    check_waits(
        driver.client, journal(api), limit_s=6
    )  # 1 second by chance, the rest by the machine


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 503])
def test_transient_errors_are_retried(
    api: httpx.Client, url: str, driver: Driver, status: int
) -> None:
    happens(api, f"{status},ok")
    told = driver.ask("infer", url)
    if status in driver.client.again:
        check_picture(told)
        assert statuses(api) == [status, 200]
    else:
        check_error(told, driver.client, status)
        assert statuses(api) == [status]


def test_modals_redirect_is_followed_or_an_error(
    api: httpx.Client, url: str, driver: Driver
) -> None:
    happens(api, "303")
    told = driver.ask("infer", url)
    if driver.client.follows:
        check_picture(told)
        assert [request["method"] for request in journal(api)] == ["POST", "GET"]
    else:
        check_error(told, driver.client, 303)
        assert statuses(api) == [303]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["malformed", "reset", "truncated"])
def test_a_broken_response_is_not_retried(
    api: httpx.Client, url: str, driver: Driver, fault: str
) -> None:
    """But one: node-fetch 2.7.0 does not see that a body of known length ends too early, and the
    time-out of the client on top of it is over with the headers. So it waits for ever."""
    happens(api, fault)
    if (driver.name, fault) == ("@octoai/sdk", "truncated"):
        with driven(driver.name) as stuck:
            stuck.send("infer", url)
            assert stuck.is_silent_for(1.5)
    else:
        assert "error" in driver.ask("infer", url)
    assert statuses(api) == [200]


def test_octoai_can_be_given_a_client_that_follows(api: httpx.Client, url: str) -> None:
    happens(api, "303")
    with driven("octoai") as driver:
        check_picture(driver.ask("infer", url, carrier={"follow_redirects": True}))
    assert statuses(api) == [303, 200]


def test_octoai_without_a_client_follows_and_sends_no_token(api: httpx.Client, url: str) -> None:
    happens(api, "303")
    with driven("octoai") as driver:
        check_error(driver.ask("infer", url, carrier=None), driver.client, 401)
    assert statuses(api) == [303, 401]
    assert all("authorization" not in request["headers"] for request in journal(api))


def test_the_methods_of_the_javascript_sdk_use_its_fetcher(api: httpx.Client, url: str) -> None:
    """It has none that upscales or takes a URL. Where one of its own asks can be set, and what is
    behind a # is not sent, so that it comes to where it never wanted to go."""
    inputs = {"prompt": "a cat"}
    with driven("@octoai/sdk") as driver:
        told = driver.ask("generate_sdxl", str(api.base_url), inputs=inputs)
        check_error(told, driver.client, 404)
        happens(api, "429x2")
        told = driver.ask("generate_sdxl", f"{url}#", inputs=inputs)
        assert told["error"] == "UnprocessableEntityError"
        assert "extra_forbidden" in told["says"]
        told = driver.ask("generate_sdxl", f"{url}#", inputs=inputs, token="wrong-token")
        check_error(told, driver.client, 401)
    requests = journal(api)
    assert [request["status"] for request in requests] == [404, 429, 429, 422, 401]
    assert requests[0]["path"] == "/generate/sdxl"
    assert {request["headers"]["x-fern-sdk-version"] for request in requests} == {"1.11.0"}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["@octoai/sdk", "@octoai/client"])
def test_clients_for_node_reach_the_mock_by_the_real_url(
    api: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", f"--require {NODE_PRELOAD}")
    monkeypatch.setenv("UPSCALING_MOCK_URL", str(api.base_url))
    url = "https://image.octoai.run/upscaling"
    with driven(name) as driver:
        check_picture(driver.ask("infer", url))
        future = driver.ask("infer_async", url)["answer"]
        check_picture(driver.ask("get_future_result", future=future))
    monkeypatch.delenv("UPSCALING_MOCK_URL")
    with driven(name) as driver:
        assert "UPSCALING_MOCK_URL must be the URL" in str(driver.ask("infer", url))
    assert statuses(api) == [200] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENTS)
def test_it_times_out(hopeless: tuple[httpx.Client, dict[str, Driver]], name: str) -> None:
    api, drivers = hopeless
    driver = drivers[name]
    check_error(driver.told(), driver.client, 429)
    requests = [request for request in journal(api) if request["query"] == f"by={name}"]
    assert len(requests) == driver.client.tries
    check_waits(driver.client, requests, limit_s=6)
