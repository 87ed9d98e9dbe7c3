"""Plugins of other suites, in a folder of their own, as here they would change how all tests run.

    python -m tests.support.suite_plugins

puts them into `.corpora`, once, from PyPI. What they need besides is in both environments.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Final

import pytest

from tests.support.corpora import FOLDER

PACKAGES: Final = (
    "freezegun==1.5.5",
    "pytest-asyncio==1.5.0",
    "pytest-randomly==5.1.0",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "time-machine==3.6.0",
)
# With the version of Python, since one of them is compiled.
NAME: Final = hashlib.sha256(" ".join((sys.version, *PACKAGES)).encode()).hexdigest()[:12]
INSTALLED: Final = FOLDER / f"suite-plugins-{NAME}"


def environment() -> dict[str, str]:
    """The variables with which a suite has all of them."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(INSTALLED), inherited]))}


def needs_suite_plugins() -> pytest.MarkDecorator:
    """Skips a test where they are not, unless REQUIRE_CORPORA says that they must be."""
    absent = not INSTALLED.exists()
    if absent and os.environ.get("REQUIRE_CORPORA"):
        raise RuntimeError(f"{INSTALLED.name} is not here, and REQUIRE_CORPORA demands it")
    return pytest.mark.skipif(absent, reason="not here: python -m tests.support.suite_plugins")


def main() -> None:
    if INSTALLED.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        where = ("--no-deps", "--only-binary", ":all:", "--target", f"{folder}/installed")
        try:
            subprocess.run((*pip, *where, *PACKAGES), stdin=subprocess.DEVNULL, check=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"they cannot be installed: {error}")
        shutil.move(f"{folder}/installed", INSTALLED)


if __name__ == "__main__":
    main()
