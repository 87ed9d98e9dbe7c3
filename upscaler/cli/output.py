"""What the commands print: progress bars, the wording of errors, and the line that ends a failure.

Results go to standard output, all else to standard error, so that results can be piped.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tqdm import tqdm

from upscaler.errors import InvalidRequest, UpscalerError

OPTIONS: Final = {
    "scale": "--scale: ",
    "output_image_width": "--width: ",
    "output_image_height": "--height: ",
}
"""What the API's fields are called on the command line, as it begins an error message."""


def fail(text: str, status: int) -> int:
    """Print why the command failed; return the exit status that was passed in."""
    print(f"upscaler: {text}", file=sys.stderr, flush=True)
    return status


def error_text(error: Exception) -> str:
    """The message of an error, with the API's fields called by the names of the options."""
    if isinstance(error, InvalidRequest):
        return "; ".join(f"{OPTIONS.get(str(e.loc[-1]), '')}{e.msg}" for e in error.errors)
    if isinstance(error, UpscalerError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


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
            scaled = unit == "B"
            bars.append(tqdm(desc=title, total=total, unit=unit, unit_scale=scaled, disable=quiet))
        bars[0].update(done - bars[0].n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
