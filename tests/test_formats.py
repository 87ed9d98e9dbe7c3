"""docs/FORMATS.md: every row has a test, and every refusal it quotes is one of the code's."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

DOCUMENT: Final = (ROOT / "docs" / "FORMATS.md").read_text()
ROWS: Final = [
    re.split(r"(?<!\\)\|", line)[1:-1]
    for line in DOCUMENT.partition("## What other decoders show")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| kind", "| ---"))
]
"""The cells of each row that says what comes of a kind of file."""
NAMED: Final = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)))
QUOTED: Final = sorted(set(re.findall(r"“([^”]+)”", DOCUMENT)))
"""The sentences; … stands for what they say of a file."""


@cache
def texts() -> frozenset[str]:
    """Every text in the code of the product, with … for its variable parts."""
    found = set()
    for module in (ROOT / "upscaler").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant):
                found.add(str(node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                found.add("".join(map(str, parts)))
    return frozenset(found)


@cache
def functions(module: Path) -> set[str]:
    body = ast.parse(module.read_text()).body if module.exists() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_there_are_rows_tests_and_sentences_to_check() -> None:
    assert len(ROWS) > 30
    assert len(NAMED) > 20
    assert len(QUOTED) > 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_every_row_names_a_test(row: list[str]) -> None:
    assert re.search(r"`[\w/]+\.py::\w+`", row[-1])


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in functions(ROOT / "tests" / file)


@pytest.mark.parametrize("sentence", QUOTED)
def test_every_refusal_that_is_quoted_is_in_the_code(sentence: str) -> None:
    assert any(sentence in text for text in texts())
