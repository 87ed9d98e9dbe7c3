"""What a start does not import: each of these takes long, and is for what may not come.

tests/test_exported_members.py has `import upscaler`, and the mock is in its own test_cli.py.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.paths import ROOT

HEAVY: Final = {"fastapi", "httpx2", "numpy", "PIL", "pydantic", "torch", "tqdm", "uvicorn"}
ENGINE: Final = {"fastapi", "httpx2", "matplotlib", "uvicorn"}
"""Nothing that the engine needs where it has its weights."""
REPORT: Final = "import json, sys; print(json.dumps([*sys.modules]))"
COMMAND: Final = "from upscaler.cli.main import main\ntry: main({})\nexcept SystemExit: pass\n"


def imports(module: str) -> Iterator[str]:
    """What a module of ours imports as soon as it is imported itself."""
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.is_file():  # a name in a module
        return
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def reached(*modules: str) -> set[str]:
    """The packages that these modules import, and the modules of ours that they import do."""
    seen: set[str] = set()
    left = [*modules]
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            if module.startswith("upscaler."):
                left += imports(module)
    return {module.partition(".")[0] for module in seen}


@pytest.mark.parametrize("words", [["--help"], ["image", "--help"], ["image", "--scale", "x", "y"]])
def test_a_command_that_does_nothing_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(words) + REPORT],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not HEAVY & {*json.loads(done.stdout.splitlines()[-1])}


def test_the_engine_imports_no_client_where_it_has_its_weights() -> None:
    found = reached("upscaler.engine.pool", "upscaler.cli.image")
    assert found >= {"torch", "numpy"}
    assert not found & ENGINE
