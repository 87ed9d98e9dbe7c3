"""Files that are whole or not there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

LEFT_AFTER_S: Final = 24 * 60 * 60
"""For so long nobody writes a file: what is older was left by a process that was killed."""


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
