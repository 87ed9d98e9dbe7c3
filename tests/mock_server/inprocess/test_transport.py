"""The mock without a socket: clients of httpx see what they see on a socket."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, NoReturn

import anyio
import httpx
import pytest
import respx
import trio

from mock_server import Mock, MockServer, PollScript, Router, Transport, routes
from tests.support.service import GOOD, decoded, png

URL: Final = "https://image.octoai.run"
HEADERS: Final = {"Authorization": "Bearer mock-token"}
SMALL: Final = {"init_image": png(256, 256), "scale": 0.5}
CHANGING: Final = ("date", "server-timing", "x-user-request-id")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router, in a process in which nothing may connect to a socket."""

    def no_socket(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise AssertionError("a socket is connected")

    monkeypatch.setattr("socket.create_connection", no_socket)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", no_socket)
    with routes() as router:
        yield router


def asked(
    method: str = "POST", path: str = "/upscaling", *, fault: str = "ok", **options: Any
) -> httpx.Response:
    headers = HEADERS | {"X-Mock-Fault": fault} | options.pop("headers", {})
    if method == "POST":
        options.setdefault("json", SMALL)
    return httpx.request(method, URL + path, headers=headers, **options)


def in_asyncio(main: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await main()

    asyncio.run(run())


LOOPS = [in_asyncio, trio.run]


def test_no_socket_is_made_in_a_suite_that_allows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pytest-socket does, and many a fixture."""

    def no_socket(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise AssertionError("a socket is made")

    with monkeypatch.context() as patched, routes():
        patched.setattr("socket.socket", no_socket)
        assert asked().status_code == 200
        assert asked(fault="latency=0.01").status_code == 200


def test_a_loop_that_cannot_run_is_an_error_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where gevent has patched threads: then all share one thread, which has a loop."""

    def run(_runner: asyncio.Runner, _main: object) -> NoReturn:
        raise RuntimeError("cannot be called from a running event loop")

    monkeypatch.setattr("asyncio.Runner.run", run)
    with routes(), pytest.raises(RuntimeError, match="in a process of its own"):
        asked(timeout=5)


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/upscaling", {"json": SMALL}),
        ("POST", "/upscaling", {"json": SMALL, "headers": {"Accept": "image/png"}}),
        ("POST", "/upscaling", {"json": {"scale": -1}}),
        ("POST", "/upscaling", {"json": SMALL, "headers": {"Authorization": "Bearer wrong"}}),
        ("POST", "/upscaling", {"content": b"\xff" * 2**20}),
        ("POST", "/upscaling", {"json": SMALL, "headers": {"X-Mock-Fault": "429:retry-after=7"}}),
        ("POST", "/upscaling", {"json": SMALL, "headers": {"X-Mock-Fault": "malformed"}}),
        ("GET", "/upscaling?a=%20b", {}),
        ("HEAD", "/livez", {}),
        ("GET", "/healthcheck", {}),
        ("GET", "/n%C3%B6?x=1", {}),
        ("GET", "/", {}),
        ("GET", "/_mock/faults", {}),
    ],
)
def test_responses_equal_those_of_a_server(
    request_: tuple[str, str, dict[str, Any]], served: httpx.Client
) -> None:
    method, path, options = request_
    headers = HEADERS | options.get("headers", {})
    over_socket = served.request(method, path, **options | {"headers": headers})
    with routes():
        answer = httpx.request(method, URL + path, **options | {"headers": headers})
    assert answer.status_code == over_socket.status_code
    assert {name for name, _ in answer.headers.items()} == {*over_socket.headers}
    for name, value in over_socket.headers.items():
        if name not in CHANGING:
            assert answer.headers[name] == value
    assert answer.content == over_socket.content


def test_poll_and_response_urls_are_answered(api: Router) -> None:
    api.mock.jobs.progress = PollScript(pending=1, running=1)
    job = asked(headers={"X-OctoAI-Async": "1"}).json()
    assert job["poll_url"].startswith(f"{URL}/v1/requests/")
    told = [httpx.get(job["poll_url"], headers=HEADERS).json() for _ in range(3)]
    assert [each["status"] for each in told] == ["pending", "running", "completed"]
    result = httpx.get(told[-1]["response_url"], headers=HEADERS)
    assert decoded(result).size == (128, 128)
    api.mock.assert_called_with(scale=0.5, headers={"X-OctoAI-Async": "1"}, times=1)


