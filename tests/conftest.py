"""What every test stands on: an environment of its own, and the photo that the repository ships."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from contract_tests.failures import Undecided
from tests.support.paths import PHOTO
from upscaler.imaging.decode import Pixels

# In CI a property draws the same examples every time, and no machine is too slow for one.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


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
