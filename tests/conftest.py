"""What every test stands on: an environment of its own, and the photo that the repository ships."""

import ast
import gc
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from contract_tests.failures import Undecided
from tests.support.paths import PHOTO
from upscaler.imaging.pixels import Pixels

# How many examples a property is tried with; `make test-all` selects the profile `all`. In CI it
# draws the same ones every time. No machine is too slow for one.
for name, count in (("quick", 20), ("all", 100)):
    settings.register_profile(
        name, max_examples=count, deadline=None, derandomize=bool(os.environ.get("CI"))
    )
settings.load_profile("quick")

# Folders whose modules all need what the base environment lacks. A module elsewhere that needs more
# says so itself: `pytestmark = pytest.mark.torch`, or `dev`.
TESTS = Path(__file__).parent
FOLDERS = {
    TESTS / "cli": pytest.mark.torch,
    TESTS / "engine": pytest.mark.torch,
    TESTS / "service" / "playground": pytest.mark.dev,
}


cases: Final = Counter[str]()
"""How many cases of a test are collected so far."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what could not be imported where torch is missing."""
    return True if _needs_more(collection_path) else None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> "_LeftOut | None":
    """The same for a module that the command line names, which pytest never ignores."""
    return _LeftOut.from_parent(parent, path=module_path) if _needs_more(module_path) else None


class _LeftOut(pytest.File):
    """A module that is not imported, and says why when it is asked for by its path."""

    def collect(self) -> NoReturn:
        pytest.skip("needs torch or packages of the dev environment", allow_module_level=True)


def _needs_more(path: Path) -> bool:
    if find_spec("torch"):
        return False
    if not FOLDERS.keys().isdisjoint((path, *path.parents)):
        return True
    return path.match("test_*.py") and not {"torch", "dev"}.isdisjoint(_marks(path))


def _marks(module: Path) -> Iterator[str]:
    """The names in a module's `pytestmark`, read from its source: importing it may fail."""
    for statement in ast.parse(module.read_bytes()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                yield from (
                    node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)
                )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test as its folder is marked; as slow if it is not one of its quick cases."""
    for mark in _marks_of_folders(item.path):
        item.add_marker(mark)
    function = item.nodeid.partition("[")[0]
    first, every = item.get_closest_marker("first"), item.get_closest_marker("every")
    if (first and cases[function] >= first.args[0]) or (every and cases[function] % every.args[0]):
        item.add_marker(pytest.mark.slow)
    cases[function] += 1


@cache
def _marks_of_folders(path: Path) -> list[pytest.MarkDecorator]:
    return [mark for folder, mark in FOLDERS.items() if folder in path.parents]


def pytest_configure(config: pytest.Config) -> None:
    """Select the quick tests that can run here, trust one authority, and let nothing ignore SIGINT.

    What is selected by a mark, or by name with `::`, is left as it is. SIGINT is ignored in all
    processes that a script has in the background.
    """
    if not config.option.markexpr and not any("::" in arg for arg in config.args):
        config.option.markexpr = "not (base or slow)" if find_spec("torch") else "not slow"
    # For servers that fixtures of modules start, before `_own_environment`.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="octo-upscaler-tests-")
    # A client of httpx reads all certificates when it is made, which takes 20 ms. No test connects
    # to a host that has one of those.
    os.environ["SSL_CERT_FILE"] = str(TESTS / "support" / "nobody.pem")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    """Let no garbage collection look through thousands of tests while they are collected."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor after that, through them and all that is imported again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fail a test that ends in an Undecided, which pytest would take for a skip."""
    try:
        yield
    except Undecided as error:
        raise AssertionError(repr(error)) from error


@pytest.fixture(autouse=True)
def _own_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test sees the user's settings or cache, or leaves anything there.

    Most need no folder, which would take longer to make than they take.
    """
    for name in [name for name in os.environ if name.startswith("UPSCALER_")]:
        monkeypatch.delenv(name)
    cache = tmp_path_factory.getbasetemp() / f"cache-{uuid4().hex}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("XDG_STATE_HOME", str(cache / "state"))


@pytest.fixture(scope="session")
def photo() -> Pixels:
    """A photograph: uint8 of shape (256, 304, 3)."""
    return np.array(Image.open(PHOTO).convert("RGB"))
