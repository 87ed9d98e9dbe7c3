"""Write JPEG files that no library writes: any sampling, in any scans, with any restart interval.

By ITU-T T.81. The Huffman codes of a table all have the same length, so the files are large.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Factors = tuple[int, int]
"""Sampling factors, across and down."""

STEP = 4
"""Of all coefficients: the quantization table is flat."""
DC_SYMBOLS = bytes(range(12)), bytes(range(11, -1, -1))
"""Of the two tables, of which the first component has the first, and the others the second."""
_RUNS = bytes((0, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 11))))
AC_SYMBOLS = _RUNS, _RUNS[::-1]
ZIGZAG = sorted(range(64), key=lambda i: (sum(divmod(i, 8)), divmod(i, 8)[sum(divmod(i, 8)) % 2]))
"""The place in a block of each coefficient in its order in a file (A.3.6)."""
COSINES = np.array(
    [
        [(0.5 if u else 8**-0.5) * np.cos((2 * x + 1) * u * np.pi / 16) for x in range(8)]
        for u in range(8)
    ]
)
"""The one-dimensional transform (A.3.3)."""


@dataclass(frozen=True)
class ScanScript:
    """Which components a scan has, and which of their coefficients and bits (B.2.3)."""

    components: tuple[int, ...]
    first: int = 0
    last: int = 63
    high: int = 0
    low: int = 0


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def in_scans(count: int) -> list[ScanScript]:
    """Progressive: all of the DC coefficients but a bit, that bit, and all others of each."""
    everything = tuple(range(count))
    return [
        ScanScript(everything, 0, 0, 0, 1),
        *(ScanScript((component,), 1, 63) for component in reversed(everything)),
        ScanScript(everything, 0, 0, 1, 0),
    ]


def encode(
    samples: NDArray[Any],
    factors: list[Factors],
    *,
    script: list[ScanScript] | None = None,
    interval: int = 0,
    ids: bytes = b"\1\2\3\4",
    head: bytes = b"",
    most_ones: int = 7,
) -> bytes:
    """A JPEG of `samples`, of shape (height, width, components), which are stored as they are.

    `script` are the scans, by default one of everything; `interval` is in MCUs. `head` follows SOI.
    An interval is filled up to a whole byte with up to `most_ones` ones, as many as there can be.
    """
    height, width, count = samples.shape
    script = script or [ScanScript(tuple(range(count)))]
    progressive = any(scan.last < 63 or scan.first for scan in script)
    largest = max(h for h, _ in factors), max(v for _, v in factors)
    blocks = [_blocks(samples[..., i], factors[i], largest) for i in range(count)]
    parts = b"".join(bytes((ids[i], h << 4 | v, 0)) for i, (h, v) in enumerate(factors))
    out = [
        b"\xff\xd8" + head,
        segment(0xDB, bytes([0, *[STEP] * 64])),
        segment(
            0xC2 if progressive else 0xC1, struct.pack(">BHHB", 8, height, width, count) + parts
        ),
        *(segment(0xC4, bytes((n,)) + _table(DC_SYMBOLS[n], 4)) for n in (0, 1)),
        *(segment(0xC4, bytes((0x10 | n,)) + _table(AC_SYMBOLS[n], 8)) for n in (0, 1)),
        segment(0xDD, struct.pack(">H", interval)),
    ]
    for scan in script:
        named = b"".join(bytes((ids[i], 0x11 * (i > 0))) for i in scan.components)
        bits = bytes((scan.first, scan.last, scan.high << 4 | scan.low))
        out.append(segment(0xDA, bytes((len(scan.components),)) + named + bits))
        units = list(_units(scan, blocks, factors, (width, height), largest))
        step = interval or len(units)
        for number, at in enumerate(range(0, len(units), step)):
            mark = bytes((0xFF, 0xD0 + (number - 1) % 8)) if number else b""
            out.append(mark + coded(units[at : at + step], scan, most_ones))
    return b"".join(out) + b"\xff\xd9"


def _table(symbols: bytes, bits: int) -> bytes:
    counts = [0] * 16
    counts[bits - 1] = len(symbols)
    return bytes(counts) + symbols


def _blocks(plane: NDArray[Any], own: Factors, largest: Factors) -> NDArray[Any]:
    """Quantized blocks, of shape (down, across, 64) in zigzag order, of whole MCUs."""
    right, below = -plane.shape[1] % (8 * largest[0]), -plane.shape[0] % (8 * largest[1])
    padded = np.pad(plane.astype(float), ((0, below), (0, right)), "edge")
    x, y = largest[0] // own[0], largest[1] // own[1]
    down, across = padded.shape[0] // y, padded.shape[1] // x
    small = padded.reshape(down, y, across, x).mean(axis=(1, 3)) - 128
    cut = small.reshape(down // 8, 8, across // 8, 8).swapaxes(1, 2)
    changed: NDArray[Any] = np.round(COSINES @ cut @ COSINES.T / STEP).astype(int)
    return changed.reshape(*cut.shape[:2], 64)[..., ZIGZAG]


Unit = list[tuple[int, list[int]]]
"""The blocks of an MCU, each with the number of its component."""


def _units(
    scan: ScanScript,
    blocks: list[NDArray[Any]],
    factors: list[Factors],
    size: Factors,
    largest: Factors,
) -> Iterator[Unit]:
    """The MCUs of a scan (A.2)."""
    if len(scan.components) == 1:
        (own,) = scan.components
        across, down = (-(-size[i] * factors[own][i] // largest[i] // 8) for i in (0, 1))
        yield from ([(own, block.tolist())] for row in blocks[own][:down] for block in row[:across])
        return
    rows, columns = blocks[0].shape[0] // factors[0][1], blocks[0].shape[1] // factors[0][0]
    for row in range(rows):
        for column in range(columns):
            yield [
                (own, blocks[own][row * factors[own][1] + y, column * factors[own][0] + x].tolist())
                for own in scan.components
                for y in range(factors[own][1])
                for x in range(factors[own][0])
            ]


def coded(units: Iterable[Unit], scan: ScanScript, most_ones: int = 7) -> bytes:
    """The bits of a restart interval (F.1.2, G.1.2)."""
    bits: list[str] = []
    before: dict[int, int] = {}
    for own, block in (each for unit in units for each in unit):
        table = min(own, 1)
        if scan.first == 0 and scan.high:
            bits.append(str(block[0] >> scan.low & 1))
            continue
        if scan.first == 0:
            value = block[0] >> scan.low
            change = value - before.get(own, 0)
            before[own] = value
            size, more = _magnitude(change)
            bits.append(f"{DC_SYMBOLS[table].index(size):04b}{more}")
        if scan.last:
            bits += _others(block[max(scan.first, 1) : scan.last + 1], AC_SYMBOLS[table])
    joined = "".join(bits)
    joined += "1" * (most_ones - (len(joined) + most_ones) % 8)
    data = int(joined, 2).to_bytes(len(joined) // 8) if joined else b""
    return data.replace(b"\xff", b"\xff\0")


def _others(values: list[int], symbols: bytes) -> Iterator[str]:
    run = 0
    for value in values:
        if not value:
            run += 1
            continue
        for _ in range(run // 16):
            yield f"{symbols.index(0xF0):08b}"
        size, more = _magnitude(value)
        yield f"{symbols.index(run % 16 << 4 | size):08b}{more}"
        run = 0
    if run:
        yield f"{symbols.index(0):08b}"


def _magnitude(value: int) -> tuple[int, str]:
    """The size category of a value, and its bits (F.1.2.1.1)."""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""
