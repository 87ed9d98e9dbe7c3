"""Asynchronous jobs as calls of Modal's: its real client, and a plane on this machine."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from grpclib import GRPCError, Status
from hypothesis import given
from hypothesis import strategies as st

from tests.support.modal_calls import ENDS, LOST, NO_ANSWERS, RAISED, TASK, held, raising, sent
from tests.support.modal_control_plane import Ended, Plane, make, method
from tests.support.raw_http import PATIENCE_S
from upscaler.api.responses import JobStatus
from upscaler.errors import (
    Busy,
    InvalidRequest,
    JobFailed,
    OutOfMemory,
    RemoteFailed,
    UnknownJob,
    Unreachable,
)
from upscaler.modal import jobs as module
from upscaler.modal.backend import RESULT_COPIES, ModalBackend, from_payload
from upscaler.modal.jobs import ModalJobStore
from upscaler.modal.states import States
from upscaler.service.backend import Scheduler, StageTimer, UpscaleJob
from upscaler.service.jobs.store import BatchRecord, MemberRecord, Submission
from upscaler.service.queue import Admission

DAY_S = 24 * 60 * 60
KEY = b"a key"


class Scene:
    """Jobs with a clock of their own, and a place to take orders."""

    def __init__(self) -> None:
        self.now_s = time.time()
        self.shop = Scheduler(
            ModalBackend(method("make"), at_once=8), Admission(2, 2**30), lambda _: None
        )
        self.jobs = self.other()

    def other(self, key: bytes = KEY) -> ModalJobStore:
        """What another container of the front has."""
        return ModalJobStore(method("make"), States(), key, clock=lambda: self.now_s)

    async def start(self, task: UpscaleJob = TASK) -> str:
        return await self.jobs.start(self.shop.schedule(task, StageTimer()))

    async def finish(self, *job_ids: str) -> None:
        """Ask until all are completed."""
        jobs = self.other()
        async with asyncio.timeout(PATIENCE_S):
            for job_id in job_ids:
                while await jobs.status(job_id) is not JobStatus.COMPLETED:
                    await asyncio.sleep(0.01)


def play(work: Callable[[Scene], Coroutine[Any, Any, None]], scene: Scene | None = None) -> None:
    asyncio.run(work(scene or Scene()))


@pytest.mark.parametrize("expected", [JobStatus.RUNNING, JobStatus.PENDING])
def test_a_job_is_not_completed_before_it_is_whichever_front_is_asked(
    plane: Plane, expected: JobStatus
) -> None:
    plane.writing = expected is JobStatus.RUNNING  # as when a container has it
    working, go_on = held(plane)

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await asyncio.to_thread(working.wait, PATIENCE_S)
        assert scene.shop.admission.slots == [], "it waits in Modal's line, and in no other"
        other = scene.other()
        for jobs in (scene.jobs, other):
            assert await jobs.status(job_id) is expected
            with pytest.raises(UnknownJob, match="not completed"):
                await jobs.result(job_id)
        scene.now_s += 2 * DAY_S  # it may wait in line as long as it has to
        assert await scene.jobs.status(job_id) is expected
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


ME = Submission("me", "a key", "print")
ALICE, BOB = "alice", "bob"


def test_the_same_key_gives_the_same_job_whichever_front_is_asked(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        other = scene.other()

        async def start(jobs: ModalJobStore, submission: Submission) -> str:
            return await jobs.start(scene.shop.schedule(TASK, StageTimer()), submission)

        first = await start(scene.jobs, ME)
        assert await start(other, ME) == await other.repeated(ME) == first
        with pytest.raises(InvalidRequest):
            await start(other, replace(ME, fingerprint="another"))
        assert await start(other, replace(ME, owner="you")) != first
        twice = replace(ME, key="at once")
        both = await asyncio.gather(start(scene.jobs, twice), start(other, twice))
        assert len(set(both)) == 1
        await scene.finish(first)
        assert await start(other, ME) == first
        scene.now_s += DAY_S + 60
        assert await start(other, ME) != first

    play(act)


def test_an_owner_sees_the_own_jobs_the_newest_first(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        ids = []
        for owner in (ALICE, BOB, ALICE, ALICE):
            scene.now_s += 1
            schedule = scene.shop.schedule(TASK, StageTimer())
            ids.append(await scene.jobs.start(schedule, Submission(owner)))
        await scene.finish(*ids)
        mine = [ids[3], ids[2], ids[0]]
        other = scene.other()
        assert [view.id for view in await other.listed(ALICE, 9)] == mine
        first = (await other.listed(ALICE, 1))[0].cursor
        assert [view.id for view in await other.listed(ALICE, 1, first)] == mine[1:2]
        assert [view.id for view in await other.listed(BOB, 9)] == [ids[1]]
        (view,) = await other.listed(BOB, 9)
        assert (view.status, view.size, view.done) == (JobStatus.COMPLETED, TASK.size, 1.0)

    play(act)


def test_a_job_is_cancelled_in_its_container_and_known_no_longer(plane: Plane) -> None:
    working, go_on = held(plane)

    async def act(scene: Scene) -> None:
        schedule = scene.shop.schedule(TASK, StageTimer())
        job_id = await scene.jobs.start(schedule, Submission("carol"))
        await asyncio.to_thread(working.wait, PATIENCE_S)
        other = scene.other()
        with pytest.raises(UnknownJob):
            await other.cancel(job_id, "dave")
        assert (await other.view(job_id)).status is JobStatus.RUNNING
        await other.cancel(job_id, "carol")
        assert plane.asked("FunctionCallCancel")
        for jobs in (scene.jobs, other):
            await refused(jobs, job_id)
        assert await other.listed("carol", 9) == []

    try:
        play(act)
    finally:
        go_on.set()


def test_what_failed_is_seen_as_failed(plane: Plane) -> None:
    plane.work["make"] = raising(OutOfMemory("far too large"))

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        failure = (await scene.other().view(job_id)).failure
        assert failure is not None
        assert failure.status == 503

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
        for jobs in (scene.jobs, scene.other()):
            assert await jobs.status(job_id) is JobStatus.COMPLETED
            assert (await jobs.result(job_id)).size == TASK.size
        scene.now_s = finished_s + DAY_S
        for jobs in (scene.jobs, scene.other()):
            await refused(jobs, job_id)

    play(act)


def test_a_failure_is_told_for_a_day_and_no_longer(plane: Plane) -> None:
    plane.work["make"] = raising(OutOfMemory("far too large"))

    async def act(scene: Scene) -> None:
        began_s = int(scene.now_s)
        job_id = await scene.start()
        await scene.finish(job_id)
        scene.now_s = began_s + DAY_S - 1
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED
        scene.now_s = time.time() + DAY_S
        await refused(scene.jobs, job_id)

    play(act)


def test_what_modal_no_longer_keeps_is_unknown(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        expired, gone = await scene.start(), await scene.start()
        await scene.finish(expired, gone)
        plane.forget(expired.partition(".")[0])
        del plane.calls[gone.partition(".")[0]]
        plane.entries.clear()
        for job_id in (expired, gone):
            await refused(scene.jobs, job_id)

    play(act)


def test_polls_move_no_result_and_it_is_fetched_once(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.received.clear()
        for jobs in (scene.jobs, scene.other()) * 3:
            assert await jobs.status(job_id) is JobStatus.COMPLETED
        assert plane.asked("FunctionGetOutputs") == plane.asked("BlobGet") == []
        assert (await scene.jobs.result(job_id)).size == TASK.size
        assert len(plane.asked("BlobGet")) == 1, "it has more than 8 KiB"

    play(act)


def test_calls_of_an_older_container_that_writes_nothing_end_as_well(plane: Plane) -> None:
    plane.writing = False

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.received.clear()
        assert await scene.other().status(job_id) is JobStatus.COMPLETED
        assert plane.asked("FunctionGetOutputs") == [], "the front wrote it"
        assert (await scene.jobs.result(job_id)).size == TASK.size

    play(act)


def test_a_job_is_completed_even_if_that_cannot_be_written(plane: Plane) -> None:
    plane.writing = False
    plane.failing["DictUpdate"] = GRPCError(Status.PERMISSION_DENIED, "it is full")

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        assert await scene.other().status(job_id) is JobStatus.COMPLETED

    play(act)


def test_a_store_of_states_that_was_deleted_is_made_again(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        before = await scene.start()
        await scene.finish(before)
        assert await scene.jobs.status(before) is JobStatus.COMPLETED
        plane.delete_dict()
        assert await scene.jobs.status(before) is JobStatus.COMPLETED
        assert len(plane.entries) == 1, "the front found it out and wrote it"
        plane.delete_dict()
        assert (await scene.jobs.result(before)).size == TASK.size

    play(act)


def test_a_store_of_states_that_does_not_answer_is_unreachable(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        monkeypatch.setattr(module, "STATE_S", 0.0)
        for asking in (scene.jobs.status, scene.jobs.result):
            with pytest.raises(Unreachable):
                await asking(job_id)

    play(act)


def test_a_result_for_which_there_is_no_memory_is_not_fetched(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        plane.received.clear()
        file_bytes = from_payload(make(*sent(TASK))).file_bytes
        needed = RESULT_COPIES * file_bytes
        admission = Admission(2, 0, results_bytes=needed + 1)
        with admission.reservation() as other, admission.reservation() as memory:
            other.set_result(2)
            with pytest.raises(Busy):
                await scene.jobs.result(job_id, memory)
        assert plane.asked("BlobGet") == []
        with admission.reservation() as memory:
            assert (await scene.jobs.result(job_id, memory)).file_bytes == file_bytes
            assert admission.held_results_bytes == needed

    play(act)


@pytest.mark.parametrize("writing", [True, False])
def test_a_fault_of_the_store_of_blobs_passes(plane: Plane, *, writing: bool) -> None:
    plane.writing = writing

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        if writing:  # first, as a poll that comes before that asks Modal
            await scene.finish(job_id)
        plane.lost_blobs = True
        if writing:
            assert await scene.jobs.status(job_id) is JobStatus.COMPLETED
        else:
            with pytest.raises(Unreachable):
                await scene.finish(job_id)
        with pytest.raises(Unreachable):
            await scene.jobs.result(job_id)
        plane.lost_blobs = False
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED
        assert (await scene.jobs.result(job_id)).size == TASK.size

    play(act)


def test_a_result_that_is_announced_is_waited_for(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, go_on = held(plane)

    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        # Once it works, its state of then is written.
        assert await asyncio.to_thread(working.wait, PATIENCE_S)
        plane.note(job_id.partition(".")[0], completed=True)
        with monkeypatch.context() as patch:
            patch.setattr(module, "UPLOAD_S", 0.01)
            with pytest.raises(Unreachable):
                await scene.jobs.result(job_id)
        asking = asyncio.create_task(scene.jobs.result(job_id))
        go_on.set()
        assert (await asking).size == TASK.size

    try:
        play(act)
    finally:
        go_on.set()


@pytest.mark.parametrize("status", NO_ANSWERS[:4], ids=lambda status: status.name)
def test_a_job_of_which_nothing_can_be_known_is_not_completed(plane: Plane, status: Status) -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        await scene.finish(job_id)
        for rpc in ("FunctionGetOutputs", "DictGet"):
            plane.failing[rpc] = GRPCError(status, "not now")
            with pytest.raises(Unreachable):
                await scene.jobs.result(job_id)
        with pytest.raises(Unreachable):
            await scene.jobs.status(job_id)
        with pytest.raises(Unreachable):
            await scene.jobs.result(job_id)
        plane.failing.clear()
        assert await scene.jobs.status(job_id) is JobStatus.COMPLETED

    play(act)


def test_a_job_whose_client_hangs_up_before_it_has_an_id_is_cancelled(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        starting = asyncio.create_task(scene.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert scene.shop.admission.slots == []

    play(act)
    assert len(plane.asked("FunctionMap")) == len(plane.asked("FunctionCallCancel")) == 1


def test_no_job_is_started_where_too_many_wait(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        jobs = ModalJobStore(method("make"), States(), KEY, has_room=lambda: False)
        with pytest.raises(Busy, match="too many"):
            await jobs.start(scene.shop.schedule(TASK, StageTimer()))
        assert scene.shop.admission.slots == []

    play(act)
    assert not plane.asked("FunctionMap")


def test_a_job_that_cannot_be_started_leaves_the_line(plane: Plane) -> None:
    async def act(scene: Scene) -> None:
        plane.failing["FunctionMap"] = LOST
        with pytest.raises(Unreachable):
            await scene.start()
        assert scene.shop.admission.slots == []
        assert scene.shop.admission.held_bytes == 0

    play(act)


def test_a_batch_is_known_to_every_front(plane: Plane) -> None:
    failure = JobFailed.Response(422, [{"loc": ["body"], "msg": "wrong", "type": "x"}], {})
    members = [MemberRecord("a.png", "id", None), MemberRecord("b", None, failure)]
    record = BatchRecord("batch", ALICE, 1e9, members)

    async def act(scene: Scene) -> None:
        await scene.jobs.put_batch(record)
        other = scene.other()
        assert await other.batch("batch") == record
        assert await other.batch("another") is None
        await other.remove_batch("batch")
        assert await scene.jobs.batch("batch") is None

    play(act)
