"""What fronts and GPU containers tell each other of calls, beside their arguments and results."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import modal

from upscaler.modal.payload import BatchPayload, CallState, JobRecord, KeyRecord

NAME: Final = "octo-upscaler-states"
"""Of the `modal.Dict`."""
JOB, KEY, BATCH = "job ", "key ", "batch "
"""What the keys of other entries than states begin with, which the ids of calls do not."""


class States:
    """A CallState of each call of `make`, by the call's id; and what fronts must remember.

    They are in a `modal.Dict`, which is made again, empty, if somebody deletes it: its handle would
    ask for the old one until the container ends. Modal removes an entry that was not read or
    written for a week. All methods raise whatever Modal's client does.
    """

    def __init__(self) -> None:
        self._dict = _named()

    async def get(self, call_id: str) -> CallState | None:
        """The state of a call, if one was written."""
        state: CallState | None = await self._ask(lambda: self._dict.get.aio(call_id))
        return state

    async def put(self, call_id: str, state: CallState) -> None:
        """Write the state of a call."""
        await self._ask(lambda: self._dict.put.aio(call_id, state))

    async def job(self, call_id: str) -> JobRecord | None:
        """What was started with a call, if that was written."""
        record: JobRecord | None = await self._ask(lambda: self._dict.get.aio(JOB + call_id))
        return record

    async def put_job(self, call_id: str, record: JobRecord) -> None:
        """Write what was started with a call."""
        await self._ask(lambda: self._dict.put.aio(JOB + call_id, record))

    async def jobs(self, owner: str) -> list[JobRecord]:
        """All that an owner has started, in no order."""

        async def read() -> list[JobRecord]:
            return [
                record
                async for name, record in self._dict.items.aio()
                if str(name).startswith(JOB) and record["owner"] == owner
            ]

        found: list[JobRecord] = await self._ask(read)
        return found

    async def put_batch(self, batch_id: str, record: BatchPayload) -> None:
        """Write a batch."""
        await self._ask(lambda: self._dict.put.aio(BATCH + batch_id, record))

    async def batch(self, batch_id: str) -> BatchPayload | None:
        """A batch, if it was written."""
        record: BatchPayload | None = await self._ask(lambda: self._dict.get.aio(BATCH + batch_id))
        return record

    async def remove_batch(self, batch_id: str) -> None:
        """Remove a batch."""
        await self._ask(lambda: self._dict.pop.aio(BATCH + batch_id, None))

    async def key(self, name: str) -> KeyRecord | None:
        """The job of an Idempotency-Key."""
        record: KeyRecord | None = await self._ask(lambda: self._dict.get.aio(KEY + name))
        return record

    async def put_key(self, name: str, record: KeyRecord, *, replace: bool = False) -> bool:
        """Write the job of a key unless it has one, or to `replace` it; return whether it did."""
        done: bool = await self._ask(
            lambda: self._dict.put.aio(KEY + name, record, skip_if_exists=not replace)
        )
        return done

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401  what it returns
        try:
            return await request()
        except modal.exception.NotFoundError:
            self._dict = _named()
            return await request()


def _named() -> modal.Dict:
    return modal.Dict.from_name(NAME, create_if_missing=True)
