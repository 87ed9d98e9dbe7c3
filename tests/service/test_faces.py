"""`face_enhance` in the service, with a backend for which every picture has two faces."""

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.both_servers import SERVERS, api_of
from tests.support.mock_servers import mocking
from tests.support.service import (
    GOOD,
    SETTINGS,
    Faces,
    Resizer,
    decoded,
    only_error,
    serving,
    upscale,
)
from upscaler.api.sizes import Size
from upscaler.errors import FieldError, InvalidRequest, WeightsUnavailable
from upscaler.face_models import FINDING_FLOP, RESTORING_FLOP
from upscaler.formats import ImageEncoding
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import FIRST_GUESS_FLOPS, StageTimer, UpscaleJob, run_job
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.preview import Preview
from upscaler.settings import FaceEnhance

WITH = GOOD | {"face_enhance": True}
IGNORING = replace(SETTINGS, face_enhance=FaceEnhance.IGNORE)
COUNT, IGNORED = "X-Upscaler-Faces", "X-Upscaler-Ignored"


def test_faces_are_restored_and_counted_where_that_is_asked_for() -> None:
    """REQ-10."""
    with serving(Faces()) as client:
        enhanced, plain = upscale(client, **WITH), upscale(client, **GOOD)
        assert enhanced.headers[COUNT] == "2"
        assert not {COUNT, IGNORED} & plain.headers.keys()
        pictures = [np.array(decoded(each)) for each in (enhanced, plain)]
        assert np.array_equal(pictures[0], 255 - pictures[1])


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a folder"])
def test_faces_are_counted_in_the_response_to_an_asynchronous_inference(
    stored: bool, tmp_path: Path
) -> None:
    jobs = DiskJobStore(tmp_path / "jobs", 2**30) if stored else None
    with serving(Faces(), jobs=jobs) as client:
        started = client.post("/upscaling", json=WITH, headers={"X-OctoAI-Async": "1"}).json()
        while (poll := client.get(started["poll_url"]).json())["status"] != "completed":
            time.sleep(0.005)
        assert client.get(poll["response_url"]).headers[COUNT] == "2"


def test_a_job_in_a_folder_is_ignored_too_without_a_face_model(tmp_path: Path) -> None:
    with serving(Missing(), IGNORING, DiskJobStore(tmp_path / "jobs", 2**30)) as client:
        started = client.post("/upscaling", json=WITH, headers={"X-OctoAI-Async": "1"}).json()
        while (poll := client.get(started["poll_url"]).json())["status"] != "completed":
            time.sleep(0.005)
        assert client.get(poll["response_url"]).headers[IGNORED] == "face_enhance"


@pytest.mark.parametrize("server", SERVERS)
def test_without_a_face_model_it_is_refused_or_ignored_by_service_and_mock_alike(
    server: str,
) -> None:
    """What passes against the mock passes against the service."""
    with api_of(server, replace(SETTINGS, face_enhance=FaceEnhance.REFUSE)) as client:
        assert only_error(upscale(client, **WITH)) == {
            "loc": ["body", "face_enhance"],
            "msg": "there is no face model here: leave face_enhance out or false",
            "type": "face_enhance_unavailable",
        }
    with api_of(server, IGNORING) as client:
        ignored, plain = upscale(client, **WITH), upscale(client, **GOOD)
        assert decoded(ignored).size == (608, 512)
        assert ignored.content == plain.content
        assert ignored.headers[IGNORED] == "face_enhance"
        assert COUNT not in ignored.headers
        assert IGNORED not in plain.headers


def test_it_is_refused_by_default_without_a_face_model() -> None:
    with serving(Resizer()) as client:
        assert only_error(upscale(client, **WITH))["type"] == "face_enhance_unavailable"


def test_the_mock_has_a_face_by_default_and_changes_nothing() -> None:
    with mocking(SETTINGS) as client:
        enhanced, plain = upscale(client, **WITH), upscale(client, **GOOD)
        assert enhanced.headers[COUNT] == "1"
        assert enhanced.content == plain.content


class Missing(Faces):
    def load_faces(self) -> None:
        raise WeightsUnavailable("run `upscaler weights fetch faces`")


