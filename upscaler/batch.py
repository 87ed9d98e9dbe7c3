"""Which pictures a command is to read, and where the result of each goes."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaler.errors import FileRefused
from upscaler.files import identity, read
from upscaler.formats import ImageEncoding

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""What is taken from a folder. A file named on its own may be called anything."""
ENCODINGS: Final = {
    ".png": ImageEncoding.PNG,
    ".jpg": ImageEncoding.JPEG,
    ".jpeg": ImageEncoding.JPEG,
}
"""The encoding that the name of a result asks for."""
DEFAULT_FOLDER: Final = Path("upscaled")
MAX_FILE_BYTES: Final = 64 * 2**20
"""Twice what the largest input has uncompressed, with 16 bits a sample and alpha."""


@dataclass(frozen=True)
class Job:
    """One picture to enlarge: from `source`, which is never written to, to `target`.

    `comparison` is where the before/after picture goes, if one is wanted.
    """

    source: Path
    target: Path
    comparison: Path | None = None


@dataclass(frozen=True)
class Batch:
    """What a command is to do, and the inputs it is not going to, each with the reason."""

    jobs: Sequence[Job]
    encoding: ImageEncoding
    refused: Sequence[FileRefused]


def plan(
    inputs: Iterable[str],
    output: Path | None,
    encoding: ImageEncoding | None,
    *,
    before_after: bool = False,
) -> Batch:
    """Which file goes where, settled before any work is done.

    `inputs` are files, folders (the pictures in them, not those of folders inside) and globs.
    `output` is the file of the one result if its name has a suffix, else a folder, by default
    `upscaled`. With `before_after` each result has a comparison beside it. No input is overwritten
    and no two files that are written are the same. Raises FileRefused if `output` cannot be what
    it is asked to be.
    """
    sources, refused = _collect(inputs)
    folder = output or DEFAULT_FOLDER
    one_file = bool(folder.suffix) and not folder.is_dir()
    _check_output(folder, folder.parent if one_file else folder)
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
        comparison = target.with_stem(f"{target.stem}-before-after") if before_after else None
        places = [identity(path) for path in (target, comparison) if path]
        rivals = [taken[place] for place in places if place in taken]
        if rivals:
            refused.append(FileRefused(str(source), f"its result would overwrite {rivals[0]}"))
        else:
            taken |= dict.fromkeys(places, f"the result of {source}")
            jobs.append(Job(source, target, comparison))
    return Batch(jobs, encoding, refused)


def contents(source: Path) -> bytes:
    """The bytes of an input. Raises FileRefused if it cannot be read, or is no file any more."""
    try:
        data = read(source, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileRefused(str(source), error.strerror or "it cannot be read") from error
    if len(data) > MAX_FILE_BYTES:
        raise FileRefused(str(source), "no picture of 2048x2048 pixels is as large as this file")
    return data


def _collect(inputs: Iterable[str]) -> tuple[list[Path], list[FileRefused]]:
    """The files that `inputs` stand for, each once, and the inputs that stand for none."""
    sources: dict[Path, Path] = {}
    refused = []
    for text in inputs:
        try:
            found = _expand(text)
        except OSError as error:
            refused.append(FileRefused(text, error.strerror or "it cannot be read"))
            continue
        for source in found:
            sources.setdefault(source.parent.resolve() / source.name, source)
        if not found:
            refused.append(FileRefused(text, "there is no such picture"))
    return list(sources.values()), refused


def _expand(text: str) -> list[Path]:
    """The files that an argument stands for: itself, a folder's pictures, or a glob's matches."""
    # Unlike Path's, these tests take a name that is too long for one that is not there.
    if os.path.isdir(text):  # noqa: PTH112
        return sorted(
            child
            for child in Path(text).iterdir()
            if child.suffix.lower() in PICTURE_SUFFIXES and child.is_file()
        )
    if os.path.isfile(text):  # noqa: PTH113
        return [Path(text)]
    matches = glob.glob(text, recursive=True)  # noqa: PTH207  Path's takes no absolute pattern
    return sorted(Path(match) for match in matches if os.path.isfile(match))  # noqa: PTH113


def _check_output(output: Path, folder: Path) -> None:
    """Raise FileRefused on `output` unless `folder` is, or can become, one to write to."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise FileRefused(str(output), f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileRefused(str(output), f"{there} is not yours to write to")


def _encoding_by_name(path: Path, asked: ImageEncoding | None) -> ImageEncoding:
    """The encoding of a result called `path`; raises FileRefused if it is not what was asked."""
    named = ENCODINGS.get(path.suffix.lower())
    if named is None:
        raise FileRefused(str(path), f"results are called {', '.join(ENCODINGS)}")
    if asked not in (None, named):
        raise FileRefused(str(path), f"that is not the name of a {asked} file")
    return named
