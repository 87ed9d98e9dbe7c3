"""The output of the commands: progress bars, error messages, and the last line of a failure.

Results go to standard output and everything else to standard error, so that results can be piped.
Names of files are printed as `files.printable` makes them: what a stranger calls his file must not
move the cursor of a terminal, or end a line in a log.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from upscaler.errors import InvalidRequest, UpscalerError
from upscaler.file_inputs import STDIO
from upscaler.files import STDOUT, atomic_write, printable

if TYPE_CHECKING:
    from tqdm import tqdm

OPTIONS: Final = {
    "scale": "--scale: ",
    "output_image_width": "--width: ",
    "output_image_height": "--height: ",
}
"""The options for the API's fields, as prefixes of error messages."""


def say(text: str) -> None:
    """Print a line of the result, at once, so that a reader of a pipe sees it.

    Raises OSError on standard output if it cannot be written, BrokenPipeError if nobody reads it.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from error


@contextmanager
def open_result(path: Path) -> Iterator[BinaryIO]:
    """Open a result to write, which appears when the block ends without an error, as a whole.

    `path` is a file, or STDIO. Raises OSError with its path as filename, or STDOUT.
    """
    if path != STDIO:
        with atomic_write(path) as file:
            yield file
        return
    # In memory until then: whoever reads a pipe could take a part for the whole.
    whole = BytesIO()
    yield whole
    left = whole.getbuffer()
    try:
        while left:  # without a buffer (PYTHONUNBUFFERED) a call may write only a part
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from error


def note(text: str) -> None:
    """Print a line that is no result."""
    if sys.stderr:  # None if it is closed; `print` would take standard output for it
        print(f"upscaler: {text}", file=sys.stderr, flush=True)


def fail(text: str, status: int) -> int:
    """Print why the command failed; return `status`."""
    note(text)
    return status


def error_text(error: Exception) -> str:
    """The message of an error, with the options' names in place of the API's fields."""
    if isinstance(error, InvalidRequest):
        # pydantic's messages are about the input of an API.
        return "; ".join(
            OPTIONS.get(str(e.loc[-1]), "") + e.msg.replace("Input should be", "must be", 1)
            for e in error.errors
        )
    if isinstance(error, UpscalerError):
        return printable(str(error))
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return printable(text)
    return printable(f"{type(error).__name__}: {error}")


@contextmanager
def progress_bar(
    title: str, unit: str, *, quiet: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A callback for (done, total) that draws a progress bar on standard error.

    The bar appears with the first call: a download that is not needed shows none.
    """
    bars: list[tqdm[Any]] = []

    def update(done: int, total: int) -> None:
        if not bars:
            from tqdm import tqdm

            scaled = unit == "B"  # bytes are shown as kB and MB
            bars.append(
                tqdm(
                    desc=printable(title),
                    total=total,
                    unit=unit,
                    unit_scale=scaled,
                    disable=quiet or not sys.stderr,
                    leave=None,  # of several at the same time the first alone
                )
            )
        bars[0].update(done - bars[0].n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
