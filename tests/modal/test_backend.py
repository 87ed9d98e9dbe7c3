"""Pictures that are made in other containers: Modal's real client, and a plane on this machine."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from grpclib import GRPCError, Status
from PIL import Image

from tests.support import modal_control_plane
from tests.support.image_files import noise, saved
from tests.support.modal_calls import ENDS, LOST, NO_ANSWERS, RAISED, TASK, held, raising, sent
from tests.support.modal_control_plane import (
    STATUS,
    Ended,
    Plane,
    app_deployed,
    make,
    method,
)
from tests.support.raw_http import PATIENCE_S
from tests.support.service import (
    GOOD,
    SETTINGS,
    TOKENS,
    Resizer,
    decoded,
    running,
    serving,
    upscale,
)
from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER
from upscaler.errors import (
    InvalidSetting,
    OutOfMemory,
    RemoteFailed,
    Unreachable,
    UpscalerError,
)
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import most_bytes
from upscaler.modal.backend import RESULT_COPIES, ModalBackend, from_payload
from upscaler.modal.jobs import ModalJobStore
from upscaler.modal.payload import ResultPayload
from upscaler.modal.serving import api as front
from upscaler.modal.states import States
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import Scheduler, StageTimer, UpscaleJob, UpscaleResult
from upscaler.service.queue import Admission


def made_remotely(task: UpscaleJob = TASK, timer: StageTimer | None = None) -> UpscaleResult:
    return asyncio.run(ModalBackend(method("make"), at_once=8).make(task, timer or StageTimer()))


# Pictures


def test_what_a_container_made_comes_back_as_it_was_made(plane: Plane) -> None:
    made = made_remotely()
    here = from_payload(make(*sent(TASK)))
    assert b"".join(made.file) == b"".join(here.file)
    assert Image.open(io.BytesIO(b"".join(made.file))).size == made.size == (608, 512)
    assert (made.encoding, made.as_file, made.model) == (ImageEncoding.JPEG, True, TASK.model)
    assert (made.weights_sha256, made.input_size) == (here.weights_sha256, (304, 256))
    assert made.seconds.keys() == here.seconds.keys()


def test_what_is_not_work_counts_as_waiting_in_line(plane: Plane) -> None:
    def slowly(*task: Any) -> ResultPayload:
        time.sleep(0.6)
        stages = {"decode": 0.05, "load": 0.0, "infer": 0.25, "encode": 0.1}
        return {**make(*task), "seconds": stages}

    plane.work["make"] = slowly
    timer = StageTimer()
    timer.seconds |= {"fetch": 1.0, "decode": 0.5, "queue": 2.0}
    began_s = time.monotonic()
    made = made_remotely(timer=timer)
    took_s = time.monotonic() - began_s
    assert made.seconds["fetch"] == 1.0
    assert made.seconds["decode"] == pytest.approx(0.55)
    assert made.seconds["infer"] == pytest.approx(0.25)
    assert 2.2 <= made.seconds["queue"] <= 2.0 + took_s - 0.4, "what was spent before counts, too"
    assert made.seconds == timer.seconds


def test_no_wait_is_negative(plane: Plane) -> None:
    plane.work["make"] = lambda *task: {**make(*task), "seconds": {"infer": 1000.0}}
    assert made_remotely().seconds["queue"] == 0


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_is_raised_there_on_purpose_is_raised_here(plane: Plane, error: UpscalerError) -> None:
    plane.work["make"] = raising(error)
    with pytest.raises(type(error)) as caught:
        made_remotely()
    assert caught.value.args == error.args
    assert caught.value.detail == error.detail


def test_a_fault_that_nobody_foresaw_is_not_taken_for_anything_else(plane: Plane) -> None:
    plane.work["make"] = raising(ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError):
        made_remotely()


@pytest.mark.parametrize("failures", [1, 2])
def test_what_modal_itself_lost_is_made_once_more(plane: Plane, failures: int) -> None:
    ends = [Ended(*ENDS[0])] * failures

    def lost(*task: Any) -> ResultPayload:
        if ends:
            raise ends.pop()
        return make(*task)

    plane.work["make"] = lost
    if failures == 1:
        assert made_remotely().size == TASK.size
    else:
        with pytest.raises(RemoteFailed):
            made_remotely()
    assert len(plane.asked("FunctionMap")) == 2


def test_what_the_store_of_blobs_loses_on_the_way_is_not_the_containers_fault(plane: Plane) -> None:
    plane.lost_blobs = True
    with pytest.raises(Unreachable):
        made_remotely()


@pytest.mark.parametrize("begun", [True, False])
def test_a_call_that_nobody_waits_for_is_cancelled(plane: Plane, *, begun: bool) -> None:
    working, go_on = held(plane)

    async def act() -> None:
        backend = ModalBackend(method("make"), at_once=8)
        asking = asyncio.create_task(backend.make(TASK, StageTimer()))
        await (asyncio.to_thread(working.wait, PATIENCE_S) if begun else asyncio.sleep(0))
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    try:
        asyncio.run(act())
    finally:
        go_on.set()
    (asked,) = plane.asked("FunctionCallCancel")
    assert [asked.function_call_id] == list(plane.calls)[-1:]


def test_a_second_cancellation_does_not_end_that_of_the_call() -> None:
    """Modal's client sends one a second after the first, if that takes so long."""
    told: list[str] = []

    async def act() -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def cancel() -> None:
            told.append("cancelled")

        async def spawn(*_: Any) -> Any:
            asked.set()
            await answered.wait()
            return SimpleNamespace(cancel=SimpleNamespace(aio=cancel))

        slow: Any = SimpleNamespace(spawn=SimpleNamespace(aio=spawn))
        asking = asyncio.create_task(ModalBackend(slow, at_once=1).make(TASK, StageTimer()))
        await asked.wait()
        for _ in range(2):
            asking.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert asking.cancelled()
        answered.set()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(act())
    assert told == ["cancelled"]


