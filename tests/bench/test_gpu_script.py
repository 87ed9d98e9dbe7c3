"""benchmarks/gpu.sh, beside stand-ins for what a machine with a card has."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
MOST_CHARACTERS = 2000
PYTHON = r"""#!/bin/bash
echo "$0 $*" >>"$SAID"
if [ "$2" = venv ]; then
    mkdir -p "${!#}/bin"
    cp "$0" "${!#}/bin/python"
    cp "$0" "${!#}/bin/upscaler"
fi
[ "$1" != bench ] || echo "| engine |"
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What its commands are asked for, a line each."""
    for name, text in (("python3", PYTHON), ("nvidia-smi", "#!/bin/bash\necho a card\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    return tmp_path / "said"


def test_it_is_short_enough_to_be_typed_into_any_console() -> None:
    assert len(SCRIPT.read_text()) <= MOST_CHARACTERS


def test_it_installs_the_wheels_and_measures(said: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    subprocess.run([SCRIPT, tmp_path / "wheels", results], check=True)
    venv, wheels, reference, measured = said.read_text().splitlines()
    assert "-m venv --system-site-packages" in venv
    for line in (wheels, reference):
        assert f"--no-index --find-links {tmp_path / 'wheels'}" in line
    assert measured.endswith(
        f"bench --device cuda --model all --size 512 "
        f"--json {results}/bench.json --plot {results}/bench.png"
    )
    assert (results / "bench.md").read_text() == "| engine |\n"
    assert (results / "card.csv").read_text() == "a card\n" * 2
    assert not Path(venv.split()[-1]).exists(), "what was installed is removed"


def test_what_is_to_be_measured_can_be_chosen(said: Path, tmp_path: Path) -> None:
    chosen = "--model", "real-esrgan-x4-plus", "--size", "1024"
    subprocess.run([SCRIPT, tmp_path / "wheels", tmp_path / "results", *chosen], check=True)
    assert f"bench --device cuda {' '.join(chosen)} --json" in said.read_text()


def test_without_arguments_it_says_how_it_is_used() -> None:
    ran = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "usage: benchmarks/gpu.sh WHEELS RESULTS" in ran.stderr
