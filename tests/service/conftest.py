"""What the tests share that hold each server to the contract: the service's and the mock's."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.hostile_requests import TARGETS, stay_here, unharmed


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """The name of each server in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def api(target: str) -> Iterator[httpx.Client]:
    """A client of `target`. A module overrides this where it asks one server."""
    with TARGETS[target]() as client:
        yield client


@pytest.fixture
def no_fault_of_ours(
    api: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever a test sends, the server lives, logs no error and looks up no name."""
    stay_here(monkeypatch)
    with unharmed(api, caplog):
        yield
