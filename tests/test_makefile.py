"""What `make` decides before it installs anything, with stand-ins for its commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("make"), reason="make is not installed"
)


def command(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run make with no commands but these and those in `folder`/bin."""
    for name in ("make", "sh", "grep", "touch", "rm"):
        (folder / "bin" / name).symlink_to(shutil.which(name) or "")
    return subprocess.run(
        [folder / "bin" / "make", "-C", ROOT, *arguments],
        env={"PATH": str(folder / "bin"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def set_up_torch(folder: Path, system: str, status: int, **environment: str) -> tuple[str, str]:
    """Return what make said, and what pip was told, on a system where pip ends with `status`."""
    log, venv = folder / "log", folder / "venv"
    command(folder / "bin" / "uname", f"echo {system}")
    missing = 'case "$*" in *"pip show"*) exit 1;; esac'
    command(venv / "bin" / "python", f'{missing}\necho "$*" >> {log}\nexit {status}')
    done = make(folder, f"VENV={venv}", str(venv / "torch.done"), **environment)
    assert done.returncode == 0, done.stdout
    assert (venv / "torch.done").exists()
    return done.stdout, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("status", [0, 1], ids=["index", "no such index"])
def test_linux_without_an_nvidia_driver_gets_the_cpu_build(tmp_path: Path, status: int) -> None:
    said, told = set_up_torch(tmp_path, "Linux", status)
    assert "No NVIDIA driver is found" in said
    assert ("torch comes from PyPI" in said) == bool(status)
    assert told.rstrip().endswith("--index-url https://download.pytorch.org/whl/cpu torch")
    assert "--no-deps" in told


@pytest.mark.parametrize("case", ["NVIDIA", "Mac", "an index of one's own"])
def test_no_other_machine_does(tmp_path: Path, case: str) -> None:
    if case == "NVIDIA":
        command(tmp_path / "bin" / "nvidia-smi", "")
    index = {"PIP_INDEX_URL": "https://pypi.example.com"} if case.startswith("an index") else {}
    assert set_up_torch(tmp_path, "Darwin" if case == "Mac" else "Linux", 0, **index)[1] == ""


def test_a_debian_without_venv_is_told_which_package_has_it(tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make(tmp_path, f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/python")
    assert done.returncode != 0
    assert "sudo apt install python3-venv" in done.stdout
    assert not os.path.lexists(tmp_path / "venv")
