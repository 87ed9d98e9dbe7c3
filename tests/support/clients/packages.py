"""OctoAI's own clients that the tests' environment has not: from PyPI and npm, by their own tools.

    python -m tests.support.clients.packages

puts them into `.corpora`, once. octoai-sdk has a folder of its own, since it is imported as
`octoai` like its successor. What it needs it finds in the environment that this one is in: in later
versions than it asks for, of what it has no use for here (numpy, Pillow).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.corpora import FOLDER

HERE: Final = Path(__file__).parent
WHEEL: Final = (
    "octoai-sdk==0.10.1 "
    "--hash=sha256:a573b71d5656fdae8bc6b3461222227c42bab67ea5330fac13143db72ce95363\n"
)
LOCK: Final = HERE / "package-lock.json"
"""Which versions of npm's packages, and what is in them. The licences and the like that npm writes
there are left out, as no one reads them here."""
OLDER: Final = FOLDER / WHEEL.split()[0].replace("==", "-")
NODE: Final = FOLDER / f"octoai-npm-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def _older(folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(WHEEL)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    which = ("--no-deps", "--only-binary", ":all:", "--requirement", requirements)
    _run(*pip, *which, "--target", folder, folder=folder)


def _node(folder: Path) -> None:
    for path in (HERE / "package.json", LOCK):
        shutil.copy(path, folder)
    quiet = ("--no-audit", "--no-fund", "--loglevel", "error")
    _run("npm", "ci", "--ignore-scripts", *quiet, folder=folder)


def _run(*command: str | Path, folder: Path) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, stdin=nothing, stdout=nothing, check=True)


INSTALLED: Final[dict[Path, Callable[[Path], None]]] = {OLDER: _older, NODE: _node}
"""Where they are once they are there, and then they are whole; and how they come there."""


def fetch(path: Path) -> None:
    """Install what belongs at `path`, unless it is there."""
    if path.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name) / "installed"
        folder.mkdir()
        INSTALLED[path](folder)
        folder.rename(path)


def needs_clients() -> pytest.MarkDecorator:
    """Skips a test where they are not, unless REQUIRE_CORPORA says that they must be."""
    absent = [path.name for path in INSTALLED if not path.exists()]
    if not shutil.which("node"):
        absent.append("node")
    if absent and os.environ.get("REQUIRE_CORPORA"):
        raise RuntimeError(f"{', '.join(absent)} are not here, and REQUIRE_CORPORA demands them")
    reason = f"not here: {', '.join(absent)} (python -m tests.support.clients.packages)"
    return pytest.mark.skipif(bool(absent), reason=reason)


def main() -> None:
    for path in INSTALLED:
        try:
            fetch(path)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{path.name} cannot be installed: {error}")


if __name__ == "__main__":
    main()
