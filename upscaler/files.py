"""Which files a command reads and writes; only regular files, written whole or not at all."""

import errno
import glob
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from upscaler.api.limits import MAX_INPUT_PX
from upscaler.errors import FileRefused
from upscaler.formats import ImageEncoding

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""What is taken from a folder. A file named on its own may be called anything."""
ENCODINGS: Final = {suffix: encoding for encoding in ImageEncoding for suffix in encoding.suffixes}
"""The encoding that the name of a result asks for."""
DEFAULT_FOLDER: Final = Path("upscaled")
MAX_FILE_BYTES: Final = 2 * MAX_INPUT_PX**2 * 4 * 2
"""Twice what the largest input has uncompressed, with four samples of two bytes: 64 MiB."""

LEFT_AFTER_S: Final = 24 * 60 * 60
"""For so long nobody writes a file: what is older was left by a process that was killed."""


KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What can have the name of a file and is none."""


@dataclass(frozen=True)
class FileJob:
    """One picture to enlarge: from `source`, which is never written to, to `target`.

    `comparison` is where the before/after picture goes, if one is wanted.
    """

    source: Path
    target: Path
    comparison: Path | None = None


@dataclass(frozen=True)
class Batch:
    """What a command is to do, and the inputs it is not going to, each with the reason."""

    jobs: Sequence[FileJob]
    encoding: ImageEncoding
    refused: Sequence[FileRefused]


def plan_files(
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
            raise FileRefused(str(folder), "that is one file, for more than one image")
    encoding = encoding or ImageEncoding.PNG

    jobs = []
    taken = {identity(source): f"the input {source}" for source in sources}
    for source in sources:
        target = folder if one_file else folder / f"{source.stem}{encoding.suffixes[0]}"
        comparison = target.with_stem(f"{target.stem}-before-after") if before_after else None
        places = [identity(path) for path in (target, comparison) if path]
        rivals = [taken[place] for place in places if place in taken]
        if rivals:
            refused.append(FileRefused(str(source), f"its result would overwrite {rivals[0]}"))
        else:
            taken |= dict.fromkeys(places, f"the result of {source}")
            jobs.append(FileJob(source, target, comparison))
    return Batch(jobs, encoding, refused)


def read_image_file(source: Path) -> bytes:
    """The bytes of an input. Raises FileRefused if it cannot be read, or is no file any more."""
    try:
        data = read_file(source, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileRefused(str(source), error.strerror or "it cannot be read") from error
    if len(data) > MAX_FILE_BYTES:
        raise FileRefused(
            str(source),
            f"no picture of {MAX_INPUT_PX}x{MAX_INPUT_PX} pixels is as large as this file",
        )
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
            refused.append(FileRefused(text, "there is no such image"))
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


def read_file(path: Path, most_bytes: int) -> bytes:
    """What is in a file, or as much of it as `most_bytes`.

    It is looked at when it is open already: whatever takes its place meanwhile is not read. Raises
    OSError for what is no file: a pipe may never be written to, and a device may have no end.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if other := KINDS.get(stat.S_IFMT(found.st_mode)):
            raise OSError(errno.EINVAL, f"that is {other} and not a file", str(path))
        # Some file systems do not know how much is in a file, and say 0.
        return file.read(min(found.st_size or most_bytes, most_bytes))


def obstacle(path: Path) -> str | None:
    """What is under a name in place of a file that can be read; None if there is such a file."""
    try:
        other = KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there"
    return other or (None if os.access(path, os.R_OK) else "not yours to read")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends without an error.

    Until then it has a name of its own beside `path`, whose folders are made as needed; after an
    error nothing of it is left. Several processes may replace the same file at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed processes have left in `folder` of the files that they were writing."""
    for partial in folder.glob(f".{'[0-9a-f]' * 32}.part"):
        with suppress(FileNotFoundError):  # somebody else's, who has finished, or sweeps as well
            if time.time() - partial.stat().st_mtime > LEFT_AFTER_S:
                partial.unlink()


def identity(path: Path) -> tuple[int, int] | Path:
    """What two paths to the same file have in common, be it a link or another spelling."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return path.resolve()
    return stat.st_dev, stat.st_ino


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, or a pipe although nobody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)
