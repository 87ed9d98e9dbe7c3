"""The two servers that keep the contract, for tests that send the same requests to both."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from tests.support.mock_servers import mocking
from tests.support.service import SETTINGS, Resizer, serving
from upscaler.settings import Settings

SERVERS: Final = ("service", "mock")


@contextmanager
def api_of(server: str, settings: Settings = SETTINGS) -> Iterator[httpx.Client]:
    """A client, with a valid token, of one of `SERVERS`."""
    with serving(Resizer(), settings) if server == "service" else mocking(settings) as client:
        yield client
