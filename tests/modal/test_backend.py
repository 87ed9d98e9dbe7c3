"""Pictures that are made in other containers: Modal's real client, and a plane on this machine."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from grpclib import GRPCError, Status
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support import modal_control_plane
from tests.support.image_files import noise, saved
from tests.support.modal_control_plane import STATUS, Ended, Plane, app_deployed, make, method
from tests.support.paths import PHOTO
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
from upscaler.api.responses import JobStatus
from upscaler.api.sizes import Size
from upscaler.errors import (
    FieldError,
    InvalidRequest,
    OutOfMemory,
    RemoteFailed,
    UnknownJob,
    Unreachable,
    UpscalerError,
    WeightsUnavailable,
)
from upscaler.formats import ImageEncoding
from upscaler.imaging.decode import read_header
from upscaler.modal.backend import ModalBackend, ModalJobStore, from_payload
from upscaler.modal.payload import ResultPayload
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import Scheduler, StageTimer, UpscaleJob, UpscaleResult
from upscaler.service.queue import Admission

DAY_S = 24 * 60 * 60
KEY = b"a key"
TASK = UpscaleJob(
    PHOTO.read_bytes(),
    read_header(PHOTO.read_bytes()).pixels(),
    UpscalingModel.X4_V3,
    (608, 512),
    ImageEncoding.JPEG,
    as_file=True,
)
LOST = GRPCError(Status.UNAVAILABLE, "nobody is there")
NO_ANSWERS = [
    Status.UNAVAILABLE,
    Status.UNAUTHENTICATED,
    Status.PERMISSION_DENIED,
    Status.RESOURCE_EXHAUSTED,
    Status.NOT_FOUND,
    Status.UNIMPLEMENTED,
]
ENDS = [
    (STATUS.GENERIC_STATUS_INTERNAL_FAILURE, "the container was lost"),
    (STATUS.GENERIC_STATUS_TIMEOUT, "the input took more than 600 s"),
    (STATUS.GENERIC_STATUS_INIT_FAILURE, "the container did not start"),
    (STATUS.GENERIC_STATUS_TERMINATED, "the container was stopped"),
]
RAISED = [
    InvalidRequest(FieldError(("body", "init_image"), "is no picture", "image_unreadable")),
    OutOfMemory("not even in bands"),
    WeightsUnavailable("/weights/it.pth is damaged"),
    RemoteFailed("ZeroDivisionError: division by zero"),
]


@pytest.fixture(scope="module")
def deployed() -> Iterator[Plane]:
    with app_deployed() as plane:
        yield plane


@pytest.fixture
def plane(deployed: Plane) -> Iterator[Plane]:
    """The same with containers that do well, where nothing was asked yet."""
    deployed.work["make"] = make
    deployed.received.clear()
    yield deployed
    deployed.failing.clear()


def made_remotely(task: UpscaleJob = TASK, timer: StageTimer | None = None) -> UpscaleResult:
    return asyncio.run(ModalBackend(method("make"), at_once=8).make(task, timer or StageTimer()))


def raising(error: Exception) -> Callable[..., Any]:
    def work(*_: object) -> None:
        raise error

    return work


# Pictures


def test_what_a_container_made_comes_back_as_it_was_made(plane: Plane) -> None:
    made = made_remotely()
    here = from_payload(make(*sent(TASK)))
    assert b"".join(made.file) == b"".join(here.file)
    assert Image.open(io.BytesIO(b"".join(made.file))).size == made.size == (608, 512)
    assert (made.encoding, made.as_file, made.model) == (ImageEncoding.JPEG, True, TASK.model)
    assert (made.weights_sha256, made.input_size) == (here.weights_sha256, (304, 256))
    assert made.seconds.keys() == here.seconds.keys()


def sent(task: UpscaleJob) -> tuple[bytes, str, Size, str, bool]:
    """In the order that `Worker.make` has them."""
    return task.source, task.model.value, task.size, task.encoding.value, task.as_file


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
    here, there = make(*sent(TASK)), worker.make(*sent(TASK))
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
            worker.upscale(7, source, fields),
        )
        assert (mine["seconds"] > 0) == (its["seconds"] > 0)
        assert {**mine, "seconds": 0} == {**its, "seconds": 0}


class Lanczos(Resizer):
    """On a device, as a worker's engines are."""

    device_name = modal_control_plane.DEVICE


# Jobs


