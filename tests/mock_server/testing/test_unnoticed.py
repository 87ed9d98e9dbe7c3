"""A suite that does not use the mock, in an environment in which the package is installed."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest

from tests.support.consumer_suites import outcome

WITHOUT: Final = ("-pno:upscaling", "-pno:upscaling-contract")
OURS: Final = ("mock_server", "contract_tests", "upscaler")
PROXIES: Final[dict[str, dict[str, str]]] = {
    "none": {},
    "upper case": {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,127.0.0.1"},
    "lower case": {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost,127.0.0.1"},
}
SUITE: Final = """
    import aiohttp, asyncio, gc, http.client, http.server, inspect, json, logging, os, signal
    import selectors, socket, ssl, sys, threading, time, urllib.request, uvloop, warnings
    import httpx, httpx2, pytest, requests, respx

    MODULES = (aiohttp, asyncio, http.client, httpx, httpx2, logging, os, requests, selectors,
               signal, socket, ssl, threading, time, urllib.request, uvloop, warnings)

    def known(thing, depth=2):
        "What a function or class consists of, by where it was defined and how often wrapped."
        code = getattr(thing, "__code__", None)
        told = [str(getattr(thing, "__module__", "")), str(getattr(thing, "__qualname__", "")),
                code.co_filename if code else "", hasattr(thing, "__wrapped__")]
        if inspect.isclass(thing) and depth:
            told.append({name: known(value, depth - 1) for name, value in vars(thing).items()})
        return told

    @pytest.fixture
    def told(pytestconfig):
        told = {}
        yield told
        with open(os.environ["TOLD"], "w") as file:
            json.dump(told, file)

    def test_what_a_process_is_like(told):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told["code"] = {
                module.__name__: {name: known(value) for name, value in vars(module).items()}
                for module in MODULES
            }
        told["environment"] = dict(os.environ)
        told["signals"] = [str(signal.getsignal(each)) for each in signal.valid_signals()]
        told["threads"] = [thread.name for thread in threading.enumerate()]
        told["files"] = sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else []
        told["logging"] = [str(logging.root.handlers), logging.root.level,
                           sorted(logging.root.manager.loggerDict)]
        told["filters"] = [str(each) for each in warnings.filters]
        told["interpreter"] = [
            [type(finder).__name__ for finder in sys.meta_path], len(sys.path_hooks), sys.path,
            repr(sys.excepthook), sys.getrecursionlimit(), sys.getswitchinterval(),
            gc.get_threshold(), gc.get_freeze_count(), socket.getdefaulttimeout(),
            repr(sys.gettrace()), repr(sys.getprofile()),
            type(asyncio.get_event_loop_policy()).__name__,
        ]
        told["modules"] = sorted(sys.modules)

    def test_a_server_of_this_machine_is_reached_by_all_clients():
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(204)
                self.end_headers()
            def log_message(self, *_):
                pass

        async def with_aiohttp(url):
            async with aiohttp.ClientSession(trust_env=True) as session:
                async with session.get(url) as answer:
                    return answer.status

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for host in ("127.0.0.1", "localhost"):
                url = f"http://{host}:{server.server_port}/"
                assert httpx.get(url).status_code == 204
                assert httpx2.get(url).status_code == 204
                assert requests.get(url).status_code == 204
                assert urllib.request.urlopen(url).status == 204
                assert asyncio.run(with_aiohttp(url)) == 204
            server.shutdown()
"""
COST: Final = """
import importlib, time
from _pytest import config
from _pytest.config.argparsing import Parser

for name in config.default_plugins:
    importlib.import_module(f"_pytest.{name}")
parser = Parser(_ispytest=True)
began_s = time.process_time()
for name in ("mock_server.testing.plugin", "contract_tests.plugin"):
    importlib.import_module(name).pytest_addoption(parser)
print(time.process_time() - began_s)
"""


@pytest.mark.dev  # requests
@pytest.mark.first(1)
@pytest.mark.parametrize("proxies", PROXIES.values(), ids=PROXIES)
def test_a_process_is_the_same_with_and_without_the_plugins(
    tmp_path: Path, proxies: dict[str, str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(dedent(SUITE))
    told: list[dict[str, Any]] = []
    for options in ((), WITHOUT):
        path = tmp_path / "told.json"
        came = outcome(tmp_path, *options, TOLD=str(path), **proxies)
        assert came.counts == {"passed": 2}, came.said
        told.append(json.loads(path.read_text()))
    with_plugins, without = told
    more = set(with_plugins.pop("modules")) - set(without.pop("modules"))
    assert {name for name in more if not name.startswith(OURS)} <= {"decimal", "_decimal"}
    assert "mock_server.testing.plugin" in more, "else nothing was compared"
    assert with_plugins.keys() == without.keys()
    for name, value in without.items():
        assert with_plugins[name] == value, name


def test_both_plugins_take_less_than_20_ms_to_import() -> None:
    took_s = [
        float(subprocess.check_output([sys.executable, "-c", COST], text=True)) for _ in range(5)
    ]
    # Of the processor's time, and the least of it: the machine may have more to do.
    assert min(took_s) < 0.020
