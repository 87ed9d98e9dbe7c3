"""The fixtures in suites that freeze, move or replace the clocks of their process."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from tests.mock_server.testing.test_plugin import suite
from tests.support.suite_plugins import environment, needs_suite_plugins

pytestmark = needs_suite_plugins()

ASKED: Final = """
    from time import perf_counter as began  # before anything is frozen

    def test_what_takes_its_time(upscaling_mock, upscaling_api):
        upscaling_api.route(host="127.0.0.1").pass_through()
        for url, mock in ((upscaling_mock.url + "/upscaling", upscaling_mock),
                          (URL, upscaling_api.mock)):
            with clock():
                assert post(url).status_code == 200
                for fault in ("latency=0.1", "drip=20000", "latency=0.1+503", "429"):
                    answer = post(url, **{"X-Mock-Fault": fault})
                    assert answer.status_code in (200, 429, 503), answer.text
                    assert answer.headers["date"]
            assert post(url).status_code == 200
            with clock():
                job = post(url, **{"X-OctoAI-Async": "1"}).json()
            token = {"Authorization": "Bearer mock-token"}
            for _ in range(2):  # after a result's lifetime by the frozen clock, and before
                told = httpx.get(job["poll_url"], headers=token).json()
                assert told["status"] == "completed", told
                assert httpx.get(told["response_url"], headers=token).status_code == 200
                mock.assert_called_with(times=7)
"""
CLOCKS: Final = {
    "frozen": """
        from freezegun import freeze_time

        def clock():
            return freeze_time("2051-03-04 05:06:07")
    """,
    "frozen and ticking": """
        from freezegun import freeze_time

        def clock():
            return freeze_time("1999-12-31 23:59:59", auto_tick_seconds=86400)
    """,
    "with asyncio's own": """
        from freezegun import freeze_time

        def clock():
            return freeze_time("2051-03-04", real_asyncio=True)
    """,
    "moved": """
        import time_machine

        def clock():
            return time_machine.travel("2051-03-04", tick=False)
    """,
    "replaced": """
        import contextlib, threading, time, unittest.mock

        @contextlib.contextmanager
        def clock():
            "Clocks of the test alone, but for the calendar, which Prometheus's client reads."
            def now():
                if threading.current_thread() is not threading.main_thread():
                    os._exit(3)
                return 7.0
            with contextlib.ExitStack() as stack:
                for name in ("monotonic", "perf_counter", "sleep"):
                    stack.enter_context(unittest.mock.patch.object(time, name, now))
                stack.enter_context(unittest.mock.patch("time.time", lambda: -1.0))
                yield
    """,
}


@pytest.mark.first(1)
@pytest.mark.parametrize("clocks", CLOCKS.values(), ids=CLOCKS)
def test_a_run_with_other_clocks_passes_and_ends(tmp_path: Path, clocks: str) -> None:
    came = suite(
        tmp_path, dedent(clocks) + dedent(ASKED), "-pno:asyncio", "-pno:randomly", **environment()
    )
    assert came.counts == {"passed": 1}, came.said


@pytest.mark.slow
def test_a_suite_whose_tests_and_fixtures_are_all_frozen_ends(tmp_path: Path) -> None:
    """The mock is imported before, since pydantic for one cannot be while the time is frozen."""
    (tmp_path / "conftest.py").write_text(
        dedent("""
        import pytest
        from freezegun import freeze_time

        @pytest.fixture(scope="session", autouse=True)
        def frozen():
            with freeze_time("2051-03-04"):
                yield
        """)
    )
    came = suite(
        tmp_path,
        "def clock(): return open(os.devnull)\n" + dedent(ASKED),
        "-pno:asyncio",
        **environment(),
    )
    assert came.counts == {"passed": 1}, came.said


@pytest.mark.slow
def test_where_the_mock_cannot_be_imported_only_tests_with_it_fail(tmp_path: Path) -> None:
    """As where the time was frozen before any test."""
    frozen = 'from freezegun import freeze_time\nfreeze_time("2051-03-04").start()\n'
    (tmp_path / "conftest.py").write_text(frozen)
    tests = """
        def test_with_the_mock(upscaling_mock): pass
        def test_without(): pass
    """
    came = suite(tmp_path, tests, "-pno:asyncio", "-pno:randomly", **environment())
    assert came.counts == {"passed": 1, "error": 1}, came.said
    assert "INTERNALERROR" not in came.said
