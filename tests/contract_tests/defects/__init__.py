"""The mock with one mistake in it, of those that somebody who writes such a service would make.

    with defective(DEFECTS[0]) as served:
        httpx.post(f"{served.url}/upscaling", ...)

A judge of such services must be able to fail each of them. Parts of the mock are replaced in this
process while it is served, so there can be only one at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from tests.contract_tests.defects import (
    accept,
    asynchronous,
    deliveries,
    exclusive_fields,
    extensions,
    fields,
    files,
    forms,
    headers,
    images,
    jobs,
    leaks,
    limits,
    numbers,
    refusals,
    responses,
    sizes,
    tokens,
)
from tests.contract_tests.defects.planting import Defect
from tests.contract_tests.defects.tokens import TOKEN
from tests.support.service import running

__all__ = ["DEFECTS", "TOKEN", "Defect", "Served", "defective", "flawless", "planted_mock"]

DEFECTS: Final[tuple[Defect, ...]] = (
    *tokens.TOKENS,
    *headers.HEADERS,
    *headers.BODIES,
    *exclusive_fields.CHOICES,
    *numbers.NUMBERS,
    *fields.MODELS,
    *fields.ENCODINGS,
    *fields.FLAGS,
    *fields.NAMES,
    *fields.TOGETHER,
    *limits.INPUTS,
    *limits.OTHER_INPUTS,
    *limits.OUTPUTS,
    *sizes.ROUNDING,
    *files.TEXTS,
    *files.FILES,
    *images.DRAWN,
    *images.ALPHA,
    *images.SIZED,
    *images.ENCODED,
    *responses.RESULTS,
    *responses.ERRORS,
    *accept.ACCEPT,
    *refusals.REFUSALS,
    *refusals.HEALTH,
    *asynchronous.PROMISES,
    *asynchronous.COURSE,
    *jobs.KEPT,
    *forms.LARGE,
    *forms.WRITTEN,
    *leaks.CACHES,
    *leaks.LEFT,
    *leaks.WORKERS,
    *leaks.BUSY,
    *extensions.KEYS,
    *extensions.CANCELLED,
    *extensions.LISTED,
    *extensions.WATCHED,
    *deliveries.WEBHOOKS,
    *deliveries.IN_BATCHES,
)


@dataclass(frozen=True)
class Served:
    """A mock that is served at `url`, and takes `token`; `mock.journal` has what it was asked."""

    url: str
    token: str
    mock: Mock


@contextmanager
def defective(defect: Defect) -> Iterator[Served]:
    """Serve a mock with a defect on a port of this machine."""
    with planted_mock(defect) as mock, running(mock.app, MockConnection) as url:
        yield Served(url, TOKEN, mock)


@contextmanager
def flawless() -> Iterator[Served]:
    """Serve the same mock without any."""
    mock = Mock(tokens=(TOKEN,))
    with running(mock.app, MockConnection) as url:
        yield Served(url, TOKEN, mock)


@contextmanager
def planted_mock(defect: Defect) -> Iterator[Mock]:
    """A mock with a defect, which it has until the block ends."""
    with defect.planted():
        yield Mock(tokens=(TOKEN,))
