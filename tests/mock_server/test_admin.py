"""The routes below /_mock."""

from typing import Any

import httpx
import pytest

from mock_server import Mock
from tests.support.mock_servers import SMALL, mocked, recorded
from tests.support.service import upscale


def test_the_routes_control_the_mock(api: httpx.Client, mock: Mock) -> None:
    empty: dict[str, Any] = {"api": {}, "scenario": {}, "random": {}}
    assert api.get("/_mock/faults").json() == empty
    told = api.post("/_mock/faults", json={"sequence": "429x2", "random": {"503": 0.5}}).json()
    assert told == {"api": {"upscaling": "429x2"}, "scenario": {}, "random": {"503": 0.5}}
    assert upscale(api, **SMALL).status_code == 429
    assert api.get("/_mock/faults").json()["api"] == {"upscaling": "429"}
    told = api.post("/_mock/faults", json={"sequence": "ok", "on": "poll"}).json()
    assert told["api"] == {"upscaling": "429", "poll": "ok"}
    assert api.delete("/_mock/faults").json() == empty
    assert upscale(api, **SMALL).status_code == 200
    assert api.delete("/_mock/requests").json() == {"requests": [], "dropped": 0}
    assert recorded(api) == []
    assert mock.calls == []


def test_reset_restores_the_initial_state(api: httpx.Client, mock: Mock) -> None:
    api.post("/_mock/faults", json={"sequence": "429x*", "random": {"503": 1}})
    api.post("/_mock/clock", json={"advance": 1000})
    api.post("/_mock/progress", json={"pending": 3})
    assert upscale(api, **SMALL).status_code == 429
    assert api.post("/_mock/reset").json() == {"status": "ok"}
    assert recorded(api) == []
    assert api.get("/_mock/clock").json()["advanced"] == 0
    assert api.get("/_mock/progress").json() == {"pending": 0, "running": 0, "fails": None}
    assert upscale(api, **SMALL).status_code == 200
    assert recorded(api)[0]["number"] == 1


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("faults", "{", "the body is not valid JSON"),
        ("faults", "[]", "send a JSON object"),
        ("faults", "{}", 'send {"sequence": "429x2,ok"}'),
        ("faults", '{"sequence": 429}', "sequence and on must be strings"),
        ("faults", '{"sequence": "teapot"}', "unknown fault 'teapot'"),
        ("faults", '{"sequence": "ok", "on": "tea"}', "unknown route 'tea'"),
        ("faults", '{"random": [1]}', "random must be an object of probabilities"),
        ("faults", '{"random": {"429": 2}}', "must be a number from 0 to 1"),
        ("faults", '{"colour": 1}', "unknown key 'colour'; use one of sequence, on, random"),
        ("clock", "{}", 'send {"advance": 86400}'),
        ("clock", '{"advance": -1}', "a clock can only be advanced"),
        ("clock", '{"advance": true}', 'send {"advance": 86400}'),
        ("progress", '{"pending": -1}', "pending must be a number of polls"),
        ("progress", '{"fails": 200}', "fails must be one of 500, 503"),
        ("progress", '{"colour": 1}', "unknown key 'colour'; use one of pending, running"),
        ("faults", " " * (2**20 + 1), "a body may have at most"),
    ],
)
def test_an_invalid_body_is_a_400_and_changes_nothing(
    api: httpx.Client, path: str, body: str, words: str
) -> None:
    before = api.get("/_mock/faults").json()
    answer = api.post(f"/_mock/{path}", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert api.get("/_mock/faults").json() == before, "and nothing of it is done"


def test_other_paths_and_methods_are_json_errors(api: httpx.Client) -> None:
    for method, path, status in (("GET", "nothing", 404), ("GET", "reset", 405), ("PUT", "", 404)):
        answer = api.request(method, f"/_mock/{path}")
        assert answer.status_code == status
        assert isinstance(answer.json()["detail"], str)
        assert answer.headers["X-User-Request-ID"]


def test_the_routes_are_not_in_openapi_and_can_be_removed(api: httpx.Client) -> None:
    assert "_mock" not in api.get("/openapi.json").text
    with mocked(Mock(admin=False)) as closed:
        for method, path in (("GET", "requests"), ("POST", "reset"), ("POST", "faults")):
            answer = closed.request(method, f"/_mock/{path}")
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
