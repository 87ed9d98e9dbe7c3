"""Fixtures of modules and sessions, and what a failed test says of a proxy."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.mock_server.testing.test_plugin import START, suite

DEAD: str = "http://me:secret@127.0.0.1:9"
"""A proxy at a port that nobody listens on (discard)."""


def test_fixtures_of_a_module_or_session_have_mocks_of_their_own(tmp_path: Path) -> None:
    fixtures = """
        @pytest.fixture(scope="module")
        def of_the_module(upscaling_mock_module):
            assert upscaling_mock_module.calls == []
            assert post(upscaling_mock_module.url + "/upscaling").status_code == 200
            return upscaling_mock_module

        @pytest.fixture(scope="session")
        def of_the_session(upscaling_mock_session):
            assert post(upscaling_mock_session.url + "/upscaling").status_code == 200
            return upscaling_mock_session

        @pytest.fixture(scope="session")
        def routes(upscaling_api_session):
            upscaling_api_session.route(host="127.0.0.1").pass_through()
            assert post(URL).status_code == 200
            return upscaling_api_session

        @pytest.fixture(scope="module")
        def routes_of_the_module(routes, upscaling_api_module):
            assert post(URL).status_code == 200
            return upscaling_api_module
        """
    tests = """
        @pytest.mark.parametrize("number", range(2))
        def test_servers(of_the_module, of_the_session, upscaling_mock, number):
            upscaling_mock.assert_not_called()
            of_the_module.assert_called_with(times=1)
            of_the_session.assert_called_with(times=1)
            assert len({upscaling_mock.url, of_the_module.url, of_the_session.url}) == 3

        @pytest.mark.parametrize("number", range(2))
        def test_routes(routes, routes_of_the_module, number):
            assert len(routes_of_the_module.mock.calls) == number + 1
            assert post(URL).status_code == 200
            routes.mock.assert_called_with(times=1)

        def test_routes_of_a_test_come_first(routes, routes_of_the_module, upscaling_api):
            calls = len(routes_of_the_module.mock.calls)
            assert post(URL).status_code == 200
            upscaling_api.mock.assert_called_with(times=1)
            assert len(routes_of_the_module.mock.calls) == calls
        """
    (tmp_path / "conftest.py").write_text(dedent(START) + dedent(fixtures))
    (tmp_path / "test_another.py").write_text(dedent(START) + dedent(tests))
    came = suite(tmp_path, tests)
    # In another module those of the module are new, and those of the session are the same.
    assert came.counts == {"passed": 10}, came.said


def test_a_test_that_a_proxy_keeps_from_the_mock_says_so(tmp_path: Path) -> None:
    tests = """
        def test_it_fails(upscaling_mock):
            post(upscaling_mock.url + "/upscaling")

        def test_it_is_not_called(upscaling_mock):
            upscaling_mock.assert_called_with(scale=2)

        def test_something_else(upscaling_mock):
            httpx.post(upscaling_mock.url + "/upscaling", trust_env=False)
            assert upscaling_mock is None

        def test_without_the_mock():
            httpx.get("http://elsewhere.example")

        def test_it_obeys(upscaling_mock, monkeypatch):
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert post(upscaling_mock.url + "/upscaling").status_code == 200
        """
    came = suite(tmp_path, tests, HTTP_PROXY=DEAD)
    assert came.counts == {"failed": 4, "passed": 1}, came.said
    said = "clients that obey the environment send requests to it to the proxy 127.0.0.1:9. Set "
    assert came.said.count(f"{said}NO_PROXY=127.0.0.1, or") == 2, came.said
    assert came.said.count("nothing has reached http://127.0.0.1:") == 2
    assert "to the proxy me:secret" not in came.said


@pytest.mark.slow
def test_the_name_in_the_advice_is_the_one_that_counts(tmp_path: Path) -> None:
    tests = """
        def test_it_fails(upscaling_mock):
            post(upscaling_mock.url + "/upscaling")
        """
    came = suite(tmp_path, tests, http_proxy=DEAD, NO_PROXY="127.0.0.1", no_proxy="a.example")
    assert came.counts == {"failed": 1}, came.said
    assert "Set no_proxy=a.example,127.0.0.1, or" in came.said
