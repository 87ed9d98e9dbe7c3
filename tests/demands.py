"""What tests need that may not be installed, and that CI demands."""

import os

import pytest

from upscaler.bench.contenders import TITLES, Peer, installed


def needs(peer: Peer) -> pytest.MarkDecorator:
    """Skips a test where `peer` is not installed, unless REQUIRE_REFERENCE says that it must be."""
    absent = not installed(peer)
    if absent and os.environ.get("REQUIRE_REFERENCE"):
        raise RuntimeError(f"{TITLES[peer]} is not installed, and REQUIRE_REFERENCE demands it")
    return pytest.mark.skipif(absent, reason=f"{TITLES[peer]} is not installed")
