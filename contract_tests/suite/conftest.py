"""The fixture `run`, from the session that the plugin has started."""

from typing import Final

import pytest

from contract_tests.judge.run import Run
from contract_tests.options import USAGE_ERROR
from contract_tests.session import SESSION

NO_URL: Final = "the contract tests need a target: --contract-url URL"


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Say what is missing, instead of failing each test for lack of a session."""
    if SESSION not in collector.config.stash:
        pytest.exit(NO_URL, returncode=USAGE_ERROR)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """What the tests send requests with."""
    return pytestconfig.stash[SESSION].run
