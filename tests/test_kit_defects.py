"""The kit finds what is wrong, and finds nothing where nothing is.

Of the seeded defects these are the ones that the first who wrote about such tests named, and one
for each rule. `python -m benchmarks.defects` tries all, and prints docs/defects.md.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Final

import pytest

from benchmarks.defects import Row, row_of
from contract_tests.rules import RULES
from mock_server.mock import Mock
from mock_server.wire import Wire
from tests.defects import DEFECTS, TOKEN
from tests.kit import judged
from tests.serving import running
from upscaler.formats import ImageEncoding
from upscaler.settings import Settings

CHOSEN: Final[tuple[str, ...]] = ()


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, "Future[Row]"]]:
    """What becomes of each chosen defect, on all cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(row_of, name) for name in CHOSEN}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_defect_is_found(rows: dict[str, "Future[Row]"], name: str) -> None:
    row = rows[name].result()
    assert row.told, f"nothing is told of: {row.defect.mistake}"
    assert row.as_planted, f"{row.told} is told, and it breaks {row.defect.rules}"


def test_the_chosen_defects_are_of_every_rule() -> None:
    chosen = [defect for defect in DEFECTS if defect.name in CHOSEN]
    assert len(chosen) == len(CHOSEN) >= 40
    assert {rule for defect in chosen for rule in defect.rules} == set(RULES)


@pytest.mark.parametrize("options", [(), ("--level", "strict", "--concurrency", "4")])
def test_nothing_is_found_wrong_with_the_mock(options: tuple[str, ...]) -> None:
    with running(Mock(tokens=[TOKEN]).app, Wire) as url:
        result = judged(url, TOKEN, *options)
    assert result.status == 0, result.said


def test_nothing_is_found_wrong_with_the_mock_that_answers_in_jpeg() -> None:
    settings = Settings(tokens=(TOKEN,), default_encoding=ImageEncoding.JPEG)
    with running(Mock(settings=settings).app, Wire) as url:
        options = ("--level", "strict", "--only", "REQ-9", "RES-2")
        result = judged(url, TOKEN, *options, "--default-encoding", "jpeg")
        assert result.status == 0, result.said
        assert judged(url, TOKEN, *options).status == 1