class Scene:
    """Jobs with a clock of their own, and a place to take orders."""

    def __init__(self, capacity_bytes: int = 2**30) -> None:
        self.now_s = time.time()
        self.shop = Scheduler(
            ModalBackend(method("make"), at_once=8), Admission(2, 2**30), lambda _: None
        )
        self.jobs = self.other(capacity_bytes)

    def other(self, capacity_bytes: int = 2**30, key: bytes = KEY) -> ModalJobStore:
        """What another container of the front has."""
        return ModalJobStore(method("make"), key, capacity_bytes, clock=lambda: self.now_s)

    async def start(self, task: UpscaleJob = TASK) -> str:
        return await self.jobs.start(self.shop.schedule(task, StageTimer()))

    async def finish(self, *job_ids: str) -> None:
        """Ask, with a memory of their own, until all are completed."""
        jobs = self.other(0)
        async with asyncio.timeout(30):
            for job_id in job_ids:
                while await jobs.status(job_id) is not JobStatus.COMPLETED:
                    await asyncio.sleep(0.01)


def play(work: Callable[[Scene], Coroutine[Any, Any, None]], scene: Scene | None = None) -> None:
    asyncio.run(work(scene or Scene()))


def test_a_job_is_pending_until_completed_whichever_container_is_asked(plane: Plane) -> None:
    go_on = threading.Event()

    def waiting(*task: Any) -> ResultPayload:
        go_on.wait(30)
        return make(*task)

    plane.work["make"] = waiting

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        assert scene.shop.admission.slots == [], "it waits in Modal's line, and in no other"
        other = scene.other()
        for jobs in (scene.jobs, other):
            assert await jobs.status(job_id) is JobStatus.PENDING
            with pytest.raises(UnknownJob, match="not completed"):
                await jobs.result(job_id)
        scene.now_s += 2 * DAY_S  # it may wait in line as long as it has to
        assert await scene.jobs.status(job_id) is JobStatus.PENDING
        scene.now_s -= 2 * DAY_S
        go_on.set()
        await scene.finish(job_id)
        here = from_payload(make(*sent(TASK)))
        for jobs in (scene.jobs, other):
            assert await jobs.status(job_id) is JobStatus.COMPLETED
            made = await jobs.result(job_id)
            assert made.file == here.file
            assert (made.size, made.encoding, made.as_file) == (here.size, here.encoding, True)

    try:
        play(act)
    finally:
        go_on.set()


@pytest.mark.parametrize("error", [*RAISED, ZeroDivisionError(), Ended(*ENDS[0]), Ended(*ENDS[1])])
def test_a_job_that_failed_is_completed_and_its_result_is_the_error(
    plane: Plane, error: Exception
) -> None:
    plane.work["make"] = raising(error)
    kind = RemoteFailed if isinstance(error, Ended) else type(error)

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        for jobs in (scene.jobs, scene.jobs, scene.other()):
            assert await jobs.status(job_id) is JobStatus.COMPLETED
            with pytest.raises(kind):
                await jobs.result(job_id)

    play(act)


