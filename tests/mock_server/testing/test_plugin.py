"""The pytest plugin, in suites like those of users, each run in its own process."""

import os
import re
import socket
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import pytest

from mock_server.testing.network_guard import ADVICE, NetworkGuard, UnmockedRequest
from mock_server.testing.plugin import _mock_options
from tests.support.consumer_suites import Outcome, outcome
from tests.support.service import png

HEAVY: Final = ("fastapi", "httpx", "numpy", "PIL", "pydantic", "starlette", "uvicorn", "respx")
"""What is slow to import."""
START: Final = f"""
    import httpx, os, pytest

    SMALL = {{"init_image": "{png(256, 256)}", "scale": 0.5}}
    URL = "https://image.octoai.run/upscaling"

    def post(url, token="mock-token", **headers):
        headers["Authorization"] = f"Bearer {{token}}"
        return httpx.post(url, json=SMALL, headers=headers)
"""


def suite(folder: Path, tests: str, *options: str, ini: str = "", **environment: str) -> Outcome:
    """Run a suite of these tests."""
    (folder / "pytest.ini").write_text(f"[pytest]\n{textwrap.dedent(ini)}", encoding="utf-8")
    text = textwrap.dedent(START) + textwrap.dedent(tests)
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    return outcome(folder, *options, **environment)