@pytest.mark.parametrize("run", LOOPS)
def test_asynchronous_clients_work_in_any_loop(api: Router, run: Callable[..., None]) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(base_url=URL, headers=HEADERS) as client:
            found: list[httpx.Response] = []

            async def ask() -> None:
                found.append(await client.post("/upscaling", json=SMALL))

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(ask)
            assert [decoded(answer).size for answer in found] == [(128, 128)] * 8
            slow = {"X-Mock-Fault": "latency=0.3"}
            ticks = 0
            async with anyio.create_task_group() as group:

                async def tick() -> None:
                    nonlocal ticks
                    while True:
                        await anyio.sleep(0.01)
                        ticks += 1

                group.start_soon(tick)
                assert (await client.post("/upscaling", json=SMALL, headers=slow)).is_success
                group.cancel_scope.cancel()
            assert ticks > 5, "the loop went on meanwhile"

    run(main)
    assert len(api.mock.calls) == 9


def test_a_synchronous_client_works_in_a_loop(api: Router) -> None:
    async def main() -> None:
        assert asked().status_code == 200
        async with httpx.AsyncClient() as client:
            await client.post(f"{URL}/upscaling", json=SMALL, headers=HEADERS)
            assert asked().status_code == 200

    asyncio.run(main())


FAULTS: Final[list[tuple[str, type[Exception]]]] = [
    ("timeout", httpx.ReadTimeout),
    ("latency=60", httpx.ReadTimeout),
    ("latency=60+drip=1", httpx.ReadTimeout),
    ("reset", httpx.ReadError),
    ("truncated", httpx.RemoteProtocolError),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_faults_raise_what_they_raise_on_a_socket(
    served: httpx.Client, fault: str, error: type[Exception]
) -> None:
    began_s = time.monotonic()
    with routes() as api, pytest.raises(error) as caught:
        asked(fault=fault, timeout=20)
    assert time.monotonic() < began_s + 15, "nobody waits for what would not come in time"
    assert isinstance(caught.value, httpx.TransportError)
    assert caught.value.request.url == f"{URL}/upscaling"
    timeout_s = 0.3 if error is httpx.ReadTimeout else 30
    with pytest.raises(error) as over_socket:
        served.post("/upscaling", json=SMALL, headers={"X-Mock-Fault": fault}, timeout=timeout_s)
    if error is not httpx.ReadTimeout:
        assert str(caught.value) == str(over_socket.value)
    assert api.mock.calls[-1].fault == fault


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_faults_raise_the_same_in_asynchronous_clients(
    api: Router, run: Callable[..., None], fault: str, error: type[Exception]
) -> None:
    async def main() -> None:
        headers = HEADERS | {"X-Mock-Fault": fault}
        async with httpx.AsyncClient(timeout=20) as client:
            with pytest.raises(error):
                await client.post(f"{URL}/upscaling", json=SMALL, headers=headers)

    run(main)


def test_a_client_without_timeout_does_not_hang(api: Router) -> None:
    with pytest.raises(httpx.ReadTimeout, match="would never respond"):
        asked(fault="timeout", timeout=None)


def test_a_client_waits_within_its_timeout(api: Router) -> None:
    began_s = time.monotonic()
    assert asked(fault="latency=0.3").status_code == 200
    assert 0.3 <= time.monotonic() - began_s < 20


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
def test_bodies_are_streamed(using: str) -> None:
    with routes(using=using):
        size = int(asked().headers["Content-Length"])
        headers = HEADERS | {"X-Mock-Fault": f"drip={size}"}
        with httpx.stream("POST", f"{URL}/upscaling", json=SMALL, headers=headers) as answer:
            parts = [(time.monotonic(), part) for part in answer.iter_raw()]
    assert len(parts) > 5
    assert sum(len(part) for _, part in parts) == size
    assert parts[-1][0] - parts[0][0] > 0.2, "of a second in which they come"


def test_the_bytes_before_a_reset_are_received(api: Router) -> None:
    got: list[bytes] = []
    headers = HEADERS | {"X-Mock-Fault": "reset"}
    with (
        httpx.stream("POST", f"{URL}/upscaling", json=SMALL, headers=headers) as answer,
        pytest.raises(httpx.ReadError),
    ):
        got.extend(answer.iter_raw())
    assert len(b"".join(got)) == int(answer.headers["Content-Length"]) // 2


@pytest.mark.parametrize("run", LOOPS)
def test_a_cancelled_request_disconnects(
    api: Router, run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "upscaler.service.middleware")

    async def main() -> None:
        headers = HEADERS | {"X-Mock-Fault": "latency=60"}
        async with httpx.AsyncClient(timeout=100) as client:
            with anyio.move_on_after(0.2) as scope:
                await client.post(f"{URL}/upscaling", json=SMALL, headers=headers)
            assert scope.cancelled_caught

    began_s = time.monotonic()
    run(main)
    while not any(vars(record).get("status") == 499 for record in caplog.records):
        assert time.monotonic() - began_s < 30, "the app does not know that its client is gone"
        time.sleep(0.01)
    assert asked().status_code == 200


def test_closing_a_response_early_disconnects(api: Router) -> None:
    headers = HEADERS | {"X-Mock-Fault": "drip=1000"}
    with httpx.stream("POST", f"{URL}/upscaling", json=SMALL, headers=headers) as answer:
        next(answer.iter_raw())
    assert asked().status_code == 200


def test_added_routes_come_first_and_end_with_the_block() -> None:
    with routes() as api:
        assert asked().status_code == 200
        broken = api.post("/upscaling").respond(418)
        api.get("https://pictures.example/a.png").respond(content=b"picture")
        assert asked().status_code == 418
        assert broken.call_count == 1
        assert httpx.get("https://pictures.example/a.png").content == b"picture"
        assert asked("GET", "/livez").status_code == 200
        assert len(api.mock.calls) == 1
    with api:
        assert asked().status_code == 200
        api.route().respond(204)
        assert asked().status_code == 204


def test_other_routers_of_respx_work_beside_it() -> None:
    with respx.mock(assert_all_called=False) as others, routes() as api:
        others.get("https://elsewhere.example/").respond(text="there")
        assert httpx.get("https://elsewhere.example/").text == "there"
        assert asked().status_code == 200
        assert len(api.mock.calls) == 1


def test_only_the_base_url_is_mocked(api: Router) -> None:
    with pytest.raises(AssertionError, match="not mocked"):
        httpx.get("https://elsewhere.example/livez")
    with routes(base_url="http://127.0.0.1:8000") as other:
        assert httpx.get("http://127.0.0.1:8000/livez").status_code == 200
        other.mock.assert_not_called()
    with pytest.raises(ValueError, match="the base URL must be a scheme and a host"):
        routes(base_url="https://image.octoai.run/v1")


def test_a_router_is_a_reusable_decorator() -> None:
    router = routes(Mock(tokens=["secret"]))

    @router
    def ask() -> int:
        return asked(headers={"Authorization": "Bearer secret"}).status_code

    @router
    async def ask_async() -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{URL}/livez")).status_code

    assert (ask(), ask()) == (200, 200)
    assert asyncio.run(ask_async()) == 200
    assert len(router.mock.calls) == 2


def test_one_mock_has_one_loop_and_one_queue() -> None:
    """The queue belongs to the loop that it was first used in, so a mock has only one loop."""
    mock = Mock()
    answers: list[int] = []
    for _ in range(2):
        with routes(mock):
            asking = [
                threading.Thread(target=lambda: answers.append(asked(json=GOOD).status_code))
                for _ in range(6)
            ]
            for each in asking:
                each.start()
            for each in asking:
                each.join()
    assert answers == [200] * 12


def test_a_transport_needs_no_respx() -> None:
    transport = Transport(Mock(tokens=["secret"]))
    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(transport=transport, base_url=URL, headers=headers) as client:
        assert decoded(client.post("/upscaling", json=SMALL)).size == (128, 128)


def test_the_app_does_not_see_the_clients_context() -> None:
    variable = ContextVar("variable", default="the app's")
    found: list[str] = []
    mock = Mock()
    inner = mock.app

    async def app(*request: Any) -> None:
        found.append(variable.get())
        await inner(*request)

    mock.app = app  # type: ignore[assignment]
    variable.set("the client's")
    with httpx.Client(transport=Transport(mock), base_url=URL) as client:
        client.get("/livez")
    assert found == ["the app's"]


def test_the_loop_ends_with_its_mock() -> None:
    before = {*threading.enumerate()}
    mock = Mock()
    with httpx.Client(transport=Transport(mock), base_url=URL) as client:
        client.get("/livez")
    (thread,) = (
        thread for thread in {*threading.enumerate()} - before if thread.name == "upscaling-mock"
    )
    del mock, client
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_mock_server_is_a_mock_with_a_url() -> None:
    with MockServer(tokens=["secret"]) as mock:
        headers = {"Authorization": f"Bearer {mock.token}"}
        answer = httpx.post(f"{mock.url}/upscaling", json=SMALL, headers=headers)
        assert decoded(answer).size == (128, 128)
        mock.assert_called_with(scale=0.5, status=200)
        with pytest.raises(httpx.ReadError):
            httpx.post(f"{mock.url}/upscaling", json=SMALL,
                       headers=headers | {"X-Mock-Fault": "reset"})  # fmt: skip
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{mock.url}/livez")
