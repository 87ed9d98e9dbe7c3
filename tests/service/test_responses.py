"""How answers are cut into what is sent at one go."""

import asyncio
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from upscaler.service import responses


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 60))
@example([b""], 1)
@example([], 1)
def test_small_pieces_are_sent_together_and_none_is_lost(pieces: list[bytes], least: int) -> None:
    async def sent() -> list[bytes]:
        return [part async for part in responses._merged(pieces)]

    with mock.patch.object(responses, "SENT_BYTES", least):
        parts = asyncio.run(sent())
    assert b"".join(parts) == b"".join(pieces)
    assert all(least <= len(part) < least + 30 for part in parts[:-1])
