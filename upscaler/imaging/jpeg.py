"""Check that JPEG files are whole, and decode them.

A file is whole if every bit of each component has a scan (`Coverage`), and if libjpeg reads all of
it without a warning that means lost pixels. More cannot be checked, because a JPEG has no checksum:
a file whose bytes were changed so that all of this still holds is another valid image to any
decoder. Of libjpeg's warnings (jerror.h) this is made:

| warning                | what it means                           | what is done             |
|------------------------|-----------------------------------------|--------------------------|
| JWRN_HIT_MARKER        | a scan or an interval is too short      | refused                  |
| JWRN_HUFF_BAD_CODE     | bits that are no code                   | refused                  |
| JWRN_MUST_RESYNC       | a restart marker is not the next one    | refused                  |
| JWRN_BOGUS_PROGRESSION | a scan refines what had no scan         | refused                  |
| JWRN_EXTRANEOUS_DATA   | bytes behind the last pixels of a scan  | refused, unless they are |
|                        | or an interval: the pixels were decoded | zeros at the end, or a   |
|                        | to others                               | byte of ones             |
|                        | bytes between other segments            | ignored (`segments`)     |
| JWRN_JPEG_EOF          | there is no EOI                         | one is added             |
| JWRN_ADOBE_XFORM       | an unknown transform of the colours     | as libjpeg takes it      |
| JWRN_JFIF_MAJOR        | another version of JFIF than 1          | ignored                  |
| JWRN_NOT_SEQUENTIAL    | fields that are for progressive scans   | ignored                  |
| JWRN_BOGUS_ICC         | parts of a profile are missing          | the profile is ignored   |

Bytes that are left over behind the last pixels may be those of an image that has lost others before
them, or those of a trailer, as phones append it, behind an image without an EOI. The same bytes may
be either. The EOI of an image is the next marker behind its last scan, apart from those of tables,
which have lost their place then, and from reserved ones where the file ends with it, which are
bytes of the scan that were changed. If another marker is next, what stands there is taken for a
trailer and passed over, whatever it is; and if it is an EOI, that is done only with bytes that are
text or a video (`trailer_at`).

Arithmetic coding (JWRN_ARITH_BAD_CODE) is not read, and JWRN_TOO_MUCH_DATA is a fault of the
program that decodes.
"""

import io
import re
from contextlib import suppress
from functools import partial
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from upscaler.errors import ImageError
from upscaler.imaging._zlib import zlib
from upscaler.imaging.jpeg_blocks import (
    check_scans_of_dc,
    grey_files,
    read_scans,
    trailer_at,
    whole_rows,
    with_filled_tables,
    without_spare_ones,
)
from upscaler.imaging.jpeg_segments import (
    ADOBE,
    END,
    EXIF,
    FRAMES,
    JFIF,
    PROFILE,
    SCAN,
    START,
    Coverage,
    read_frame,
    segments,
)
from upscaler.imaging.parallel import ordered_map

_WHOLE_BLOCKS: Final = bytes((0, 63, 0))
"""The end of the header of a scan with all coefficients and all of their bits (B.2.3)."""
_LEFT_OVER: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
"""libjpeg's warning (JWRN_EXTRANEOUS_DATA) of bytes between the last pixels and the end. libjpeg
reports its first warning, or a fatal error: so if it is this one, there was none before it."""
_FEW_LIKE_TEXT: Final = 4
"""Of the bytes at the end of a scan hardly ever more than these are ASCII."""
SAMPLES: Final = {1: "GRAY", 3: "RGB", 4: "CMYK"}
"""simplejpeg's name of the colour space, by the number of samples in a pixel."""
_TRANSFORMS: Final = {1: ((), 0), 3: ((0, 1), 1), 4: ((0, 2), 2)}
"""The transforms of Adobe that there are, and the one that libjpeg takes others for, by the number
of components (its `default_decompress_parms`)."""


