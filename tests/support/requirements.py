"""What tests need that may not be installed, and that CI demands."""

import os
import shutil
from typing import Final

import pytest

from upscaler.bench.contenders import TITLES, Peer, installed
from upscaler.bench.machine import version


def needs(peer: Peer) -> pytest.MarkDecorator:
    """Skips a test where `peer` is not installed, unless REQUIRE_REFERENCE says that it must be."""
    absent = not installed(peer)
    if absent and os.environ.get("REQUIRE_REFERENCE"):
        raise RuntimeError(f"{TITLES[peer]} is not installed, and REQUIRE_REFERENCE demands it")
    return pytest.mark.skipif(absent, reason=f"{TITLES[peer]} is not installed")


def needs_face_reference() -> pytest.MarkDecorator:
    """Skips a test without the packages that restore faces, unless REQUIRE_REFERENCE is set."""
    absent = [name for name in ("gfpgan", "facexlib", "facenet-pytorch") if not version(name)]
    if absent and os.environ.get("REQUIRE_REFERENCE"):
        raise RuntimeError(f"{absent} are not installed, and REQUIRE_REFERENCE demands them")
    return pytest.mark.skipif(bool(absent), reason="gfpgan and facexlib are not installed")


def program(*names: str, demand: str = "REQUIRE_BROWSER") -> str:
    """The path of the first of these programs that is installed, or an empty text.

    Raises RuntimeError if none is and the variable `demand` says that one must be.
    """
    path = next(filter(None, map(shutil.which, names)), "")
    if not path and os.environ.get(demand):
        raise RuntimeError(f"{names[0]} is not installed, and {demand} demands it")
    return path


# Without a window's parts it takes a third of the processor's time.
CHROMIUM: Final = program(
    "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