def test_a_result_is_not_made_before_there_is_memory_for_it(plane: Plane) -> None:
    most = RESULT_COPIES * most_bytes(TASK.size, 3)
    admission = Admission(9, 2**30, at_once=8, results_bytes=2 * most - 1)
    shop = Scheduler(ModalBackend(method("make"), at_once=8), admission, lambda _: None)

    def asked() -> int:
        return len(plane.asked("FunctionMap"))

    async def act() -> None:
        async def one() -> UpscaleResult:
            with admission.reservation() as memory, shop.schedule(TASK, StageTimer()) as job:
                return await job.run(memory=memory)

        with admission.reservation() as memory, shop.schedule(TASK, StageTimer()) as job:
            await job.run(memory=memory)
            second = asyncio.create_task(one())
            while not admission.first_in_line.locked() and asked() == 1:
                await asyncio.sleep(0)
            assert asked() == 1
        assert (await second).size == TASK.size
        assert asked() == 2
        assert admission.held_results_bytes == 0

    asyncio.run(act())


@pytest.mark.parametrize(("status", "why"), ENDS)
def test_the_end_of_a_container_is_told_with_its_reason(
    plane: Plane, status: Any, why: str
) -> None:
    plane.work["make"] = raising(Ended(status, why))
    with pytest.raises(RemoteFailed, match=why):
        made_remotely()


def test_an_error_that_cannot_be_read_here_is_a_failure_there(plane: Plane) -> None:
    """As torch's are, if a container fails before `Worker` puts it into words."""
    pickled = b"cnot_installed_here\nFault\n."
    plane.work["make"] = raising(Ended(STATUS.GENERIC_STATUS_FAILURE, "Fault()", pickled))
    with pytest.raises(RemoteFailed, match="not_installed_here"):
        made_remotely()


@pytest.mark.parametrize("status", NO_ANSWERS, ids=lambda status: status.name)
def test_where_modal_refuses_nothing_is_known(plane: Plane, status: Status) -> None:
    plane.failing["FunctionMap"] = GRPCError(status, "not now")
    with pytest.raises(Unreachable, match="not now"):
        made_remotely()


