"""The sizes that `upscaler image` takes, and what an image of that size will need.

The limits of the API do not apply here: a size is refused only where this machine or a file format
cannot have it, and the reason is printed.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size, requested_size
from upscaler.errors import FieldError, ImageError, InvalidRequest, OutOfMemory
from upscaler.file_inputs import STDIO
from upscaler.formats import FILE_FORMATS, MAX_SIDE_PX, MIN_SIDE_PX, FileFormat
from upscaler.imaging.decode import EncodedImage
from upscaler.imaging.other_formats import OtherImage, read_any
from upscaler.imaging.other_writers import WHOLE_BYTES
from upscaler.models import MODELS, UpscalingModel, flop
from upscaler.planning import Plan

if TYPE_CHECKING:
    from upscaler.engine.pool import EnginePool

LONG_S: Final = 10.0
LARGE_BYTES: Final = 2**30
LARGE_PX: Final = 2**27
"""What takes longer or more than this is reported beforehand. So many pixels take seconds to
be written, whatever the network takes."""
MEASURED_FLOP: Final = 10**11
"""Only an image with more operations is worth the measurement of an estimate."""
PATIENCE_S: Final = 60.0
"""For an image that takes longer, a quicker model is named."""
QUICK: Final = UpscalingModel.X4_V3


@dataclass(frozen=True)
class Forecast:
    """What upscaling an image will take: bytes of memory and of disk, and about how long.

    `seconds` is 0 if it is hardly worth an estimate.
    """

    source: Size
    size: Size
    model: UpscalingModel
    memory_bytes: int
    disk_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        """The figures for `--json`."""
        return {
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "seconds": round(self.seconds, 1),
        }

    def __str__(self) -> str:
        """A line for the user, empty for an image that takes neither long nor much."""
        pixels = self.size[0] * self.size[1]
        large = self.memory_bytes > LARGE_BYTES or self.disk_bytes or pixels > LARGE_PX
        if not large and self.seconds <= LONG_S:
            return ""
        (width, height), (new_width, new_height) = self.source, self.size
        needs = [f"about {size_text(self.memory_bytes)} of memory"]
        needs += [f"{size_text(self.disk_bytes)} of disk"] if self.disk_bytes else []
        needs += [f"about {_duration(self.seconds)}"] if self.seconds else []
        text = f"{width}x{height} to {new_width}x{new_height} takes {', '.join(needs)}"
        ratio = flop(MODELS[self.model], width, height) / flop(MODELS[QUICK], width, height)
        if self.seconds > PATIENCE_S and ratio > 2:
            text += f"; with the model {QUICK} about {_duration(self.seconds / ratio)}"
        return text


def read_picture(
    data: bytes, memory: int | None, engines: "EnginePool"
) -> EncodedImage | OtherImage:
    """Read the header of an image whose pixels may take `memory` bytes, by default what is free.

    Raises ImageError for a format that is not read and for a side outside MIN_SIDE_PX to
    MAX_SIDE_PX, and OutOfMemory.
    """
    image = read_any(data)
    width, height = image.size
    if min(image.size) < MIN_SIDE_PX:
        msg = f"each side must be {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, and this image is"
        raise ImageError(f"{msg} {width}x{height}", "image_too_small")
    _require_memory(image.most_bytes, memory, engines, "to be read")
    return image


def wanted_size(request: UpscalingRequest, source: Size, encoding: FileFormat) -> Size:
    """The size of the output, given that of the input.

    Raises InvalidRequest for a side that is longer than a file of that format has, or than
    MAX_SIDE_PX.
    """
    size = requested_size(request, source)
    most = min(encoding.row.max_side_px, MAX_SIDE_PX)
    if max(size) <= most:
        return size
    msg = f"{size[0]}x{size[1]} is too large: {_article(encoding)} has at most {most} pixels a side"
    more = [name for name, other in FILE_FORMATS.items() if max(size) <= other.row.max_side_px]
    if max(size) <= MAX_SIDE_PX and more:
        msg += f"; more with --encoding {' or '.join(more)}"
    raise InvalidRequest(FieldError(("body", request.size_field), msg, "output_too_large"))


def forecast(
    image: EncodedImage | OtherImage,
    size: Size,
    model: UpscalingModel,
    encoding: FileFormat,
    *,
    spool: Path,
    engines: "EnginePool",
    faces: bool = False,
) -> Forecast:
    """What an image will need if it is upscaled now. Loads the model for an estimate of the time.

    That is without the time for faces: how many there are is not known. `faces` says whether they
    are restored, which is done before the image is upscaled.

    Raises OutOfMemory if that is more memory than there is, or more disk than `spool` has.
    """
    width, height = image.size
    plan: Plan = engines.plan(model, image.size, image.channels, spool)
    pixel_bytes = width * height * image.channels
    pixel_bytes *= 2 if MODELS[model].multiple > 1 else 1  # padded
    whole = size[0] * size[1] * WHOLE_BYTES.get(encoding, 0)
    working = max(plan.bytes, engines.face_bytes(image.size) if faces else 0)
    needed = pixel_bytes + working + whole
    memory = engines.settings.memory
    # A limit is about the plan, which fits into it; of the rest it is about what is large.
    _require_memory(needed if memory is None else whole, memory, engines, "to be upscaled")
    free = shutil.disk_usage(spool).free
    if plan.disk > free:
        raise OutOfMemory(
            f"this image needs {size_text(plan.disk)} of disk in {spool} while it is upscaled, and "
            f"{size_text(free)} are free: allow it more memory, or write elsewhere"
        )
    seconds = 0.0
    if flop(MODELS[model], width, height) > MEASURED_FLOP:
        seconds = engines.estimate_s(model, plan, image.channels)
    memory_bytes = max(image.most_bytes, needed)
    return Forecast(image.size, size, model, memory_bytes, plan.disk, seconds)


def spool_folder(target: Path) -> Path:
    """The folder for temporary files beside `target`, whose own folder may not be there yet."""
    if target == STDIO:
        return Path(tempfile.gettempdir())
    return next(folder for folder in target.absolute().parents if folder.is_dir())


def _require_memory(needed: int, memory: int | None, engines: "EnginePool", what: str) -> None:
    most = engines.free_bytes() if memory is None else memory
    if needed > most:
        allowed = "free" if memory is None else "allowed (--memory)"
        raise OutOfMemory(
            f"this image needs {size_text(needed)} of memory {what}, and {size_text(most)} are "
            f"{allowed}"
        )


def _article(encoding: FileFormat) -> str:
    return f"an {encoding.upper()}" if encoding[0] in "aeiou" else f"a {encoding.upper()}"


def size_text(size_bytes: int) -> str:
    """A number of bytes for the user."""
    unit, name = (2**30, "GiB") if size_bytes >= 2**30 else (2**20, "MiB")
    return f"{max(size_bytes / unit, 0.1):,.1f} {name}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
