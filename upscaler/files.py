"""Files that are read without surprises, and written whole or not at all."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

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


def read(path: Path, most_bytes: int) -> bytes:
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
def replacing(path: Path) -> Iterator[BinaryIO]:
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


def sweep(folder: Path) -> None:
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
