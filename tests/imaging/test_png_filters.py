"""The filters of PNG, undone by what the specification says, and by libspng."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from upscaler.imaging import png_filters
from upscaler.imaging.png_filters import unfiltered

PIXEL_BYTES = (1, 2, 3, 4, 6, 8)


def by_definition(lines: NDArray[np.uint8], above: bytes, pixel_bytes: int) -> list[list[int]]:
    """Byte by byte, as PNG (third edition, 9.2 and 9.4) has it."""
    rows = [list(above)]
    for number, *filtered in lines.tolist():
        up, row = rows[-1], list[int]()
        for i, byte in enumerate(filtered):
            a, c = (row[i - pixel_bytes], up[i - pixel_bytes]) if i >= pixel_bytes else (0, 0)
            b = up[i]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row.append((byte + (0, a, b, (a + b) // 2, nearest)[number]) % 256)
        rows.append(row)
    return rows[1:]


def some_lines(rows: int, row_bytes: int, seed: int, filters: tuple[int, ...]) -> NDArray[np.uint8]:
    chosen = np.random.default_rng(seed)
    lines = chosen.integers(0, 256, (rows, 1 + row_bytes), np.uint8)
    lines[:, 0] = chosen.choice(filters, rows)
    return lines


@pytest.mark.parametrize("pixel_bytes", PIXEL_BYTES)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_filter_is_undone(pixel_bytes: int, rows: int, columns: int, seed: int) -> None:
    row_bytes = columns * pixel_bytes
    lines = some_lines(rows, row_bytes, seed, (0, 1, 2, 3, 4))
    above = np.random.default_rng(seed).bytes(row_bytes)
    expected = by_definition(lines, above, pixel_bytes)
    assert unfiltered(lines.tobytes(), above, pixel_bytes).tolist() == expected


@pytest.mark.parametrize("number", [5, 6, 255])
@pytest.mark.parametrize("pixel_bytes", PIXEL_BYTES)
def test_other_filters_are_refused(pixel_bytes: int, number: int) -> None:
    lines = some_lines(4, 5 * pixel_bytes, 1, (0,))
    lines[2, 0] = number
    with pytest.raises(RuntimeError, match="filter"):
        unfiltered(lines.tobytes(), bytes(5 * pixel_bytes), pixel_bytes)


@pytest.mark.parametrize("row_bytes", [65_532, 65_533, 65_534, 131_067, 131_068])
def test_rows_around_the_size_of_a_block_are_complete(row_bytes: int) -> None:
    """Around as much as one block of the file can have, and two: 65,535 bytes each."""
    lines = some_lines(1, row_bytes, row_bytes, (0,))
    rows = unfiltered(lines.tobytes(), bytes(row_bytes), 1)
    assert np.array_equal(rows, lines[:, 1:])


@pytest.mark.parametrize("size", [0, 1, 65_534, 65_535, 65_536, 131_070, 200_000])
def test_zlib_reads_stored_blocks(size: int) -> None:
    """Two texts, one behind the other; zlib compares the checksum."""
    contents = [np.random.default_rng(size).bytes(each) for each in (size, 3)]
    stream = zlib.decompressobj()
    assert stream.decompress(b"".join(png_filters._stored(*contents))) == b"".join(contents)
    assert stream.eof
    assert not stream.unused_data