@pytest.mark.slow
def test_where_nobody_answers_nothing_is_known() -> None:
    with app_deployed() as own:
        known = method("make")
        known.hydrate()
        own.end()
        with pytest.raises(Unreachable):
            asyncio.run(ModalBackend(known, at_once=8).make(TASK, StageTimer()))


@pytest.mark.parametrize("model", UpscalingModel)
def test_a_dry_run_is_told_how_a_small_card_would_cut_it(model: UpscalingModel) -> None:
    remote = ModalBackend(None, at_once=8)  # type: ignore[arg-type]  # nothing is called
    assert remote.bands(model, (256, 256), 3) == 1
    assert 1 <= remote.bands(model, (2048, 2048), 4) < 20


@pytest.mark.torch
def test_a_real_worker_delivers_the_same_as_the_containers_here() -> None:
    pytest.importorskip("torch")
    from upscaler.modal.worker import Worker

    worker = Worker()
    worker._engines = Lanczos()  # type: ignore[assignment]
    here, there = make(*sent(TASK)), asyncio.run(worker.make(*sent(TASK)))
    assert here.keys() == there.keys()
    assert here["seconds"].keys() == there["seconds"].keys()
    for each in (here, there):
        assert abs(each.pop("finished_s") - time.time()) < 60  # type: ignore[misc]
        each.pop("seconds")  # type: ignore[misc]
    assert here == there
    for source, fields in (
        (TASK.source, {"scale": 2.0, "model": "real-esrgan-x4-plus"}),
        (TASK.source, {"scale": 1000}),
        (b"no picture", {"scale": 2}),
        (TASK.source, {}),
    ):
        mine, its = (
            modal_control_plane.upscale(7, source, fields),
            asyncio.run(worker.upscale(7, source, fields)),
        )
        assert (mine["seconds"] > 0) == (its["seconds"] > 0)
        assert {**mine, "seconds": 0} == {**its, "seconds": 0}


class Lanczos(Resizer):
    """On a device, as a worker's engines are."""

    device_name = modal_control_plane.DEVICE


# The service on top of it


@pytest.fixture
def api(plane: Plane) -> Iterator[httpx.Client]:
    """A client, with a valid token, of the service as a front's container has it."""
    jobs = ModalJobStore(method("make"), States(), TOKENS[0].encode())
    app = create_app(ModalBackend(method("make"), at_once=8), SETTINGS, jobs)
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    with running(app) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def test_a_secret_without_a_token_is_told_in_the_log_of_the_container(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALER_TOKEN", " , ")
    with pytest.raises(InvalidSetting, match=r"^UPSCALER_TOKEN: .* --force"):
        front(ModalBackend(method("make"), at_once=8), method("make"), States())


def test_the_service_answers_as_if_it_did_the_work_itself(api: httpx.Client) -> None:
    answer = upscale(api, **GOOD)
    with serving(Resizer()) as local:
        expected = upscale(local, **GOOD)
    assert answer.status_code == 200
    assert answer.content == expected.content
    assert answer.headers.keys() == expected.headers.keys()
    for name in ("X-Upscaler-Model", "X-Upscaler-Weights-SHA256", "X-Upscaler-Output-Size"):
        assert answer.headers[name] == expected.headers[name]
    assert "queue;dur=" in answer.headers["Server-Timing"]


def test_a_file_is_given_to_whoever_accepts_one(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={"Accept": "image/jpeg"})
    assert answer.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (608, 512))


