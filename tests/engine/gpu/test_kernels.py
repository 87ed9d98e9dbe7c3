"""The kernels in Triton's interpreter, which computes them on a CPU."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytest.importorskip("triton", reason="Triton is made for Linux alone")


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_kernels_compute_what_torch_does(chosen: str) -> None:
    """In a process of its own: what interprets them must be chosen before Triton is imported."""
    tests = ROOT / "tests" / "engine" / "gpu" / "interpreted.py"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-m", chosen],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
