"""The images that the tests send: small files that can be recognised whatever is done to them.

Each shows 8 x 8 large blocks of colours drawn at random. That compresses well, survives resizing
and lossy encoding, and looks different when it is rotated, mirrored, or has its channels swapped.
`image_comparison` tells whether a response shows the same.
"""

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract_tests.oracle.oracle import ImageFacts
from contract_tests.requests.image_headers import sizes, with_size

Cells = NDArray[np.uint8]
"""The colours of an image's blocks: uint8 RGBA of shape (rows, columns, 4), straight alpha."""

MODES: Final = {
    "png": (
        *("colour", "grey", "alpha", "grey alpha", "palette", "palette alpha", "sixteen"),
        *("grey sixteen", "bilevel", "interlaced"),
    ),
    "jpeg": ("colour", "grey", "cmyk", "progressive"),
    "webp": ("colour", "alpha", "lossy", "lossy alpha"),
}
"""The modes of each format. "sixteen" has 16 bits per sample, "bilevel" one bit per pixel."""
NOISY: Final = ("png", "noise")
"""The format and mode of large files: every sample differs from its block by up to NOISE levels."""
NOISE: Final = 39
"""What the darkest and the lightest of the blocks' levels leave room for."""
FORMATS: Final = tuple(MODES)
COMMON_KINDS: Final = (("png", "palette"), ("png", "colour"), ("jpeg", "colour"), ("png", "grey"))
"""Formats and modes that must be accepted at the level `documented`, too: no source has a list, but
every implementation reads these. The first one makes the smallest files."""
WITH_HEADER: Final = ("truncated", "header only")
DAMAGES: Final = (*WITH_HEADER, "signature only", "wrong signature", "garbage", "text")
"""What can be wrong with a file. Those in `WITH_HEADER` leave the header with the size."""
MAX_SIDE: Final = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
"""The longest side in pixels that each format's header can have, and Pillow can write."""

_CELLS: Final = 8
# Never black or white, so that a response of one pixel can still be told from a blank one.
_LEVELS: Final = (40, 99, 157, 216)
_ALPHAS: Final = (0, 85, 170, 255)
_MAX_PNG_BYTES: Final = 2**26
"""A PNG whose pixels would take more than this has those of a smaller one."""
_MAX_PILLOW_PX: Final = 2**23
"""A JPEG or WebP of more pixels has those of a smaller one: Pillow holds them all in memory."""
_SUBSTITUTE_PX: Final = 256
"""Both sides of that smaller one."""
_TO_UPRIGHT: Final[dict[int, Callable[[Cells], Cells]]] = {
    1: lambda cells: cells,
    2: lambda cells: cells[:, ::-1],
    3: lambda cells: cells[::-1, ::-1],
    4: lambda cells: cells[::-1],
    5: lambda cells: cells.swapaxes(0, 1),
    6: lambda cells: np.rot90(cells, -1),
    7: lambda cells: cells.swapaxes(0, 1)[::-1, ::-1],
    8: np.rot90,
}
"""The rotation that makes an image upright, by its EXIF orientation."""
_ADAM7: Final = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""The passes of an interlaced PNG: first column, first row, and the steps between them."""
_AS_JPEG: Final = {"quality": 90, "optimize": True}
_SAVE_OPTIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("jpeg", "progressive"): {**_AS_JPEG, "progressive": True},
    ("webp", "colour"): {"lossless": True, "quality": 0, "method": 0},
    ("webp", "alpha"): {"lossless": True, "quality": 0, "method": 0, "exact": True},
    ("webp", "lossy"): {"quality": 80, "method": 0},
    ("webp", "lossy alpha"): {"quality": 80, "method": 0},
}
"""Pillow's options for what is not saved with `_AS_JPEG`: the fastest."""


