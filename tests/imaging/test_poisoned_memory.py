"""Nothing is given out that was never written: what comes of an input is the same in any memory.

Only glibc can fill the memory that it hands out, so only there this can be seen.
"""

import platform
from typing import Any

import numpy as np
import pytest
import simplejpeg

from tests.support.hostile_jpegs import complaint_and_end
from tests.support.image_cases import SMALL
from tests.support.image_files import Samples, outcome, saved
from tests.support.poisoned_memory import LIBRARIES, lines
from upscaler.imaging import jpeg
from upscaler.imaging.jpeg_segments import strip_segments

pytestmark = pytest.mark.dev

COUNT = 400
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc poisons memory")


@pytest.fixture(scope="module")
def said() -> list[list[str]]:
    return lines(LIBRARIES, range(COUNT))


@pytest.mark.slow
@needs_glibc
@pytest.mark.parametrize("library", LIBRARIES)
def test_results_of_damaged_inputs_do_not_depend_on_old_memory(
    library: str, said: list[list[str]]
) -> None:
    first, second = ([line for line in each if line.startswith(f"{library} ")] for each in said)
    assert len(first) == COUNT
    assert first == second
    results = {line.split(maxsplit=2)[2] for line in first}
    assert any(not result[0].isalpha() for result in results), "nothing is read"
    if library not in ("encoders", "pillow"):
        assert any(result[0].isalpha() for result in results), "nothing is refused"


def test_a_jpeg_of_which_a_row_is_not_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = simplejpeg.decode_jpeg

    def all_but_a_row(*args: Any, buffer: Samples, **options: Any) -> None:
        before = buffer[7].copy()
        decode(*args, buffer=buffer, **options)
        buffer[7] = before

    data = saved(SMALL, "JPEG")
    assert isinstance(outcome(data), np.ndarray)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", all_but_a_row)
    assert outcome(data) == "image_damaged"


@needs_glibc
def test_a_jpeg_with_a_fatal_error_shows_no_other_image() -> None:
    data = complaint_and_end()
    plain = jpeg.coded(strip_segments(data))
    leaked = set()
    for _ in range(100):
        np.full(SMALL.shape, 0xA7, np.uint8)  # another's image, a moment ago
        leaked.add(b"\xa7" * 50 in simplejpeg.decode_jpeg(plain, strict=False).tobytes())
        np.full(SMALL.shape, 0xA7, np.uint8)
        assert outcome(data) == "image_damaged"
    assert True in leaked, "simplejpeg does it no more: then this is a test of nothing"
