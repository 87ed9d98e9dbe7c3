"""What the tests of the mock share: one served mock for each module, reset before each test."""

from collections.abc import Iterator

import httpx
import pytest

from mock_server import Mock
from tests.support.mock_servers import mocked


@pytest.fixture(scope="module")
def mock() -> Mock:
    """The mock behind `api`. A module overrides this where it needs other options."""
    return Mock()


@pytest.fixture(scope="module")
def served(mock: Mock) -> Iterator[httpx.Client]:
    """A client of `mock` on a socket, with a valid token, for a whole module."""
    with mocked(mock) as client:
        yield client


@pytest.fixture
def api(mock: Mock, served: httpx.Client) -> httpx.Client:
    """The same client, of a mock that was just reset."""
    mock.reset()
    return served
