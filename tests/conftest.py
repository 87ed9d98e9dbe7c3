"""What every test stands on: an environment of its own, and the photo that the repository ships."""

import ast
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from contract_tests.failures import Undecided
from tests.support.paths import PHOTO
from upscaler.imaging.pixels import Pixels

# In CI a property draws the same examples every time, and no machine is too slow for one.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Folders whose modules all need what the base environment lacks. A module elsewhere that needs more
# says so itself: `pytestmark = pytest.mark.torch`, or `dev`.
TESTS = Path(__file__).parent
FOLDERS = {
    TESTS / "cli": pytest.mark.torch,
    TESTS / "engine": pytest.mark.torch,
    TESTS / "service" / "playground": pytest.mark.dev,
}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what could not be imported where torch is missing."""
    if find_spec("torch"):
        return None
    if collection_path in FOLDERS:
        return True
    is_module = collection_path.match("test_*.py")
    return True if is_module and not {"torch", "dev"}.isdisjoint(_marks(collection_path)) else None


def _marks(module: Path) -> Iterator[str]:
    """The names in a module's `pytestmark`, read from its source: importing it may fail."""
    for statement in ast.parse(module.read_bytes()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                yield from (
                    node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)
                )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test as its folder is marked."""
    for folder in FOLDERS.keys() & set(item.path.parents):
        item.add_marker(FOLDERS[folder])


def pytest_configure() -> None:
    """Let no process of a test ignore SIGINT, as all do that a script has in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fail a test that ends in an Undecided, which pytest would take for a skip."""
    try:
        yield
    except Undecided as error:
        raise AssertionError(repr(error)) from error


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's settings or cache, or leaves anything there."""
    for name in [name for name in os.environ if name.startswith("UPSCALER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def photo() -> Pixels:
    """A photograph: uint8 of shape (256, 304, 3)."""
    return np.array(Image.open(PHOTO).convert("RGB"))
