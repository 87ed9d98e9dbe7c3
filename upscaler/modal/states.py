"""How far calls are, which GPU containers write for the containers that are polled."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import modal

from upscaler.modal.payload import CallState

NAME: Final = "octo-upscaler-states"
"""Of the `modal.Dict`."""


class States:
    """A CallState of each call of `make`, by the call's id.

    They are in a `modal.Dict`, which is made again, empty, if somebody deletes it: its handle would
    ask for the old one until the container ends.
    """

    def __init__(self) -> None:
        self._dict = _named()

    async def get(self, call_id: str) -> CallState | None:
        """The state of a call, if one was written. Raises whatever Modal's client does."""
        state: CallState | None = await self._ask(lambda: self._dict.get.aio(call_id))
        return state

    async def put(self, call_id: str, state: CallState) -> None:
        """Write the state of a call. Raises whatever Modal's client does."""
        await self._ask(lambda: self._dict.put.aio(call_id, state))

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401  what it returns
        try:
            return await request()
        except modal.exception.NotFoundError:
            self._dict = _named()
            return await request()


def _named() -> modal.Dict:
    return modal.Dict.from_name(NAME, create_if_missing=True)
