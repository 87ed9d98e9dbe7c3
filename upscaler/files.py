"""The files that a command reads and writes: regular files only, and written atomically."""

import errno
import io
import os
import stat
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from upscaler.api.limits import MAX_INPUT_PX
from upscaler.errors import FileRefused

MAX_FILE_BYTES: Final = 2 * MAX_INPUT_PX**2 * 4 * 2
"""The largest input: twice an uncompressed image of the largest size, with alpha and 16 bits."""
STALE_AFTER_S: Final = 24 * 60 * 60
"""No file is written for so long: an older partial file was left by a process that was killed."""
STDOUT: Final = "standard output"
"""The `filename` of an OSError on standard output."""
UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""The categories of Unicode that `printable` escapes."""
KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What is not a regular file, by its type in `st_mode`."""


def read_image_file(source: Path, most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read an input. Raises FileRefused if it cannot be read, is too large or no regular file."""
    try:
        # Known beforehand, unless it grows meanwhile: a file that is refused is not read.
        large = source.stat().st_size > most_bytes
        data = b"" if large else read_file(source, most_bytes + 1)
    except OSError as error:
        raise FileRefused(str(source), error.strerror or "it cannot be read") from error
    if large or len(data) > most_bytes:
        raise FileRefused(str(source), _too_large(most_bytes))
    return data


def read_stdin(most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read an input from standard input, which may be a pipe.

    Raises FileRefused if it is a terminal or closed, cannot be read or is too large.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise FileRefused("standard input", "there is no image in it: pipe one into this command")
    try:
        data = sys.stdin.buffer.read(most_bytes + 1)
    except OSError as error:  # such as a folder
        raise FileRefused("standard input", error.strerror or "it cannot be read") from error
    if len(data) > most_bytes:
        raise FileRefused("standard input", _too_large(most_bytes))
    return data


def _too_large(most_bytes: int) -> str:
    if most_bytes == MAX_FILE_BYTES:
        return f"no image of {MAX_INPUT_PX}x{MAX_INPUT_PX} pixels is as large as this file"
    return f"it is larger than the {most_bytes:,} bytes of memory that may be taken: allow it more"


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
    error it is removed. Several processes may replace the same file at once. An OSError of the
    writing has `path` as its `filename`, never the temporary name.
    """
    # In the same folder: only within a file system is a rename atomic.
    partial = path.with_name(f".{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        # A write that fails, as on a full disk, names no file at all.
        ours = error.filename is None or Path(error.filename) in (partial, *path.parents)
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # the folder may be gone
            partial.unlink()


def remove_stale_parts(folder: Path) -> None:
    """Remove partial files that killed processes have left in `folder`."""
    for partial in folder.glob(f".{'[0-9a-f]' * 32}.part"):
        with suppress(FileNotFoundError):  # another process has finished or removed it
            if time.time() - partial.stat().st_mtime > STALE_AFTER_S:
                partial.unlink()


def nearest_folder(folder: Path) -> Path:
    """`folder`, or the closest of the folders around it that is there, be it a folder or not."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def identity(path: Path) -> tuple[int, int] | Path:
    """A key that is equal for two paths to the same file, be it by a link or another spelling."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return path.resolve()
    return stat.st_dev, stat.st_ino


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer does not block."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has none


def printable(text: str) -> str:
    """`text` on one line, with escapes for what a terminal would not show but do.

    Escaped are control and format characters, among them those that reverse the direction of
    writing, line separators, and the bytes that are not in the encoding of file names.
    """
    return "".join(
        _escape(char) if unicodedata.category(char) in UNPRINTABLE else char for char in text
    )


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is not in its encoding: PEP 383
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def escape_unencodable() -> None:
    """Let standard output and error escape what their encoding lacks, and not raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def flushed_stdout() -> Iterator[None]:
    """Flush standard output at the end of the block, also after `--help`, which raises SystemExit.

    Raises OSError on STDOUT, BrokenPipeError if the reader is gone, as behind `head`. Python's own
    flush at exit would print that error, and change the exit status to 120.
    """
    try:
        yield
    finally:
        try:
            if sys.stdout:  # None if it is closed
                sys.stdout.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from error


def discard_stdout() -> None:
    """Send standard output nowhere from now on, with what it has not written yet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
