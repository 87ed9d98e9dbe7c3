"""What the tests here stand on: the session of the plugin, and the fixture `run`."""

import pytest

from contract_tests.judge.run import Run
from contract_tests.plugin import NO_URL, SESSION, WRONG


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Say what is missing, instead of failing each test for want of a fixture."""
    if SESSION not in collector.config.stash:
        pytest.exit(NO_URL, returncode=WRONG)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """What the tests ask with."""
    return pytestconfig.stash[SESSION].run
