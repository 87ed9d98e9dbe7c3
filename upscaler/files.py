"""The files that a command reads and writes: regular files only, and written atomically."""

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
from upscaler.formats import FileFormat, ImageEncoding

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""The files of a folder that are read. A file that is given by name may have any suffix."""
ENCODINGS: Final = {suffix: encoding for encoding in ImageEncoding for suffix in encoding.suffixes}
"""The format of a result, by the suffix of its name."""
DEFAULT_FOLDER: Final = Path("upscaled")
MAX_FILE_BYTES: Final = 2 * MAX_INPUT_PX**2 * 4 * 2
"""The largest input: twice an uncompressed image of the largest size, with alpha and 16 bits."""
STALE_AFTER_S: Final = 24 * 60 * 60
"""No file is written for so long: an older partial file was left by a process that was killed."""
KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What is not a regular file, by its type in `st_mode`."""


@dataclass(frozen=True)
class FileJob:
    """One image to upscale, from `source` to `target`.

    `comparison` is the path of the before/after image, if one is wanted.
    """

    source: Path
    target: Path
    comparison: Path | None = None


@dataclass(frozen=True)
class Batch:
    """The jobs of a command, and the inputs that it refuses, each with the reason."""

    jobs: Sequence[FileJob]
    encoding: FileFormat
    refused: Sequence[FileRefused]


def plan_files(
    inputs: Iterable[str],
    output: Path | None,
    encoding: FileFormat | None,
    *,
    before_after: bool = False,
    formats: Iterable[FileFormat] = tuple(ImageEncoding),
) -> Batch:
    """Decide which file is written where, before any work is done.

    `inputs` are files, folders (the images directly in them) and globs. `output` is the file of the
    only result if it has a suffix, else a folder, by default `upscaled`. With `before_after` each
    result has a comparison beside it. `formats` are those that the name of a file may ask for. No
    input is overwritten, and no two results have the same file. Raises FileRefused if `output`
    cannot be written as asked.
    """
    sources, refused = _collect(inputs)
    folder = output or DEFAULT_FOLDER
    one_file = bool(folder.suffix) and not folder.is_dir()
    _check_output(folder, folder.parent if one_file else folder)
    if one_file:
        encoding = _encoding_by_name(folder, encoding, formats)
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


def read_image_file(source: Path, most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read an input. Raises FileRefused if it cannot be read, is too large or no regular file."""
    try:
        # Known beforehand, unless it grows meanwhile: a file that is refused is not read.
        large = source.stat().st_size > most_bytes
        data = b"" if large else read_file(source, most_bytes + 1)
    except OSError as error:
        raise FileRefused(str(source), error.strerror or "it cannot be read") from error
    if large or len(data) > most_bytes:
        reason = f"no image of {MAX_INPUT_PX}x{MAX_INPUT_PX} pixels is as large as this file"
        if most_bytes != MAX_FILE_BYTES:
            reason = f"only {most_bytes / 2**20:,.0f} MiB of memory may be taken, and it is larger"
        raise FileRefused(str(source), reason)
    return data


def _collect(inputs: Iterable[str]) -> tuple[list[Path], list[FileRefused]]:
    """The files that `inputs` name, each once, and the inputs that name none."""
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
    """The files that an argument names: itself, a folder's images, or the matches of a glob."""
    # Unlike Path's methods, these return False for a name that is too long, and do not raise.
    if os.path.isdir(text):  # noqa: PTH112
        return sorted(
            child
            for child in Path(text).iterdir()
            if child.suffix.lower() in IMAGE_SUFFIXES and child.is_file()
        )
    if os.path.isfile(text):  # noqa: PTH113
        return [Path(text)]
    matches = glob.glob(text, recursive=True)  # noqa: PTH207  Path's takes no absolute pattern
    return sorted(Path(match) for match in matches if os.path.isfile(match))  # noqa: PTH113


def _check_output(output: Path, folder: Path) -> None:
    """Raise FileRefused on `output` unless `folder` is writable or can be created."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise FileRefused(str(output), f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileRefused(str(output), f"{there} is not yours to write to")


def _encoding_by_name(
    path: Path, asked: FileFormat | None, formats: Iterable[FileFormat]
) -> FileFormat:
    """The format of the result `path`, by its suffix; raises FileRefused if `asked` differs."""
    by_suffix = {suffix: name for name in formats for suffix in name.suffixes}
    named = by_suffix.get(path.suffix.lower())
    if named is None:
        raise FileRefused(str(path), f"results are called {', '.join(by_suffix)}")
    if asked not in (None, named):
        raise FileRefused(str(path), f"that is not the name of a {asked} file")
    return named


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a file, up to `most_bytes`.

    Raises OSError for anything but a regular file: a pipe may never be written to, and a device may
    have no end.
    """
    with open(path, "rb", opener=_open_nonblocking) as file:
        # Of the open file, not of the path, where something else may be by now.
        found = os.fstat(file.fileno())
        if other := KINDS.get(stat.S_IFMT(found.st_mode)):
            raise OSError(errno.EINVAL, f"that is {other} and not a file", str(path))
        # Some file systems, such as /proc, do not know the size of a file and report 0.
        return file.read(min(found.st_size or most_bytes, most_bytes))


def obstacle(path: Path) -> str | None:
    """Why `path`, a name that is in use, cannot be read as a file; None if it can."""
    try:
        other = KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there"
    return other or (None if os.access(path, os.R_OK) else "not yours to read")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, which replaces `path` when the block ends without an error.

    Until then it has a temporary name in the same folder, which is created as needed; after an
    error it is removed. Several processes may replace the same file at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: only within a file system is a rename atomic.
    partial = path.with_name(f".{uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_stale_parts(folder: Path) -> None:
    """Remove partial files that killed processes have left in `folder`."""
    for partial in folder.glob(f".{'[0-9a-f]' * 32}.part"):
        with suppress(FileNotFoundError):  # another process has finished or removed it
            if time.time() - partial.stat().st_mtime > STALE_AFTER_S:
                partial.unlink()


def identity(path: Path) -> tuple[int, int] | Path:
    """A key that is equal for two paths to the same file, be it by a link or another spelling."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return path.resolve()
    return stat.st_dev, stat.st_ino


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer does not block."""
    return os.open(path, flags | os.O_NONBLOCK)