def test_a_suite_without_fixtures_does_not_import_the_mock(tmp_path: Path) -> None:
    program = f"""
import sys
import mock_server.testing.plugin
found = [name for name in {HEAVY} if name in sys.modules]
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(request):\n"
        "    assert request.config.pluginmanager.has_plugin('upscaling')\n"
        "    assert {'fastapi', 'uvicorn', 'mock_server.mock'}.isdisjoint(sys.modules)\n"
    )
    came = outcome(tmp_path)
    assert came.counts == {"passed": 1}, came.said


@pytest.mark.slow
def test_the_fixtures_are_reset_for_each_test(tmp_path: Path) -> None:
    came = suite(
        tmp_path,
        """
        @pytest.mark.parametrize("number", range(3))
        def test_a_server(upscaling_mock, number):
            assert upscaling_mock.calls == []
            assert upscaling_mock.token == "mock-token"
            answers = [post(upscaling_mock.url + "/upscaling") for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            upscaling_mock.assert_called_with(scale=0.5, times=2)
            upscaling_mock.faults.set("429x*")
            assert post(upscaling_mock.url + "/upscaling").status_code == 429

        @pytest.mark.parametrize("number", range(3))
        def test_routes(upscaling_api, number):
            upscaling_api.mock.assert_not_called()
            assert post(URL).status_code == 200
            upscaling_api.mock.assert_called_with(scale=0.5, times=1)
            upscaling_api.mock.faults.set("503x*")
            upscaling_api.get("https://elsewhere.example/").respond(200)
            assert post(URL).status_code == 503

        def test_what_a_test_adds_is_gone(upscaling_api):
            with pytest.raises(AssertionError, match="not mocked"):
                httpx.get("https://elsewhere.example/")
            assert post(URL).status_code == 200

        def test_the_server_is_the_same(upscaling_mock, request):
            assert os.getpid() and upscaling_mock is request.getfixturevalue("_upscaling_server")

        def test_both_at_once(upscaling_mock, upscaling_api):
            upscaling_api.route(host="127.0.0.1").pass_through()
            assert post(URL).status_code == 200
            upscaling_mock.assert_not_called()
            assert post(upscaling_mock.url + "/upscaling").status_code == 200
        """,
    )
    assert came.counts == {"passed": 9}, came.said


@pytest.mark.slow
def test_the_configuration_has_the_options_of_the_mock(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text('[faults]\nupscaling = "502,ok"\n')
    tests = """
        def test_tokens_and_scenario(upscaling_mock, upscaling_api):
            upscaling_api.route(host="127.0.0.1").pass_through()
            for mock, url in ((upscaling_mock, upscaling_mock.url + "/upscaling"),
                              (upscaling_api.mock, URL)):
                assert mock.tokens == ("one", "two")
                assert mock.faults.seed == 7
                assert [post(url, token="two").status_code for _ in range(2)] == [502, 200]
                assert post(url).status_code == 401
        """
    ini = """
        upscaling_tokens = one two
        upscaling_scenario = scenario.toml
        upscaling_seed = 7
        """
    came = suite(tmp_path, tests, "--strict-config", ini=ini)
    assert came.counts == {"passed": 1}, came.said


@pytest.mark.first(1)
@pytest.mark.parametrize("fixture", ["upscaling_mock", "upscaling_api"])
@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "No such file or directory"), ("speed = 9", "unknown key 'speed'")],
    ids=["missing", "wrong"],
)
def test_a_scenario_that_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, fixture: str, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / "scenario.toml").write_text(text)
    tests = f"""
        def test_something({fixture}):
            raise AssertionError("this is not reached")
        """
    came = suite(tmp_path, tests, ini="upscaling_scenario = scenario.toml")
    assert came.counts == {"error": 1}, came.said
    assert f"the mock cannot start: {tmp_path / 'scenario.toml'}: {why}" in came.said
    assert "plugin.py" not in came.said
    assert "During handling" not in came.said


def test_a_wrong_configuration_is_a_usage_error() -> None:
    told = {"upscaling_tokens": [], "upscaling_scenario": "", "upscaling_seed": "seven"}
    config: Any = SimpleNamespace(getini=told.get, inipath=None, rootpath=Path("/root"))
    with pytest.raises(pytest.UsageError, match="upscaling_seed must be an integer"):
        _mock_options(config)
    told |= {"upscaling_seed": "-1", "upscaling_scenario": "../a.toml"}
    config.inipath = Path("/project/pytest.ini")
    assert _mock_options(config) == {
        "tokens": None, "scenario": Path("/project/../a.toml"), "seed": -1
    }  # fmt: skip


@pytest.mark.slow
def test_each_worker_of_xdist_has_its_own_server(tmp_path: Path) -> None:
    came = suite(
        tmp_path,
        """
        import pathlib

        @pytest.mark.parametrize("number", range(20))
        def test_it(upscaling_mock, number, worker_id):
            assert upscaling_mock.calls == []
            assert post(upscaling_mock.url + "/upscaling").status_code == 200
            upscaling_mock.assert_called_with(scale=0.5, times=1)
            pathlib.Path(f"{worker_id}-{httpx.URL(upscaling_mock.url).port}").touch()
        """,
        "-n2",
    )
    assert came.counts == {"passed": 20}, came.said
    places = sorted(path.name.split("-") for path in tmp_path.glob("gw*"))
    assert [worker for worker, _ in places] == ["gw0", "gw1"], "one port for each"
    assert places[0][1] != places[1][1]


@pytest.mark.slow
def test_without_respx_the_fixture_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['respx'] = None\n")
    came = suite(
        tmp_path,
        """
        def test_routes(upscaling_api):
            pass

        def test_a_server(upscaling_mock):
            assert post(upscaling_mock.url + "/upscaling").status_code == 200
        """,
        "-pno:respx",
    )
    assert came.counts == {"passed": 1, "error": 1}, came.said
    assert "upscaling_api needs respx: pip install '.[mock]' in a clone" in came.said


CLIENTS: Final = {
    "httpx": "httpx.post(URL)",
    "httpx_async": "asyncio.run(httpx_async())",
    "httpx_trio": "trio.run(httpx_async)",
    "httpx2": "httpx2.post(URL)",
    "httpx2_async": "asyncio.run(httpx2_async())",
    "aiohttp": "asyncio.run(with_aiohttp())",
    "urllib": "urllib.request.urlopen(URL)",
    "http_client": "http.client.HTTPConnection('ASYNC.octoai.run.').request('GET', '/')",
    "connection": "socket.create_connection((b'api.octoai.cloud', 443))",
    "name": "socket.gethostbyname('octoai.run')",
    "names": "socket.gethostbyname_ex('octoai.run')",
    "urllib_by_a_proxy": "through_proxy(urllib.request.urlopen, PLAIN)",
    "http_client_by_a_proxy": "tunnel().request('POST', '/')",
    "in_a_thread": "in_a_thread()",
}
"""Ways to send a request to a real host, which Python tells of."""
REPLACED: Final = {
    "httpx_uvloop": "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(httpx_async())",
    "aiohttp_uvloop": "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(with_aiohttp())",
    "aiohttp_by_a_proxy": "through_proxy(lambda url: asyncio.run(with_aiohttp()), URL)",
    "httpx_by_a_proxy": "through_proxy(httpx.post, URL)",
    "httpx_by_a_proxy_of_its_own": "httpx.get(URL, proxy=PROXY)",
    "httpx_async_by_a_proxy": "through_proxy(lambda url: asyncio.run(httpx_async()), URL)",
    "httpx2_by_a_proxy": "through_proxy(httpx2.post, URL)",
    "httpx_in_plain_text_by_a_proxy": "through_proxy(httpx.post, PLAIN)",
    "httpx_by_a_proxy_that_is_dead": "httpx.get(URL, proxy='http://127.0.0.1:9')",
}
"""Those which it does not tell of, but which are guarded in a suite that uses the mock."""
CODE: Final = """
    import asyncio, http.client, socket, threading, urllib.request
    import aiohttp, httpx2, trio, uvloop

    async def httpx_async():
        async with httpx.AsyncClient() as client:
            await client.post(URL)

    async def httpx2_async():
        async with httpx2.AsyncClient() as client:
            await client.post(URL)

    async def with_aiohttp():
        async with aiohttp.ClientSession(trust_env=True) as session:
            await session.post(URL)

    def proxy():
        "A proxy that ends the process if it is asked for more than a tunnel."
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                connection, _ = listener.accept()
                asked = connection.recv(4096)
                if asked and not asked.startswith(b"CONNECT"):
                    os._exit(3)
                connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
                if connection.recv(4096):
                    os._exit(4)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    PROXY = proxy()
    PLAIN = URL.replace("https", "http")

    def through_proxy(ask, url):
        os.environ["HTTP_PROXY"] = os.environ["HTTPS_PROXY"] = PROXY
        try:
            ask(url)
        finally:
            del os.environ["HTTP_PROXY"], os.environ["HTTPS_PROXY"]

    def tunnel():
        connection = http.client.HTTPSConnection(PROXY.removeprefix("http://"))
        connection.set_tunnel("image.octoai.run")
        return connection

    def in_a_thread():
        def ask():
            try:
                httpx.post(URL)
            except BaseException:
                pass
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
"""


@pytest.mark.first(1)
@pytest.mark.parametrize("uses_the_mock", [True, False])
def test_a_request_to_a_real_host_fails_its_test(tmp_path: Path, uses_the_mock: bool) -> None:
    clients = CLIENTS | (REPLACED if uses_the_mock else {})
    swallowing = "".join(
        f"""
    def test_{name}_is_swallowed():
        try:
            {how}
        except BaseException:
            pass
        else:
            if {name!r} != "in_a_thread":
                os._exit(1)
"""
        for name, how in clients.items()
    )
    raising = """
    def test_it_is_raised():
        httpx.post(URL)

    def test_it_is_raised_as_something_else():
        try:
            httpx.post(URL)
        except AssertionError:
            pass
        raise ZeroDivisionError

    def test_it_is_skipped():
        try:
            httpx.post(URL)
        except AssertionError:
            pytest.skip("no network")
"""
    using = """
    def test_the_mock(upscaling_mock):
        assert httpx.get(upscaling_mock.url + "/livez").status_code == 200
"""
    ini = "filterwarnings =\n    ignore::ResourceWarning\n"
    code = CODE + swallowing + raising + using * uses_the_mock
    came = suite(tmp_path, code, "-rA", "-Wignore", ini=ini)
    passed = {"passed": 1} if uses_the_mock else {}
    assert came.counts == {"failed": len(clients) + 3, **passed}, came.said
    assert came.said.count(ADVICE) >= len(clients) + 3
    assert re.search(r"E +ZeroDivisionError\nE +a request to image.octoai.run", came.said)
    for host in ("image.octoai.run", "async.octoai.run", "api.octoai.cloud", "octoai.run"):
        assert f"a request to {host} was matched by no route" in came.said


def test_a_request_that_respx_refuses_fails_its_test(tmp_path: Path) -> None:
    came = suite(
        tmp_path,
        """
        import asyncio, httpx2, respx, urllib.request

        def asked(ask):
            try:
                ask()
            except Exception:
                pass

        def test_other_routes(respx_mock):
            respx_mock.get("https://elsewhere.example/").respond(200)
            asked(lambda: httpx.get("https://elsewhere.example/"))
            asked(lambda: httpx.post(URL))

        def test_other_routes_for_asynchronous_clients(respx_mock):
            async def ask():
                async with httpx.AsyncClient() as client:
                    await client.get("https://async.octoai.run/")
            respx_mock.get("https://elsewhere.example/").respond(200)
            asked(lambda: httpx.get("https://elsewhere.example/"))
            asked(lambda: asyncio.run(ask()))

        def test_routes_that_replace_the_transport_of_httpx():
            with respx.mock(using="httpx") as router:
                router.get("https://elsewhere.example/").respond(200)
                asked(lambda: httpx.get("https://elsewhere.example/"))
                asked(lambda: httpx.post(URL))

        def test_a_handler_that_fails_is_a_route():
            def handler(request):
                assert request.method == "GET"
            client = httpx.Client(transport=httpx.MockTransport(handler))
            asked(lambda: client.post(URL))

        def test_what_is_passed_through(upscaling_api):
            upscaling_api.post("/upscaling").pass_through()
            asked(lambda: httpx.post(URL))

        def test_a_client_that_respx_does_not_see(upscaling_api):
            assert post(URL).status_code == 200
            asked(lambda: urllib.request.urlopen(URL))

        def test_a_client_of_httpx2(upscaling_api):
            headers = {"Authorization": "Bearer mock-token"}
            assert httpx2.post(URL, json=SMALL, headers=headers).status_code == 200
            upscaling_api.mock.assert_called_with(times=1)
            asked(lambda: httpx2.get("https://async.octoai.run/"))

        def test_another_host_that_respx_refuses_is_not_guarded(respx_mock):
            asked(lambda: httpx.get("https://nobody.example/"))

        def test_routes_of_two_routers(respx_mock, upscaling_api):
            respx_mock.get("https://elsewhere.example/").respond(200)
            assert httpx.get("https://elsewhere.example/").status_code == 200
            assert post(URL).status_code == 200
        """,
        "-rA",
    )
    assert came.counts == {"failed": 6, "passed": 3}, came.said
    assert set(re.findall(r"PASSED test_it.py::(\w+)", came.said)) == {
        "test_a_handler_that_fails_is_a_route",
        "test_another_host_that_respx_refuses_is_not_guarded",
        "test_routes_of_two_routers",
    }


def test_fixtures_and_the_end_of_the_session_are_guarded(tmp_path: Path) -> None:
    came = suite(
        tmp_path,
        """
        def ask():
            try:
                httpx.post(URL)
            except AssertionError:
                pass

        @pytest.fixture
        def before():
            ask()

        @pytest.fixture
        def after():
            yield
            ask()

        def test_before(before): pass
        def test_after(after): pass
        def test_nothing(): pass
        """,
    )
    assert came.counts == {"errors": 2, "passed": 2}, came.said
    (tmp_path / "conftest.py").write_text(
        "import httpx\ndef pytest_runtest_logfinish():\n"
        "    try: httpx.get('https://image.octoai.run/')\n    except AssertionError: pass\n"
    )
    came = suite(tmp_path, "def test_nothing(): pass\n")
    assert came.counts == {"passed": 1}
    assert came.status == 1
    assert "ERROR: outside of all tests, a request to image.octoai.run" in came.said


@pytest.mark.slow
def test_other_hosts_are_not_guarded_and_the_guard_is_optional(tmp_path: Path) -> None:
    tests = """
        import socket, ssl

        def test_hosts_of_others(upscaling_mock):
            assert httpx.get(upscaling_mock.url + "/livez").status_code == 200
            for name in ("localhost", "127.0.0.1", "notoctoai.run.invalid", b"octoai.run.invalid"):
                try:
                    socket.getaddrinfo(name, 80)
                except OSError:
                    pass

        def test_nothing_is_replaced():
            assert not hasattr(ssl.SSLContext.wrap_bio, "__wrapped__")
            assert not hasattr(httpx.HTTPTransport.handle_request, "__wrapped__")
    """
    assert suite(tmp_path, tests).counts == {"passed": 1, "failed": 1}
    came = suite(tmp_path, tests, ini="upscaling_guard = false")
    assert came.counts == {"passed": 2}, came.said


@pytest.mark.parametrize(
    ("host", "guarded"),
    [
        ("octoai.run", True), ("image.octoai.run", True), ("A.B.OctoAI.Cloud.", True),
        (b"image.securelink.octo.ai", True), (bytearray(b"octo.ai"), True),
        ("notoctoai.run", False), ("octoai.run.example", False), ("run", False), ("", False),
        (None, False), ("127.0.0.1", False), (b"\xff.octoai", False),
    ],
)  # fmt: skip
def test_guarded_hosts_are_found_by_their_domain(host: object, guarded: bool) -> None:
    assert NetworkGuard().record(host) is guarded


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("image.octoai.run", 443))),
        ("socket.connect", (None, (b"image.octoai.run", 443, 0, 0))),
        ("http.client.connect", (None, "image.octoai.run", 443)),
        ("http.client.send", (None, b"CONNECT image.octoai.run:443 HTTP/1.0\r\n\r\n")),
        ("http.client.send", (None, b"POST http://image.octoai.run/upscaling HTTP/1.1\r\n")),
        ("urllib.Request", ("https://me:secret@IMAGE.octoai.run:443/upscaling", None, {}, "POST")),
    ],
)
def test_the_guard_finds_hosts_in_events(event: str, arguments: tuple[object, ...]) -> None:
    guard = NetworkGuard()
    with pytest.raises(UnmockedRequest, match=r"a request to image\.octoai\.run was"):
        guard.hear(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, "/run/octoai.run")),
        ("socket.connect", (None, ("127.0.0.1", 443))),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0)),
        ("http.client.send", (None, b"POST /upscaling?of=https://octoai.run/ HTTP/1.1\r\n")),
        ("http.client.send", (None, b"\xff\x00https://octoai.run/")),
        ("http.client.send", (None, open)),
        ("http.client.connect", (None, None, 0)),
        ("urllib.Request", ("http://elsewhere.example/https://octoai.run", None, {}, "GET")),
        ("urllib.Request", ("data:,octoai.run", None, {}, "GET")),
    ],
)
def test_the_guard_leaves_other_events_alone(event: str, arguments: tuple[object, ...]) -> None:
    guard = NetworkGuard()
    guard.hear(event, arguments)
    assert guard.take_report() == ""


def test_the_guard_restores_everything() -> None:
    before = socket.getaddrinfo, ssl.SSLContext.wrap_bio, dict(os.environ)
    guard = NetworkGuard()
    guard.start()
    guard.replace()
    guard.replace_imported()
    with pytest.raises(UnmockedRequest):
        socket.getaddrinfo("image.octoai.run", 443)
    with pytest.raises(UnmockedRequest):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="image.octoai.run"
        )
    assert guard.take_report().startswith("a request to image.octoai.run was matched by no route")
    assert guard.take_report() == ""
    guard.stop()
    assert (socket.getaddrinfo, ssl.SSLContext.wrap_bio, dict(os.environ)) == before
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("octoai.run.invalid", 443)
    assert guard.take_report() == ""


def test_the_guard_does_not_undo_what_others_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def others(*_args: Any) -> NoReturn:
        raise OSError

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", ssl.SSLContext.wrap_bio)  # restored at the end
    guard = NetworkGuard()
    guard.start()
    guard.replace()
    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", others)
    guard.stop()
    assert ssl.SSLContext.wrap_bio is others
