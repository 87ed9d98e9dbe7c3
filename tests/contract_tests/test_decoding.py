"""What counts as one complete image in the file of a response."""

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from contract_tests.judge.decoding import Undecodable, decode_image
from contract_tests.requests.images import SampleImage

PLAIN = Image.open(io.BytesIO(SampleImage(300, 256, seed=1).file())).convert("RGB")


def saved(encoding: str, **options: Any) -> bytes:
    out = io.BytesIO()
    PLAIN.save(out, encoding, **options)
    return out.getvalue()


FILES = {"png": saved("png"), "jpeg": saved("jpeg", quality=90)}


def ihdr(file: bytes, width: int) -> bytes:
    head = file[12:16] + struct.pack(">I", width) + file[20:29]
    return file[:12] + head + struct.pack(">I", zlib.crc32(head)) + file[33:]


@pytest.mark.parametrize(
    ("file", "encoding", "word"),
    [
        (FILES["jpeg"], "png", "the file is not a png"),
        (FILES["png"], "jpeg", "the file is not a jpeg"),
        (b"", "png", "the file is not a png"),
        (FILES["png"] + b"\0", "png", "1 bytes behind the end"),
        (FILES["jpeg"] + FILES["jpeg"], "jpeg", "bytes behind the end"),
        (FILES["png"][:-12], "png", "cut off"),
        (FILES["png"][:200], "png", "cut off"),
        (FILES["jpeg"][:-2], "jpeg", "cut off"),
        (FILES["jpeg"][:20] + b"\0" + FILES["jpeg"][20:], "jpeg", "no marker"),
        (FILES["png"][:60] + b"\0" + FILES["png"][61:], "png", "checksum"),
        (ihdr(FILES["png"], 8193), "png", "8193x256"),
        (ihdr(FILES["png"], 2**30), "png", "cannot be decoded"),
        (ihdr(FILES["png"], 1000), "png", "cannot be decoded"),
    ],
)
def test_files_that_are_not_one_complete_image(file: bytes, encoding: str, word: str) -> None:
    with pytest.raises(Undecodable, match=word):
        decode_image(file, encoding)


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"comment": b"\xff\xd9 is no end here"},
        {"exif": b"Exif\0\0" + b"\xff\xd9" * 9},
    ],
)
def test_the_end_of_every_kind_of_jpeg_is_found(options: dict[str, Any]) -> None:
    assert decode_image(saved("jpeg", **options), "jpeg").size == PLAIN.size


@pytest.mark.parametrize("between", [b"\xff", b"\xff" * 9, b"\xff\xd3"])
def test_bytes_between_the_segments_of_a_jpeg_are_skipped(between: bytes) -> None:
    """Bytes that fill, and markers without a length (ITU T.81, B.1.1.2 and B.1.1.3)."""
    file = FILES["jpeg"][:2] + between + FILES["jpeg"][2:]
    assert decode_image(file, "jpeg").size == PLAIN.size
