"""Which pictures a command is to read, and where the result of each goes."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaler.contract import ImageEncoding
from upscaler.errors import FileRefused
from upscaler.files import identity

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""What is taken from a folder. A file named on its own may be called anything."""
ENCODINGS: Final = {
    ".png": ImageEncoding.PNG,
    ".jpg": ImageEncoding.JPEG,
    ".jpeg": ImageEncoding.JPEG,
}
"""The encoding that the name of a result asks for."""
DEFAULT_FOLDER: Final = Path("upscaled")


@dataclass(frozen=True)
class Job:
    """One picture to enlarge: from `source`, which is never written to, to `target`."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Batch:
    """What a command is to do, and the inputs it is not going to, each with the reason."""

    jobs: Sequence[Job]
    encoding: ImageEncoding
    refused: Sequence[FileRefused]


def plan(inputs: Iterable[str], output: Path | None, encoding: ImageEncoding | None) -> Batch:
    """Which file goes where, settled before any work is done.

    `inputs` are files, folders (the pictures in them, not those of folders inside) and globs.
    `output` is the file of the one result if its name has a suffix, else a folder, by default
    `upscaled`. No input is overwritten and no two results share a file. Raises FileRefused if
    `output` cannot be what it is asked to be.
    """
    sources: dict[Path, None] = {}
    refused = []
    for text in inputs:
        found = _expand(text)
        sources |= dict.fromkeys(found)
        if not found:
            refused.append(FileRefused(text, "there is no such picture"))
    folder = output or DEFAULT_FOLDER
    one_file = bool(folder.suffix) and not folder.is_dir()
    if one_file:
        encoding = _encoding_by_name(folder, encoding)
        if len(sources) + len(refused) > 1:
            raise FileRefused(str(folder), "that is one file, for more than one picture")
    encoding = encoding or ImageEncoding.PNG
    suffix = "png" if encoding is ImageEncoding.PNG else "jpg"

    jobs = []
    taken = {identity(source): f"the input {source}" for source in sources}
    for source in sources:
        target = folder if one_file else folder / f"{source.stem}.{suffix}"
        place = identity(target)
        if place in taken:
            refused.append(FileRefused(str(source), f"its result would overwrite {taken[place]}"))
        else:
            taken[place] = f"the result of {source}"
            jobs.append(Job(source, target))
    return Batch(jobs, encoding, refused)


def _expand(text: str) -> list[Path]:
    """The files that an argument stands for: itself, a folder's pictures, or a glob's matches."""
    path = Path(text)
    if path.is_dir():
        return sorted(
            child
            for child in path.iterdir()
            if child.suffix.lower() in PICTURE_SUFFIXES and child.is_file()
        )
    if path.exists():
        return [path]
    matches = map(Path, glob.glob(text, recursive=True))  # noqa: PTH207  Path's is relative only
    return sorted(match for match in matches if match.is_file())


def _encoding_by_name(path: Path, asked: ImageEncoding | None) -> ImageEncoding:
    """The encoding of a result called `path`; raises FileRefused if it is not what was asked."""
    named = ENCODINGS.get(path.suffix.lower())
    if named is None:
        raise FileRefused(str(path), f"results are called {', '.join(ENCODINGS)}")
    if asked not in (None, named):
        raise FileRefused(str(path), f"that is not the name of a {asked} file")
    return named
