"""Clients that tests share: of each server that keeps the contract, and of one without a token."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.hostile_requests import TARGETS, stay_here, unharmed
from tests.support.service import Resizer, running
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """The name of each server in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def api(target: str) -> Iterator[httpx.Client]:
    """A client of `target`. A module overrides this where it asks one server."""
    with TARGETS[target]() as client:
        yield client


@pytest.fixture(scope="module")
def anonymous() -> Iterator[httpx.Client]:
    """A client without a token of a service that demands one."""
    app = create_app(LocalBackend(Resizer()), Settings(tokens=("secret",)))
    with running(app) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def no_fault_of_ours(
    api: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever a test sends, the server lives, logs no error and looks up no name."""
    stay_here(monkeypatch)
    with unharmed(api, caplog):
        yield
