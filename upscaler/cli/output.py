"""The output of the commands: progress bars, error messages, and the last line of a failure.

Results go to standard output and everything else to standard error, so that results can be piped.
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
"""The options for the API's fields, as prefixes of error messages."""


def fail(text: str, status: int) -> int:
    """Print why the command failed; return `status`."""
    print(f"upscaler: {text}", file=sys.stderr, flush=True)
    return status


def error_text(error: Exception) -> str:
    """The message of an error, with the options' names in place of the API's fields."""
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
            scaled = unit == "B"  # bytes are shown as kB and MB
            bars.append(tqdm(desc=title, total=total, unit=unit, unit_scale=scaled, disable=quiet))
        bars[0].update(done - bars[0].n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