def test_no_container_is_asked_for_what_needs_none(plane: Plane, api: httpx.Client) -> None:
    dry = api.post("/upscaling", json=GOOD, headers={DRY_RUN_HEADER: "1"})
    assert dry.status_code == 200
    assert (dry.json()["output_width"], dry.json()["tiles"]) == (608, 1)
    assert upscale(api, **GOOD, model="no such model").status_code == 422
    assert upscale(api, init_image="AAAA", scale=2).status_code == 422
    assert api.post("/upscaling", json=GOOD, headers={"Authorization": "?"}).status_code == 401
    assert api.get("/healthcheck").status_code == 200
    assert plane.received == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RAISED[0], 422),
        (RAISED[1], 503),
        (RAISED[3], 503),
        (Ended(*ENDS[1]), 503),
        (ZeroDivisionError(), 500),
    ],
)
def test_what_fails_there_is_answered_as_if_it_had_failed_here(
    plane: Plane, api: httpx.Client, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    plane.work["make"] = raising(error)
    answer = upscale(api, **GOOD)
    assert answer.status_code == status
    if status >= 500:
        assert "600 s" not in answer.text, "the reason is for the log"
        assert any(record.levelname == "ERROR" for record in caplog.records)
    plane.work["make"] = make
    assert upscale(api, **GOOD).status_code == 200


def test_where_modal_does_not_answer_the_service_says_that_it_cannot(
    plane: Plane, api: httpx.Client
) -> None:
    plane.failing["FunctionMap"] = LOST
    assert upscale(api, **GOOD).status_code == 503
    assert api.post("/upscaling", json=GOOD, headers={ASYNC_HEADER: "1"}).status_code == 503
    plane.failing.clear()
    assert upscale(api, **GOOD).status_code == 200


def test_a_client_that_hangs_up_has_its_call_cancelled(plane: Plane, api: httpx.Client) -> None:
    go_on = threading.Event()
    plane.work["make"] = lambda *_: go_on.wait(PATIENCE_S)
    try:
        with pytest.raises(httpx.ReadTimeout):
            api.post("/upscaling", json=GOOD, timeout=0.5)
        give_up_s = time.monotonic() + PATIENCE_S
        while len(plane.asked("FunctionCallCancel")) < len(plane.asked("FunctionMap")):
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
    finally:
        go_on.set()


def completed(api: httpx.Client, promise: httpx.Response) -> httpx.Response:
    """What comes of an asynchronous request."""
    assert promise.status_code == 200, promise.text
    give_up_s = time.monotonic() + 30
    while (poll := api.get(promise.json()["poll_url"])).json()["status"] != "completed":
        assert poll.json()["status"] in {"pending", "running"}
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    return api.get(poll.json()["response_url"])


def test_an_asynchronous_request_ends_with_its_image_or_its_error(
    plane: Plane, api: httpx.Client
) -> None:
    promise = api.post("/upscaling", json=GOOD, headers={ASYNC_HEADER: "1"})
    assert decoded(completed(api, promise)).size == (608, 512)
    megapixels = f"{608 * 512 / 1e6}"
    counted = f'upscaler_output_megapixels_total{{model="{UpscalingModel.X4_PLUS}"}} {megapixels}'
    assert counted in api.get("/metrics").text, "by the front that has handed it out"
    plane.work["make"] = raising(OutOfMemory("far too large"))
    promise = api.post("/upscaling", json=GOOD, headers={ASYNC_HEADER: "1"})
    assert completed(api, promise).status_code == 503
    unknown = promise.json()["poll_url"][:-1]
    assert api.get(unknown).status_code == 404


def test_pictures_of_some_megabytes_go_back_and_forth(plane: Plane, api: httpx.Client) -> None:
    source = saved(noise(900, 900, 3), "PNG")
    assert len(source) > 2 * 2**20
    answer = api.post(
        "/upscaling",
        json={"init_image": base64.b64encode(source).decode(), "output_image_width": 1200},
        headers={"Accept": "image/png"},
    )
    assert len(answer.content) > 2 * 2**20
    with Image.open(io.BytesIO(answer.content)) as image:
        pixels = np.array(image)
    expected = next(
        iter(Resizer().upscale(noise(900, 900, 3), TASK.model, (1200, 1200), lambda *_: None))
    )
    assert (pixels == expected).all()
    assert len(plane.asked("BlobCreate")) == len(plane.asked("BlobGet")) == 1
