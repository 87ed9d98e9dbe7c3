"""Requests that are made to cost a server time or memory cost it little."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.body_cases import CASES, MEMORY, SECONDS, Case, check, send, warmed
from tests.support.hostile_requests import TARGETS
from tests.support.mock_servers import MOCK_TOKENS, mock_child
from tests.support.processes import Child, child, needs_proc

pytestmark = needs_proc

CHILDREN = {"service": child, "mock": lambda folder: mock_child(folder, *MOCK_TOKENS)}
"""Each of the targets as a process of its own."""


@pytest.fixture(scope="module", params=TARGETS)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Child, int]]:
    """A server, and what it holds at rest."""
    with CHILDREN[request.param](tmp_path_factory.mktemp("service")) as service:
        yield service, warmed(service)
        assert "Traceback" not in service.said.read_text()


@pytest.mark.first(12)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_costs_little(service: tuple[Child, int], case: Case) -> None:
    sent = send(case, *service)
    check(case, sent)
    assert sent.seconds < SECONDS
    assert sent.memory < MEMORY
    assert httpx.get(f"{service[0].url}/livez").status_code == 200