def test_missing_weights_are_refused_and_the_log_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(Missing()) as client:
        assert only_error(upscale(client, **WITH))["type"] == "face_enhance_unavailable"
        assert "run `upscaler weights fetch faces`" in caplog.text
        assert upscale(client, **GOOD).status_code == 200


def test_missing_weights_are_ignored_where_that_is_set() -> None:
    with serving(Missing(), IGNORING) as client:
        answer = upscale(client, **WITH)
        assert answer.headers[IGNORED] == "face_enhance"
        assert COUNT not in answer.headers
        assert answer.content == upscale(client, **GOOD).content


def test_a_picture_with_too_many_faces_is_refused_by_name() -> None:
    class Crowd(Faces):
        def enhance_faces(
            self, pixels: Pixels, size: Size, strips: Iterable[Pixels], check: Callable[[], object]
        ) -> tuple[int, Iterable[Pixels]]:
            raise InvalidRequest(FieldError(("body", "face_enhance"), "33", "too_many_faces"))

    with serving(Crowd()) as client:
        error = only_error(upscale(client, **WITH))
        assert (error["loc"], error["type"]) == (["body", "face_enhance"], "too_many_faces")


def test_a_preview_shows_the_restored_faces() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    timer, size = StageTimer(), (8, 8)
    timer.preview = Preview(size)
    job = UpscaleJob(b"", white, UpscalingModel.X4_PLUS, size, ImageEncoding.PNG, face_enhance=True)
    run_job(Faces(), job, "", timer)
    (strip,) = timer.preview.strips
    assert np.array(Image.open(io.BytesIO(strip.jpeg))).max() < 16


DRY = {"X-Upscaler-Dry-Run": "1"}


def test_a_dry_run_tells_where_faces_are_and_adds_the_time_for_them() -> None:
    with serving(Faces()) as client:
        without, found = (
            client.post("/upscaling", json=fields, headers=DRY).json() for fields in (GOOD, WITH)
        )
    assert "faces" not in without
    assert found["faces"] == [[1, 2, 30, 40], [50, 60, 70, 80]]
    expected = (FINDING_FLOP * 304 * 256 + 2 * RESTORING_FLOP) / FIRST_GUESS_FLOPS
    seconds = found["estimated_seconds"] - without["estimated_seconds"]
    assert seconds == pytest.approx(expected, abs=0.002)


def test_a_dry_run_without_a_face_model_looks_for_none() -> None:
    with serving(Resizer(), IGNORING) as client:
        assert "faces" not in client.post("/upscaling", json=WITH, headers=DRY).json()
    with serving(Missing(), IGNORING) as client:
        assert "faces" not in client.post("/upscaling", json=WITH, headers=DRY).json()
    with serving(Missing()) as client:
        assert client.post("/upscaling", json=WITH, headers=DRY).status_code == 422


def test_a_dry_run_of_the_mock_has_as_many_faces_as_it_is_told() -> None:
    with mocking(SETTINGS) as client:
        dry = client.post("/upscaling", json=WITH, headers=DRY).json()
    assert dry["faces"] == [[0, 0, 304, 256]]


def test_the_time_for_faces_is_counted_and_not_taken_for_the_models() -> None:
    """How long they take says nothing of a picture without any."""

    class Dawdling(Faces):
        def enhance_faces(
            self, pixels: Pixels, size: Size, strips: Iterable[Pixels], check: Callable[[], object]
        ) -> tuple[int, Iterable[Pixels]]:
            time.sleep(0.1)
            return super().enhance_faces(pixels, size, strips, check)

    def estimate(client: httpx.Client) -> float:
        answer = client.post("/upscaling", json=GOOD, headers={"X-Upscaler-Dry-Run": "1"})
        seconds: float = answer.json()["estimated_seconds"]
        return seconds

    with serving(Dawdling()) as client:
        upscale(client, **GOOD)
        before = estimate(client)
        slow = upscale(client, **WITH).headers["Server-Timing"]
        assert float(slow.split("infer;dur=")[1].split(",")[0]) >= 100
        assert estimate(client) == before
