"""How many faces the mock says that a picture has: by an option, a scenario, or while it runs."""

import pytest

from mock_server import Mock
from tests.support.mock_servers import mocked
from tests.support.service import GOOD

WITH = GOOD | {"face_enhance": True}
COUNT = "X-Upscaler-Faces"


def test_the_number_of_faces_is_set_and_reset_while_the_mock_runs() -> None:
    mock = Mock(tokens=["t"], faces=2)
    with mocked(mock) as api:
        assert api.post("/upscaling", json=WITH).headers[COUNT] == "2"
        assert api.post("/_mock/faces", json={"count": 0}).json() == {"count": 0}
        assert api.post("/upscaling", json=WITH).headers[COUNT] == "0"
        mock.faces.set(32)
        assert api.get("/_mock/faces").json() == {"count": 32}
        assert api.post("/upscaling", json=WITH).headers[COUNT] == "32"
        api.post("/_mock/reset")
        assert api.post("/upscaling", json=WITH).headers[COUNT] == "2"


@pytest.mark.parametrize("count", [-1, 33, 1.5, "2", None, True])
def test_what_is_no_number_of_faces_is_refused(count: object) -> None:
    with mocked(Mock(tokens=["t"])) as api:
        answer = api.post("/_mock/faces", json={"count": count})
        assert answer.status_code == 400
        assert "an integer from 0 to 32" in answer.json()["detail"]


def test_a_mock_without_the_face_model_has_no_faces() -> None:
    with mocked(Mock(tokens=["t"], face_enhance="refuse")) as api:
        assert api.get("/_mock/faces").json() == {"count": None}
        answer = api.post("/_mock/faces", json={"count": 1})
        assert (answer.status_code, "without the face model" in answer.text) == (400, True)
        assert api.post("/upscaling", json=WITH).status_code == 422


def test_a_session_has_a_number_of_its_own() -> None:
    mock = Mock(tokens=["t"], faces=3)
    mock.session("a").faces.set(5)
    with mocked(mock) as api:
        there = api.post("/upscaling", json=WITH, headers={"X-Mock-Session": "a"})
        assert (there.headers[COUNT], api.post("/upscaling", json=WITH).headers[COUNT]) == (
            "5",
            "3",
        )
