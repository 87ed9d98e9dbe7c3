"""The mock's webhooks, which get lost, or come twice, late or out of order, when a test says so."""

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from upscaler.service.download import Downloader

FAULT: Final = re.compile(r"ok|lost|twice|swapped|late=[0-9]{1,4}(\.[0-9]{1,3})?")
OK: Final = "ok"
DELIVERED: Final = 200
SWAP_S: Final = 5.0
"""How long a message waits for the next one, which is to be sent before it."""
HELP: Final = "webhook faults are ok, lost, twice, swapped and late=SECONDS, separated by commas"


def parse_webhook_faults(text: object) -> tuple[str, ...]:
    """Return the faults of a text such as "lost,twice,ok"; raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(HELP)  # noqa: TRY004  as all that is wrong in a scenario
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not all(FAULT.fullmatch(word) for word in words):
        raise ValueError(HELP)
    return words


class MockPoster:
    """Posts webhooks to any host, each with the next of the faults to come.

    `lost` sends nothing, as a receiver sees it that was down when all attempts were made; `twice`
    sends it two times; `late=2` sends it after two seconds; `swapped` sends it after the one that
    comes next, or after SWAP_S.
    """

    is_private = True

    def __init__(self, faults: tuple[str, ...] = ()) -> None:
        self._initial_faults = faults
        self.reset()

    def reset(self) -> None:
        """Restore the scenario's faults."""
        self.faults = deque(self._initial_faults)
        self._sent = asyncio.Event()

    def set(self, text: str) -> None:
        """Set the faults of the next webhooks; raises ValueError."""
        self.faults = deque(parse_webhook_faults(text))

    async def check(self, text: str) -> None:
        """Raise InvalidRequest for what is no URL of HTTP."""
        await self._downloader.check(text)

    async def post(self, text: str, headers: Mapping[str, str], body: bytes) -> int:
        """Post to a URL, unless the next fault says otherwise, and return the status."""
        fault = self.faults.popleft() if self.faults else OK
        if fault == "lost":
            return DELIVERED
        if fault.startswith("late="):
            await asyncio.sleep(float(fault.removeprefix("late=")))
        if fault == "swapped":
            try:
                async with asyncio.timeout(SWAP_S):
                    await self._sent.wait()
            except TimeoutError:
                pass
        if fault == "twice":
            await self._downloader.post(text, headers, body)
        status = await self._downloader.post(text, headers, body)
        self._sent.set()
        self._sent = asyncio.Event()
        return status

    @cached_property
    def _downloader(self) -> "Downloader":
        from upscaler.service.download import Downloader  # noqa: PLC0415  imports httpx2

        everywhere = ip_network("0.0.0.0/0"), ip_network("::/0")
        return Downloader(ports=range(1, 2**16), networks=everywhere)