@dataclass(frozen=True)
class SampleImage:
    """The description of an image's file. Equal descriptions make the same bytes.

    `width` and `height` are those in the file's header, in pixels and before EXIF rotates it.
    `seed`, from 0 up, draws its colours. `mode` is one of MODES for its format, or as in NOISY;
    `orientation` the EXIF orientation from 1 to 8, and `damage` empty or one of DAMAGES.

    A file whose header names a huge size is small all the same: beyond some millions of pixels it
    has fewer than the header says. Only a "bilevel" PNG has all of them, up to 20,000 x 20,000.

    Raises ValueError for an impossible combination.
    """

    width: int
    height: int
    format: str = "png"
    seed: int = 0
    mode: str = "colour"
    orientation: int = 1
    damage: str = ""

    def __post_init__(self) -> None:
        kind = (self.format, self.mode)
        if kind != NOISY and self.mode not in MODES.get(self.format, ()):
            raise ValueError(f"there is no {self.mode} {self.format}")
        if not all(1 <= side <= MAX_SIDE[self.format] for side in (self.width, self.height)):
            raise ValueError(f"there is no {self.format} of {self.width}x{self.height} pixels")
        if self.orientation not in _TO_UPRIGHT or self.damage not in ("", *DAMAGES):
            raise ValueError("there is no such orientation or damage")

    def __repr__(self) -> str:
        rotation = f"orientation {self.orientation}" if self.orientation != 1 else ""
        parts = (f"{self.width}x{self.height} {self.format}", self.mode, rotation, self.damage)
        return f"SampleImage({', '.join(filter(None, parts))}, seed {self.seed})"

    @property
    def description(self) -> str:
        """All of its fields, by commas, for `described`."""
        return ",".join(map(str, astuple(self)))

    @property
    def sideways(self) -> bool:
        """Whether EXIF swaps its width and height."""
        return self.orientation >= 5

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as a viewer shows it."""
        return (self.height, self.width) if self.sideways else (self.width, self.height)

    @property
    def transparent(self) -> bool:
        """Whether its file has alpha."""
        return "alpha" in self.mode

    def facts(self) -> ImageFacts:
        """What the oracle has to know: the size if the header has it, and what is wrong."""
        size = self.size if self.damage in ("", *WITH_HEADER) else (0, 0)
        return ImageFacts(*size, self.damage)

    def file(self) -> bytes:
        """The file itself."""
        return _file(self)

    def base64(self) -> str:
        """The file in standard base64, on one line."""
        return base64.b64encode(self.file()).decode()

    def upright(self) -> Cells:
        """Its blocks as a viewer shows them: uint8 RGBA of shape (rows, columns, 4).

        The block in row r of R is what lies between r/R and (r+1)/R of the height, to a pixel.
        There are 8 rows and columns, or as many as the image has pixels, if that is fewer.
        """
        return np.ascontiguousarray(_TO_UPRIGHT[self.orientation](_cells(self)))


def described(description: str) -> SampleImage:
    """The image with this `description`; raises ValueError if there is none."""
    texts, kinds = description.split(","), fields(SampleImage)
    if len(texts) != len(kinds):
        raise ValueError(f"{description!r} does not describe an image")
    values: list[Any] = [
        int(text) if kind.type is int else text for text, kind in zip(texts, kinds, strict=True)
    ]
    return SampleImage(*values)


@lru_cache(maxsize=256)
def _file(sample: SampleImage) -> bytes:
    damage = sample.damage
    if damage == "garbage":
        return b"\xff" + np.random.default_rng(sample.seed).bytes(2_000)
    if damage == "text":
        return b"<!doctype html><title>404</title><p>Not found.</p>\n"
    file = _png(sample) if sample.format == "png" else _by_pillow(sample)
    if damage == "truncated":
        return file[: len(file) * 2 // 3]
    if damage == "header only":
        return file[: max(at + len(size) for at, size in sizes(file, 1, 1))]
    if damage == "signature only":
        return file[:12] if sample.format == "webp" else file[:8]
    return b"NO IMAGE" + file[8:] if damage == "wrong signature" else file


def _cells(sample: SampleImage) -> Cells:
    """The blocks as stored, before EXIF: uint8 RGBA of shape (rows, columns, 4)."""
    generator = np.random.default_rng(sample.seed)
    cells = np.empty((_CELLS, _CELLS, 4), np.uint8)
    cells[..., :3] = generator.choice(_LEVELS, (_CELLS, _CELLS, 3))
    cells[..., 3] = generator.choice(_ALPHAS, (_CELLS, _CELLS)) if sample.transparent else 255
    if sample.mode == "bilevel":
        cells[..., 0] = np.where(cells[..., 0] < 128, 0, 255)
    if sample.mode in ("grey", "grey alpha", "grey sixteen", "bilevel"):
        cells[..., 1:3] = cells[..., :1]
    return cells[: sample.height, : sample.width]


# PNG, row by row


def _png(sample: SampleImage) -> bytes:
    colour_type, bits, samples, palette = _png_samples(_cells(sample), sample.mode)
    width, height = sample.width, sample.height
    if width * height * samples[0, 0].nbytes * min(bits, 8) / 8 > _MAX_PNG_BYTES:
        return with_size(_file(_substitute(sample)), width, height)
    interlaced = sample.mode == "interlaced"
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    exif = _exif(sample)
    deflate = zlib.compressobj()
    pixels = b"".join(map(deflate.compress, _scanlines(sample, samples, bits)))
    chunks = (
        _chunk(b"IHDR", header),
        _chunk(b"eXIf", exif) if exif else b"",
        palette,
        _chunk(b"IDAT", pixels + deflate.flush()),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_samples(cells: Cells, mode: str) -> tuple[int, int, NDArray[Any], bytes]:
    """Colour type, bits per sample, samples of shape (rows, columns, channels), palette chunks."""
    if mode.endswith("sixteen"):
        # The low bits differ from the high ones, so that using them is a visible mistake.
        high = cells.astype(np.uint16)
        samples = (256 * high + (255 - high)).astype(">u2")
        return (0, 16, samples[..., :1], b"") if "grey" in mode else (2, 16, samples[..., :3], b"")
    if mode.startswith("palette"):
        entries = cells.reshape(-1, 4)
        chunks = _chunk(b"PLTE", entries[:, :3].tobytes())
        chunks += _chunk(b"tRNS", entries[:, 3].tobytes()) if "alpha" in mode else b""
        return 3, 8, np.arange(len(entries), dtype=np.uint8).reshape(*cells.shape[:2], 1), chunks
    if mode == "bilevel":
        return 0, 1, cells[..., :1] // 255, b""
    if mode.startswith("grey"):
        return (4, 8, cells[..., ::3], b"") if "alpha" in mode else (0, 8, cells[..., :1], b"")
    return (6, 8, cells, b"") if mode == "alpha" else (2, 8, cells[..., :3], b"")


def _scanlines(sample: SampleImage, samples: NDArray[Any], bits: int) -> Iterator[bytes]:
    """The filtered rows before compression, in Adam7's passes if the image is interlaced.

    A row equal to the one above is all zeros with filter 2 (up), which compresses to next to
    nothing.
    """
    rows, columns = samples.shape[:2]
    down, across = _cell_of_each(sample.height, rows), _cell_of_each(sample.width, columns)
    if sample.mode == "noise":
        generator = np.random.default_rng(sample.seed)
        for row in down:
            line = samples[row, across].astype(np.int16)
            yield (
                b"\0"
                + (line + generator.integers(-NOISE, NOISE, line.shape, endpoint=True))
                .astype(np.uint8)
                .tobytes()
            )
        return
    passes = _ADAM7 if sample.mode == "interlaced" else ((0, 0, 1, 1),)
    for left, top, right, below in passes:
        if len(across[left::right]) == 0:
            continue  # a pass without columns has no rows either (PNG, 8.2)
        for row, count in zip(*np.unique(down[top::below], return_counts=True), strict=True):
            line = samples[row, across[left::right]]
            data = np.packbits(line).tobytes() if bits == 1 else line.tobytes()
            yield b"\0" + data
            yield from repeat(b"\2" + bytes(len(data)), count - 1)


def _cell_of_each(pixels: int, cells: int) -> NDArray[np.intp]:
    """The cell that the centre of each pixel of a side is in."""
    return (2 * np.arange(pixels) + 1) * cells // (2 * pixels)


# JPEG and WebP


def _by_pillow(sample: SampleImage) -> bytes:
    width, height = sample.width, sample.height
    if width * height > _MAX_PILLOW_PX:
        return with_size(_file(_substitute(sample)), width, height)
    image = _image(_cells(sample), sample).resize((width, height), Image.Resampling.NEAREST)
    exif = _exif(sample)
    options = _SAVE_OPTIONS.get((sample.format, sample.mode), _AS_JPEG)
    buffer = io.BytesIO()
    image.save(buffer, sample.format, exif=b"Exif\0\0" + exif if exif else b"", **options)
    return buffer.getvalue()


def _image(cells: Cells, sample: SampleImage) -> Image.Image:
    if sample.transparent:
        return Image.fromarray(cells)
    if sample.mode == "grey":
        return Image.fromarray(np.ascontiguousarray(cells[..., 0]))
    if sample.mode == "cmyk":
        # Without black ink, since decoders differ in how they mix it in.
        inks = np.concatenate((255 - cells[..., :3], 0 * cells[..., 3:]), axis=-1)
        return Image.frombytes("CMYK", cells.shape[1::-1], inks.tobytes())
    return Image.fromarray(np.ascontiguousarray(cells[..., :3]))


# What both have in common


def _substitute(sample: SampleImage) -> SampleImage:
    """The smaller image whose pixels stand behind a header that names a huge size."""
    return replace(sample, width=_SUBSTITUTE_PX, height=_SUBSTITUTE_PX, damage="")


def _exif(sample: SampleImage) -> bytes:
    """A TIFF with the orientation as its only entry; empty if the image is upright."""
    if sample.orientation == 1:
        return b""
    # Big-endian, one entry at offset 8: the tag 0x0112 (orientation), of type SHORT, one value.
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, sample.orientation, 0, 0)
