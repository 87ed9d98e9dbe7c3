"""What native code makes of damaged inputs, in a process whose memory is full of one value.

    MALLOC_PERTURB_=85 python -m tests.support.poisoned_memory START COUNT LIBRARY...

prints a line for each input: the library, the input's number, and what came of it, with the SHA-256
of what was given out. glibc fills all memory that it hands out by that variable, and before each
input arrays of the same value are made and freed. So whatever is given out and was never written
differs from one value to another.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import numpy as np
import pybase64

from tests.imaging.test_truncated_images import COLOURS, FILES, HUES, jpeg
from tests.support.damage import damaged
from tests.support.hostile_images import CASES
from tests.support.image_files import noise, outcome
from tests.support.jpeg_encoder import encode as encode_jpeg
from tests.support.jpeg_encoder import in_scans
from upscaler.formats import ImageEncoding
from upscaler.imaging import encode, jpeg_writer, png, png_filters, resize
from upscaler.imaging._zlib import zlib
from upscaler.imaging.pixels import Pixels
from upscaler.service import responses

VALUES: Final = ("85", "170")
"""Of the memory; glibc hands out their complements."""

Outcome = Pixels | bytes | str


def told(result: Outcome) -> str:
    """The outcome of an input as a line."""
    if isinstance(result, str):
        return result
    shape = len(result) if isinstance(result, bytes) else result.shape
    return f"{shape} {hashlib.sha256(bytes(result)).hexdigest()}"


def or_error(work: Callable[[], Any]) -> Outcome:
    """The result of a function, or the type of the error that it raises."""
    try:
        result: Outcome = work()
    except Exception as error:  # whatever a library raises
        return type(error).__name__
    return result


WHOLE: Final = (
    *FILES.values(),
    jpeg(restart_marker_rows=1),
    jpeg(restart_marker_blocks=1),
    jpeg(progressive=True, restart_marker_blocks=7),
    encode_jpeg(COLOURS, [(3, 1), (1, 1), (1, 1)], interval=7),
    encode_jpeg(COLOURS, [(4, 2), (1, 1), (1, 1)], script=in_scans(3)),
)


def pictures(kind: bytes, random: Random) -> Outcome:
    """A picture that begins with `kind`."""
    data = random.choice([data for data in WHOLE if data.startswith(kind)])
    return outcome(damaged(data, random))


def inflated(random: Random) -> Outcome:
    """Of a stream, as far as is asked for, in parts of any length."""
    stream = damaged(zlib.compress(noise(200, 100).tobytes() + bytes(5000), 1), random)
    at = random.randrange(1, len(stream) + 2)
    reader = png.InflateReader(iter((memoryview(stream)[:at], memoryview(stream)[at:])))
    parts = random.choice(((20_000, 4000), (random.randint(1, 25_000),)))

    def read() -> bytes:
        return b"".join(map(reader.read, parts))

    return or_error(read)


def unfiltered(random: Random) -> Outcome:
    """Rows with filters that are defined, and some that are not."""
    pixel_bytes = random.choice((1, 2, 3, 4, 6, 8))
    width = pixel_bytes * random.randint(1, 60)
    most = random.choice((4, 4, 5, 255))
    rows = (bytes([random.randint(0, most)]) + random.randbytes(width) for _ in range(40))
    return or_error(
        lambda: png_filters.unfiltered(b"".join(rows), random.randbytes(width), pixel_bytes)
    )


def base64(random: Random) -> Outcome:
    text = damaged(pybase64.b64encode(random.randbytes(random.randint(0, 3000))), random)
    return or_error(lambda: pybase64.b64decode(text, validate=True))


def encoded(random: Random) -> Outcome:
    """A file of each kind, in one of the ways that there are, and its base64."""
    pixels = random.choice((COLOURS, HUES, noise(70, 33, 3), noise(1, 1, 4)))
    style = random.choice((jpeg_writer.DEFAULT_JPEG, jpeg_writer.SMALL))
    kind = random.choice(tuple(ImageEncoding))
    file = encode.encode_strips([pixels], len(pixels), kind, style)
    return b"".join(responses.in_json(list(file)))


def resized(random: Random) -> Outcome:
    pixels = random.choice((COLOURS, HUES))
    return resize.resize(pixels, (random.randint(1, 300), random.randint(1, 300)))


LIBRARIES: Final[dict[str, Callable[[Random], Outcome]]] = {
    "png": lambda random: pictures(b"\x89PNG", random),
    "jpeg": lambda random: pictures(b"\xff\xd8", random),
    "webp": lambda random: pictures(b"RIFF", random),
    "isal": inflated,
    "libspng": unfiltered,
    "pybase64": base64,
    "encoders": encoded,
    "pillow": resized,
}
"""What is done to an input, by whose library."""
HOSTILE: Final = "hostile"
"""Stands for hostile pictures as they are, one for each number."""


def main() -> None:
    start, count, *libraries = sys.argv[1:]
    value = 255 - int(os.environ["MALLOC_PERTURB_"])
    for library in libraries:
        for number in range(int(start), int(start) + int(count)):
            for side in (120, 256, 300):
                np.full((side, side, 3), value, np.uint8)
            result = (
                outcome(CASES[number].make())
                if library == HOSTILE
                else LIBRARIES[library](Random(number))
            )
            sys.stdout.write(f"{library} {number} {told(result)}\n")


def lines(libraries: Iterable[str], numbers: range) -> list[list[str]]:
    """What processes print, each with another value in its memory, at the same time."""
    command = [sys.executable, "-m", __name__, str(numbers.start), str(len(numbers)), *libraries]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MALLOC_PERTURB_": value}
        )
        for value in VALUES
    ]
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(VALUES)
    return said


if __name__ == "__main__":
    main()
