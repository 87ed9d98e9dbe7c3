"""Requests that are made to cost the service time or memory cost it little."""

from collections.abc import Iterator

import httpx
import pytest

from tests.body_cases import CASES, MEMORY, SECONDS, Case, check, send, warmed
from tests.children import Child, child, needs_proc

pytestmark = needs_proc


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, int]]:
    """A service, and what it holds at rest."""
    with child(tmp_path_factory.mktemp("service")) as service:
        yield service, warmed(service)
        assert "Traceback" not in service.said.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_costs_little(service: tuple[Child, int], case: Case) -> None:
    sent = send(case, *service)
    check(case, sent)
    assert sent.seconds < SECONDS
    assert sent.memory < MEMORY
    assert httpx.get(f"{service[0].url}/livez").status_code == 200
