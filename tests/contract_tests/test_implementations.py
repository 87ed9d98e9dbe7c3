"""The contract tests blame no implementation that is right, and find what is wrong with others."""

from pathlib import Path
from typing import Final

import pytest

from tests.contract_tests.implementations import (
    MISTAKES,
    NODE,
    TOKEN,
    behind_nginx,
    serving,
)
from tests.support.contract_cli import CliResult, run_cli
from tests.support.nginx import needs_nginx

pytestmark = [pytest.mark.dev, needs_nginx]
NAMES: Final = [
    pytest.param(
        name, marks=pytest.mark.skipif(name == "Node" and not NODE, reason="Node is not installed")
    )
    for name in MISTAKES
]
PLANTED: Final = [
    pytest.param(name, mistake, marks=name_.marks)
    for name, name_ in zip(MISTAKES, NAMES, strict=True)
    for mistake in MISTAKES[name]
]


def judge(name: str, mistake: str, folder: Path, *options: str) -> CliResult:
    """The verdict on an implementation behind nginx."""
    with serving(name, mistake) as own, behind_nginx(own, folder) as (url, environment):
        return run_cli(url, TOKEN, *options, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_implementation_that_is_right_conforms_behind_nginx(name: str, tmp_path: Path) -> None:
    result = judge(name, "", tmp_path, "--http2", "--max-examples", "5")
    assert result.status == 0, result.output
    verdicts = {rule["verdict"] for rule in result.report["rules"]}
    assert verdicts == {"conforms", "not tested"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_implementation_that_is_right_conforms_by_itself(name: str) -> None:
    """By other requests than behind nginx."""
    with serving(name) as url:
        result = run_cli(url, TOKEN, "--seed", "1", "--max-examples", "25", "--max-cost", "2")
    assert result.status == 0, result.output


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "mistake"), PLANTED)
def test_a_mistake_of_theirs_is_found(name: str, mistake: str, tmp_path: Path) -> None:
    rule, sentence = MISTAKES[name][mistake]
    result = judge(name, mistake, tmp_path, "--only", rule)
    assert result.status == 1, f"it is not found: {sentence}\n{result.output}"
