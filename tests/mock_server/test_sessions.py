"""X-Mock-Session: several tests at once use one mock, and do not notice each other."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import httpx
import pytest

from mock_server import Mock, Transport
from mock_server.scenario import Scenario
from mock_server.sessions import MAX_SESSIONS, Sessions
from tests.support.mock_servers import SMALL, mock_child, mocked, recorded
from upscaler.api.limits import RESULT_LIFETIME_S

ASYNC = {"X-OctoAI-Async": "1"}


def in_session(api: httpx.Client, name: str) -> httpx.Client:
    """A client of the same mock whose requests are in a session."""
    headers = {**api.headers, "X-Mock-Session": name}
    return httpx.Client(base_url=api.base_url, headers=headers, timeout=60)


def statuses(api: httpx.Client, times: int) -> list[int]:
    return [api.post("/upscaling", json=SMALL).status_code for _ in range(times)]


def test_faults_and_journal_are_those_of_the_session_alone(api: httpx.Client, mock: Mock) -> None:
    with in_session(api, "a") as first, in_session(api, "b") as second:
        assert first.post("/_mock/faults", json={"sequence": "429x2"}).status_code == 200
        mock.session("b").faults.set("503")
        assert statuses(api, 1) == [200]
        assert statuses(first, 3) == [429, 429, 200]
        assert statuses(second, 2) == [503, 200]
        counts = [len(recorded(each, route="upscaling")) for each in (api, first, second)]
        assert counts == [1, 3, 2]
        mock.session("a").assert_called_with(status=429, times=2)
        mock.assert_called_with(times=1)
        first.post("/_mock/reset")
        assert [len(recorded(each)) for each in (api, first, second)] == [1, 0, 2]
    mock.reset()
    assert not mock.session("b").calls, "the reset of the object is for all"


def test_the_clock_and_the_inferences_are_those_of_the_session(api: httpx.Client) -> None:
    with in_session(api, "a") as session:
        urls = [
            client.post("/upscaling", json=SMALL, headers=ASYNC).json()["poll_url"]
            for client in (api, session)
        ]
        assert [api.get(url).status_code for url in urls] == [200, 404]
        assert [session.get(url).status_code for url in urls] == [404, 200]
        session.post("/_mock/clock", json={"advance": RESULT_LIFETIME_S + 1})
        assert session.get(urls[1]).status_code == 404
        assert api.get(urls[0]).status_code == 200
        times = [client.get("/_mock/clock").json()["advanced"] for client in (api, session)]
        assert times == [0, RESULT_LIFETIME_S + 1]


def test_a_session_is_as_the_mock_was_at_its_start() -> None:
    mock = Mock(tokens=["one"], seed=7, rate_limit=2, face_enhance="ignore", fetch="made")
    mock.faults.set("500x*")
    with mocked(mock) as api, in_session(api, "a") as session:
        assert statuses(session, 3) == [200, 200, 429]
        assert statuses(api, 1) == [500]
        assert mock.session("a").faults.seed == 7
        assert mock.session("a").settings.face_enhance == "ignore"
        preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        allowed = session.options("/upscaling", headers=preflight)
        assert allowed.headers["Access-Control-Allow-Origin"] == "*"
        with in_session(api, "b") as other:
            assert statuses(other, 1) == [200], "whose rate limit is another one"


def test_a_session_has_the_scenario_and_the_options_of_the_mock() -> None:
    scenario = Scenario.parse({"faults": {"upscaling": "503"}})
    mock = Mock(scenario=scenario, cors=False, fetch="real", admin_hosts=["mock.example"])
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    nowhere = {"init_image_url": "http://nothing.invalid/a.png", "scale": 1}
    with mocked(mock) as api, in_session(api, "a") as session:
        assert statuses(session, 2) == [503, 200]
        assert session.post("/upscaling", json=nowhere).status_code == 422, "it is not made up"
        refused = session.options("/upscaling", headers=preflight)
        assert "Access-Control-Allow-Origin" not in refused.headers
        asked = session.get("/_mock/clock", headers={"Host": "mock.example"})
        assert asked.status_code == 200
    with mocked(Mock(admin=False)) as api, in_session(api, "a") as session:
        assert session.get("/_mock/clock").status_code == 404


def test_threads_that_ask_for_a_session_at_once_get_the_same() -> None:
    both = Barrier(2)

    def create() -> Mock:
        with suppress(BrokenBarrierError):  # as it should be: nobody else is here
            both.wait(0.5)
        return Mock(sessions=False)

    sessions = Sessions(create)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(sessions.get, ("a", "a"))
    assert first is second


def test_a_mock_that_goes_on_in_a_fork_has_new_sessions_with_the_old_faults() -> None:
    mock = Mock()
    session = mock.session("a")
    session.faults.set("503")
    before = session.app
    mock.renew()
    assert mock.session("a") is session
    assert session.app is not before
    with mocked(mock) as api, in_session(api, "a") as client:
        assert statuses(client, 2) == [503, 200]


def test_parallel_tests_do_not_notice_each_other(api: httpx.Client) -> None:
    def test(number: int) -> list[int]:
        with in_session(api, f"test-{number}") as session:
            session.post("/_mock/faults", json={"sequence": f"503x{number + 1},ok"})
            found = statuses(session, number + 2)
            assert len(recorded(session, route="upscaling")) == number + 2
            return found

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(test, range(4))] == [[503] * (n + 1) + [200] for n in range(4)]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 101, "\xff"])
def test_what_is_no_name_is_a_400_and_changes_nothing(
    api: httpx.Client, mock: Mock, name: str
) -> None:
    headers = {b"X-Mock-Session": name.encode("latin-1")}
    answer = api.post("/upscaling", json=SMALL, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("X-Mock-Session must be a name")
    assert answer.headers["X-User-Request-ID"]
    mock.assert_not_called()
    with pytest.raises(ValueError, match="must be a name"):
        mock.session(name)


def test_the_session_that_was_not_used_for_the_longest_time_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_SESSIONS >= 64
    monkeypatch.setattr("mock_server.sessions.MAX_SESSIONS", 2)
    mock = Mock()
    first, second = mock.session("a"), mock.session("b")
    assert mock.session("a") is first
    mock.session("c")
    assert mock.session("a") is first
    assert mock.session("b") is not second


def test_a_session_has_no_sessions_and_a_mock_may_have_none() -> None:
    with pytest.raises(ValueError, match="no sessions"):
        Mock().session("a").session("b")
    mock = Mock(sessions=False)
    with mocked(mock) as api, in_session(api, "a") as session:
        assert statuses(session, 1) == [200]
    mock.assert_called_with(times=1)


def test_sessions_are_there_without_a_socket() -> None:
    mock = Mock()
    headers = {"Authorization": "Bearer mock-token", "X-Mock-Session": "a"}
    with httpx.Client(transport=Transport(mock), headers=headers) as client:
        client.post("https://image.octoai.run/upscaling", json=SMALL)
    mock.session("a").assert_called_with(times=1)
    mock.assert_not_called()


def test_sessions_do_not_keep_a_mock_alive() -> None:
    mock = Mock()
    mock.session("a")
    app, gone = mock.app, weakref.ref(mock)
    del mock
    gc.collect()
    assert gone() is None
    assert app


def test_the_command_has_sessions(tmp_path: Path) -> None:
    with mock_child(tmp_path, "--token", "one") as child:
        headers = {"Authorization": "Bearer one", "X-Mock-Session": "a"}
        with httpx.Client(base_url=child.url, headers=headers, timeout=60) as session:
            session.post("/_mock/faults", json={"sequence": "503"})
            assert statuses(session, 2) == [503, 200]
            del session.headers["X-Mock-Session"]
            assert recorded(session) == []