def test_an_id_is_good_for_whoever_has_the_key_and_for_no_one_else(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        asked = len(plane.received)
        for jobs in (scene.other(key=b"another"), scene.other(key=b"")):
            await refused(jobs, job_id)
        assert len(plane.received) == asked, "Modal is not asked"

    play(act)


async def refused(jobs: ModalJobStore, job_id: str) -> None:
    with pytest.raises(UnknownJob):
        await jobs.status(job_id)
    with pytest.raises(UnknownJob):
        await jobs.result(job_id)


def mutations(job_id: str) -> st.SearchStrategy[str]:
    """Other ids, most of them nearly the same."""
    at = st.integers(0, len(job_id))
    some = st.text(max_size=3)
    cut = st.builds(lambda i, j, text: job_id[:i] + text + job_id[j:], at, at, some)
    call, began, signature = job_id.split(".")
    parts = st.tuples(
        st.sampled_from([call, "fc-0", "fc-1", ""]) | some,
        st.sampled_from([began, str(int(began) + 1), "0", ""]) | some,
        st.sampled_from([signature, signature.swapcase(), ""]) | some,
    )
    return (cut | st.text() | parts.map(".".join)).filter(lambda text: text != job_id)


def test_ids_that_were_not_given_out_are_unknown_and_modal_is_not_asked(plane: Plane) -> None:
    scene = Scene()
    job_id = asyncio.run(scene.start())
    assert len(job_id.rpartition(".")[2]) * 6 >= 128, "bits of base64"
    asked = len(plane.received)

    @given(mutations(job_id))
    def unknown(other: str) -> None:
        asyncio.run(refused(scene.jobs, other))

    unknown()
    assert len(plane.received) == asked


def test_a_result_is_kept_for_a_day_from_when_it_is_there_and_no_longer(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        finished_s = scene.now_s + 3 * DAY_S
        plane.work["make"] = lambda *task: {**make(*task), "finished_s": finished_s}
        job_id = await scene.start()
        await scene.finish(job_id)
        scene.now_s = finished_s + DAY_S - 0.1
        for jobs in (scene.jobs, scene.other(0)):
            assert await jobs.status(job_id) is JobStatus.COMPLETED
            assert (await jobs.result(job_id)).size == TASK.size
        scene.now_s = finished_s + DAY_S
        for jobs in (scene.jobs, scene.other(0)):
            await refused(jobs, job_id)

    play(act)


def test_a_failure_is_told_for_a_day_from_when_it_was_asked_for(plane: Plane) -> None:
    plane.work["make"] = raising(OutOfMemory("far too large"))

    async def act(scene: Scene) -> None:
        began_s = int(scene.now_s)
        job_id = await scene.start()
        await scene.finish(job_id)
        scene.now_s = began_s + DAY_S - 1
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED
        scene.now_s = began_s + DAY_S
        await refused(scene.jobs, job_id)

    play(act)


def test_what_modal_no_longer_keeps_is_unknown(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        expired, gone = await scene.start(), await scene.start()
        await scene.finish(expired, gone)
        plane.forget(expired.partition(".")[0])
        del plane.calls[gone.partition(".")[0]]
        for job_id in (expired, gone):
            await refused(scene.jobs, job_id)

    play(act)


def test_what_was_just_polled_for_is_not_fetched_again(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.received.clear()
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED
        for _ in range(3):
            await scene.jobs.result(job_id)
            await scene.jobs.status(job_id)
        assert len(plane.asked("FunctionGetOutputs")) == 1
        assert len(plane.asked("BlobGet")) == 1, "it has more than 8 KiB"

    play(act)


def test_results_are_kept_up_to_so_many_bytes_the_oldest_making_way(plane: Plane) -> None:
    size = from_payload(make(*sent(TASK))).file_bytes

    async def act(scene: Scene) -> None:
        ids = [await scene.start() for _ in range(3)]
        await scene.finish(*ids)
        for job_id in ids:
            await scene.jobs.result(job_id)
        plane.received.clear()
        for job_id in ids[1:]:
            await scene.jobs.result(job_id)
        assert plane.asked("FunctionGetOutputs") == []
        await scene.jobs.result(ids[0])
        assert len(plane.asked("FunctionGetOutputs")) == 1, "it is still there, at Modal"

    play(act, Scene(capacity_bytes=2 * size))


def test_many_who_ask_at_once_have_one_copy_fetched(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.received.clear()
        made = await asyncio.gather(*(scene.jobs.result(job_id) for _ in range(8)))
        assert len({id(each.file) for each in made}) == 1
        assert len(plane.asked("BlobGet")) == 1
        assert scene.jobs.results_bytes == made[0].file_bytes

    play(act)


def test_a_result_that_has_expired_is_not_kept(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        await scene.jobs.result(job_id)
        assert scene.jobs.results_bytes > 0
        scene.now_s += DAY_S + 60
        await refused(scene.jobs, job_id)
        assert scene.jobs.results_bytes == 0

    play(act)


def test_a_result_that_is_larger_than_all_room_is_given_all_the_same(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        assert (await scene.jobs.result(job_id)).size == TASK.size

    play(act, Scene(capacity_bytes=1))


@pytest.mark.parametrize("status", NO_ANSWERS[:4], ids=lambda status: status.name)
def test_a_job_of_which_nothing_can_be_known_is_not_completed(plane: Plane, status: Status) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.failing["FunctionGetOutputs"] = GRPCError(status, "not now")
        with pytest.raises(Unreachable):
            await scene.jobs.status(job_id)
        with pytest.raises(Unreachable):
            await scene.jobs.result(job_id)
        plane.failing.clear()
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED

    play(act)


def test_a_job_that_cannot_be_started_leaves_the_line(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        plane.failing["FunctionMap"] = LOST
        with pytest.raises(Unreachable):
            await scene.start()
        assert scene.shop.admission.slots == []
        assert scene.shop.admission.held_bytes == 0

    play(act)


# The service on top of it


@pytest.fixture
def api(plane: Plane) -> Iterator[httpx.Client]:
    """A client, with a valid token, of the service as a front's container has it."""
    jobs = ModalJobStore(method("make"), TOKENS[0].encode(), SETTINGS.results_memory)
    app = create_app(ModalBackend(method("make"), at_once=8), SETTINGS, jobs)
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    with running(app) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


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


def completed(api: httpx.Client, promise: httpx.Response) -> httpx.Response:
    """What comes of an asynchronous request."""
    assert promise.status_code == 200, promise.text
    give_up_s = time.monotonic() + 30
    while (poll := api.get(promise.json()["poll_url"])).json()["status"] != "completed":
        assert poll.json()["status"] == "pending"
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    return api.get(poll.json()["response_url"])


def test_an_asynchronous_request_ends_with_its_image_or_its_error(
    plane: Plane, api: httpx.Client
) -> None:
    promise = api.post("/upscaling", json=GOOD, headers={ASYNC_HEADER: "1"})
    assert decoded(completed(api, promise)).size == (608, 512)
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
