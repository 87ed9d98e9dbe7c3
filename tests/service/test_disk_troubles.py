"""Jobs in a folder that goes away, that others write to, or whose disk is full."""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.service.test_disk_jobs import Scene, body, finish, often, play, scene, until
from tests.service.test_overload import Gate
from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, SETTINGS, Resizer, serving
from upscaler.errors import StoreUnavailable, UnknownJob
from upscaler.service import responses
from upscaler.service.backend import StageTimer, UpscaleJob
from upscaler.service.jobs.database import Database, Row
from upscaler.service.jobs.disk import DiskJobStore

__all__ = ["often", "scene"]  # fixtures


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Without a folder for a while, as if its disk were not there."""
    elsewhere = path.with_name(f"{path.name}-elsewhere")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


async def removable(store: DiskJobStore) -> list[str]:
    await store._write_fetched()
    return [job_id for job_id, _ in store._database.removable()]


def test_a_job_waits_for_a_folder_that_is_away_and_no_log_has_its_id(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        gate = Gate()
        async with scene.process(gate) as store:
            ids = [await scene.start(store) for _ in range(2)]
            with away(scene.folder / "files"):
                gate.opened.set()
                await until(lambda: _said(caplog, "cannot write a result"))
                with pytest.raises(StoreUnavailable):
                    await scene.start(store)
            await finish(store, ids[0])
            with away(scene.folder):
                with pytest.raises(StoreUnavailable):
                    await scene.start(store)
                with pytest.raises(StoreUnavailable):
                    await body(await store.result(ids[0]))
            await finish(store, *ids)
            for each in ids:
                assert len(await body(await store.result(each))) > 1000
        assert not any(each in caplog.text for each in ids)

    play(act)


def test_a_job_waits_for_a_disk_that_cannot_be_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, failures = DiskJobStore._read, [OSError(5, "Input/output error")] * 3

    def failing(store: DiskJobStore, row: Row, timer: StageTimer) -> UpscaleJob:
        if failures:
            raise failures.pop()
        return read(store, row, timer)

    async def act() -> None:
        monkeypatch.setattr(DiskJobStore, "_read", failing)
        async with scene.process() as store:
            job_id = await scene.start(store)
            await finish(store, job_id)
            assert (await store.result(job_id)).size

    with caplog.at_level(logging.CRITICAL):
        play(act)


async def _entered(gate: Gate) -> bool:
    return gate.entered.acquire(blocking=False)


async def _said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


def test_an_image_that_is_lost_fails_and_another_does_not_wait_for_it(scene: Scene) -> None:
    async def act() -> None:
        lost = await scene.start(scene.store())
        for path in (scene.folder / "files").iterdir():
            path.unlink()
        async with scene.process() as store:
            await finish(store, lost, await scene.start(store))
            assert (await store.view(lost)).failure

    play(act)


def test_who_asks_waits_for_nobody_who_writes(scene: Scene) -> None:
    async def act() -> None:
        async with scene.process() as store:
            job_id = await scene.start(store)
            await finish(store, job_id)
            other = sqlite3.connect(scene.folder / "jobs.sqlite3", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            # More than there are threads.
            writing = [asyncio.create_task(store.cancel(f"x{n}", "me")) for n in range(60)]
            starting = asyncio.create_task(scene.start(store))
            await asyncio.sleep(0)
            assert await store.status(job_id)
            assert len(await body(await store.result(job_id))) > 1000
            assert not starting.done()
            other.execute("ROLLBACK")
            other.close()
            await finish(store, await starting)
            gone = await asyncio.gather(*writing, return_exceptions=True)
            assert {type(each) for each in gone} == {UnknownJob}

    play(act)


def test_a_database_that_was_removed_is_not_written_to(scene: Scene) -> None:
    """SQLite writes to what nobody will find again."""

    async def act() -> None:
        async with scene.process() as store:
            await scene.start(store)
            (scene.folder / "jobs.sqlite3").unlink()
            with pytest.raises(StoreUnavailable, match="removed or replaced"):
                await scene.start(store)

    play(act)


def test_a_result_is_fetched_once_all_of_it_was_sent(scene: Scene) -> None:
    async def act() -> None:
        async with scene.process() as store:
            job_id = await scene.start(store)
            await finish(store, job_id)
            begun = responses.body(await store.result(job_id))
            assert await anext(begun)
            assert await removable(store) == []
            async for _ in begun:
                pass
            assert await removable(store) == [job_id]

    play(act)


def test_a_head_fetches_nothing(tmp_path: Path) -> None:
    store = DiskJobStore(tmp_path, 2**30)
    with serving(Resizer(), SETTINGS, store) as api:
        poll = upscale_later(api)
        url = api.get(poll).json().get("response_url")
        while url is None:
            url = api.get(poll).json().get("response_url")
        head = api.head(url)
        assert not store._fetched
        assert not store._database.removable()
        got = api.get(url)
        eventually(lambda: bool(store._fetched or store._database.removable()))
        for name in ("Content-Type", "Content-Length", "ETag", "Server-Timing"):
            assert head.headers.get(name) == got.headers.get(name)


def eventually(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def upscale_later(api: Any) -> str:
    answer = api.post("/upscaling", json=GOOD, headers={"X-OctoAI-Async": "1"})
    url: str = answer.json()["poll_url"]
    return url


def test_a_result_that_cannot_be_written_down_for_hours_is_kept(scene: Scene) -> None:
    async def act() -> None:
        gate = Gate()
        async with scene.process(gate) as store:
            job_id = await scene.start(store)
            await until(lambda: _entered(gate))
            files = scene.folder / "files"
            stem = next(files.iterdir()).stem
            for name in (f"{stem}.result", "of-none.result"):
                (files / name).write_bytes(b"made")
                os.utime(files / name, (1e9, 1e9))
            store._remove_orphans()
            assert {path.name for path in files.iterdir()} == {f"{stem}.source", f"{stem}.result"}
            gate.opened.set()
            await finish(store, job_id)

    play(act)


def test_what_goes_wrong_now_and_then_ends_no_process(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the renewal of leases, nor the search for jobs and for processes that have ended."""
    failures = {"workers": OSError(5, "input/output error"), "has_waiting": ValueError("damaged"),
                "find": StoreUnavailable("busy")}  # fmt: skip

    async def act() -> None:
        gate = Gate()
        async with scene.process(gate) as store:
            job_id = await scene.start(store)
            await until(lambda: _entered(gate))
            monkeypatch.setattr(Database, "beat", lambda *_: False)
            seen = dict.fromkeys(failures, 0)
            for name, error in failures.items():
                monkeypatch.setattr(Database, name, _failing(name, error, seen))

            async def again() -> bool:
                return min(seen["workers"], seen["find"]) > 3

            await until(again)
            gate.opened.set()

            async def looked() -> bool:
                return seen["has_waiting"] > 3

            await until(looked)
            monkeypatch.undo()
            assert await store.status(job_id)

    with caplog.at_level(logging.CRITICAL):
        play(act)


def _failing(name: str, error: Exception, seen: dict[str, int]) -> Any:
    def fail(*_: object) -> None:
        seen[name] += 1
        raise error

    return fail