def decode(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode a `strip_segments` file to `shape`: height, width, and 1 (grey), 3 (RGB) or 4 (CMYK).

    The file is decoded twice in parallel, into memory that was filled with two different values.
    Whatever the decoder leaves unwritten, or copies from uninitialised memory, differs between the
    two results, so it is never shown. Raises ImageError unless the file is whole.
    """
    coverage = Coverage()
    for marker, segment, _ in segments(data):
        coverage.add(marker, segment)
    if not coverage.is_complete:
        where = f"in or behind scan {coverage.scans}: its last scans are missing"
        where = where if coverage.scans else "before its first scan"
        raise ImageError(f"this JPEG is cut off {where}", "image_damaged")
    try:
        return _decode_blocks(coded(data), shape, may_have_trailer=not data.endswith(END))
    except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
        with suppress(Exception):
            return _decode_otherwise(data, shape)
        fault = "is damaged: some of its pixels are missing or wrong"
        with suppress(Exception):
            fault = f"is cut off {_where_it_ends(data, shape, coverage)}"
        raise ImageError(f"this JPEG {fault}", "image_damaged") from error


def _decode_otherwise(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode a file with what only seems to be left over: a trailer with an end, or spare ones.

    Raises nearly any builtin exception for any other file.
    """
    reading = _without_end_of_trailer(data)
    file = coded(reading)
    filled = without_spare_ones(file)
    if reading == data and filled == file:
        raise ValueError("it cannot be read in another way")
    return _decode_blocks(filled, shape, may_have_trailer=not reading.endswith(END))


def _without_end_of_trailer(data: bytes) -> bytes:
    """The file up to something that can be told to be a trailer, if its end comes behind that.

    A file that is cut off may have lost as many bytes as a text has that are taken for the scan's.
    So they are few here, where an end is there and what is left over may well be pixels.
    """
    *_, last = read_scans(data)
    trailer = len(last.coded) - trailer_at(last.coded, _FEW_LIKE_TEXT)
    return data[: -len(END) - trailer] if trailer and data.endswith(END) else data


def _where_it_ends(data: bytes, shape: tuple[int, int, int], coverage: Coverage) -> str:
    """Behind which row, or in which scan, a file is cut off.

    Raises nearly any builtin exception if it has another fault.
    """
    data = _without_end_of_trailer(data)
    if data.endswith(END) or not coverage.frame:
        raise ValueError("it has an end")
    file = coded(data)
    if coverage.frame.progressive:
        # Any scan may be of all rows: a picture that is cut off in its last one lacks details.
        before_last = file[: file.rindex(bytes((0xFF, SCAN)))] + END
        _decode_blocks(before_last, shape, may_have_trailer=False)
        return f"in scan {coverage.scans} of {coverage.scans}"
    if (rows := whole_rows(file)) == shape[0]:
        raise ValueError("it has all rows")
    return f"after row {rows} of {shape[0]}"


def _decode_blocks(
    file: bytes, shape: tuple[int, int, int], *, may_have_trailer: bool
) -> NDArray[np.uint8]:
    """Decode a `coded` file to `shape`. Raises nearly any builtin exception for one with a fault.

    With `may_have_trailer` anything may stand between the last pixels and the end.
    """
    if _has_named_sampling(file):
        return _decode_twice(file, shape, may_have_trailer=may_have_trailer)
    check_scans_of_dc(file, may_have_trailer=may_have_trailer)
    for grey, size in grey_files(file):
        _decode_twice(grey, (*size, 1), may_have_trailer=may_have_trailer)
    return _decode_by_pillow(file)


def coded(data: bytes) -> bytes:
    """Remove what says how to show the image, and repair what libjpeg warns of without need.

    A scan's header has fields for coefficients and bits, which only progressive files use (B.2.3).
    In other files some programs leave them empty or wrong. So those fields are set to what they
    stand for: all of them. JFIF gets its only major version, Adobe's transform the one that libjpeg
    takes an unknown one for (`default_decompress_parms`), and the file an end.
    """
    kept = [START]
    frame = next(read_frame(segment) for marker, segment, _ in segments(data) if marker in FRAMES)
    known, default = _TRANSFORMS[len(frame.components)]
    for marker, segment, scan in segments(data):
        shown = segment
        if marker == SCAN and not frame.progressive:
            shown = segment[:-3] + _WHOLE_BLOCKS
        elif marker == JFIF and segment[4:].startswith(b"JFIF\0"):
            shown = segment[:9] + b"\1" + segment[10:]
        elif marker == ADOBE and len(segment) > 15 and segment[15] not in known:
            shown = segment[:15] + bytes((default,)) + segment[16:]
        if marker not in (EXIF, PROFILE):
            kept += (shown, scan)
    file = b"".join(kept)
    if file.endswith(END):
        return file
    *_, last = read_scans(file)
    return file[: len(file) - last.surplus_bytes()] + END


def _has_named_sampling(file: bytes) -> bool:
    """Whether TurboJPEG has a name for the sampling of a file that is otherwise in order."""
    try:
        simplejpeg.decode_jpeg_header(file)
    except KeyError:  # TurboJPEG has a name, such as 4:4:1, and simplejpeg none
        return False
    except ValueError as error:
        if "subsampling" in str(error):
            return False
        raise
    return True


def _decode_twice(
    file: bytes, shape: tuple[int, int, int], *, may_have_trailer: bool
) -> NDArray[np.uint8]:
    """Decode with nothing left unwritten. Raises ImageError or ValueError for a file with a fault.

    `may_have_trailer` is as for `_decode_blocks`.
    """
    if may_have_trailer:
        file = without_trailer(file, shape)
    # The file decides the values, so that decoding it again gives the same result.
    fill = zlib.crc32(file) & 0xFF
    # libjpeg passes over bits that are no code, mostly without a warning: its fast path has none.
    attempts = (file, fill), (with_filled_tables(file), fill ^ 0xFF)
    samples, again = ordered_map(partial(_decode_into_fill, shape), attempts)
    if not np.array_equal(samples, again):
        raise ValueError("not all of it was decoded, or has bits that are no code")
    return samples


def without_trailer(file: bytes, shape: tuple[int, int, int]) -> bytes:
    """Remove what libjpeg finds between the last pixels and the end of a file, but for 7 bytes.

    So many it may have read ahead. How many depends on what follows, so it is asked again.
    """
    for _ in range(3):
        try:
            simplejpeg.decode_jpeg(file, SAMPLES[shape[2]], strict=True)
        except ValueError as error:
            if found := _LEFT_OVER.fullmatch(str(error)):
                file = file[: -len(END) - int(found[1])] + END
                continue
        break
    return file


def _decode_into_fill(shape: tuple[int, int, int], attempt: tuple[bytes, int]) -> NDArray[np.uint8]:
    """Decode a file into memory that was filled with a value. Raises ValueError for a warning.

    Strictly, because otherwise simplejpeg returns unwritten memory for a file with a warning before
    a fatal error, which TurboJPEG takes for another warning.
    """
    file, fill = attempt
    memory = np.full(shape, fill, np.uint8)
    try:
        simplejpeg.decode_jpeg(file, SAMPLES[shape[2]], buffer=memory, strict=True)
    except ValueError as error:
        found = _LEFT_OVER.fullmatch(str(error))
        # Some cameras pad their files with zeros, so those are accepted. If pixels are left over,
        # after a damage, their bytes are hardly ever all zero.
        if not found or any(file[-len(END) - int(found[1]) : -len(END)]):
            raise
        # It tells its first warning alone, which may be followed by that of a missing interval.
        return _decode_into_fill(shape, (file[: -len(END) - int(found[1])] + END, fill))
    return memory


def _decode_by_pillow(file: bytes) -> NDArray[np.uint8]:
    """The samples of a file of any sampling, whose blocks are known to be there.

    Pillow's memory is zero where nothing is written, and it inverts CMYK, which is undone here.
    """
    # Not by Image.open, whose limit of pixels was kept when the header was read.
    with JpegImageFile(io.BytesIO(file)) as image:
        samples = np.array(image)
    samples = samples if samples.ndim == 3 else samples[..., None]
    return ~samples if image.mode == "CMYK" else samples
