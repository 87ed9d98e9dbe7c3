"""Fixtures of several tests of the contract tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import Run
from contract_tests.oracle.oracle import Level
from contract_tests.target.budget import Budget
from contract_tests.target.client import ClientOptions, Target
from mock_server import MockServer
from tests.support.contract_cli import TOKEN

QUICK = ClientOptions(timeout_s=5, patience_s=2)


@pytest.fixture
def open_target() -> Iterator[Callable[..., Target]]:
    """Opens clients of a URL, and closes them when the test ends."""
    with ExitStack() as stack:

        def opened(url: str, options: ClientOptions = QUICK) -> Target:
            target = Target(url, TOKEN, options)
            stack.callback(target.close)
            return target

        yield opened


@pytest.fixture
def create_run(open_target: Callable[..., Target]) -> Callable[..., Run]:
    """Creates a run at the level strict, by the URL of its target."""

    def created(
        url: str,
        budget: Budget | None = None,
        *,
        other_url: str = "",
        planning: bool = False,
    ) -> Run:
        target = open_target(url)
        other = open_target(other_url) if other_url else None
        policy = Policy(Level.STRICT)
        return Run(target, policy, budget or Budget(), other, planning=planning)

    return created


@pytest.fixture(scope="module")
def _mock() -> Iterator[MockServer]:
    with MockServer(tokens=[TOKEN]) as server:
        yield server


@pytest.fixture
def mock(_mock: MockServer) -> MockServer:
    """A mock that takes TOKEN, as new for each test."""
    _mock.reset()
    return _mock
