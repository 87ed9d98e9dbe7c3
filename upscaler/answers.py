"""Pictures and errors as HTTP responses."""

from collections.abc import Iterator
from decimal import Decimal

from starlette.responses import JSONResponse, Response, StreamingResponse

from upscaler.contract import (
    COST_HEADER,
    INPUT_SIZE_HEADER,
    MODEL_HEADER,
    OUTPUT_SIZE_HEADER,
    WEIGHTS_HEADER,
    Size,
)
from upscaler.encoding import in_json, json_bytes
from upscaler.errors import UpscalerError
from upscaler.intake import JSON, MEDIA_TYPES
from upscaler.orders import WORK, Made


def in_pixels(size: Size) -> str:
    """A size as headers and logs have it: 608x512."""
    return f"{size[0]}x{size[1]}"


def picture(made: Made, price_per_second: Decimal | None) -> Response:
    """The answer that holds a picture: JSON (RES-1) or the file itself (RES-8)."""
    headers = {
        "Vary": "Accept",
        "Server-Timing": ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in made.seconds.items()),
        INPUT_SIZE_HEADER: in_pixels(made.input_size),
        OUTPUT_SIZE_HEADER: in_pixels(made.size),
        MODEL_HEADER: made.model,
        WEIGHTS_HEADER: made.weights_sha256,
    }
    if price_per_second is not None:
        headers[COST_HEADER] = f"{cost_usd(made, price_per_second):.8f}"
    if made.as_file:
        headers["Content-Length"] = str(made.file_bytes)
        return StreamingResponse(_pieces(made), 200, headers, MEDIA_TYPES[made.encoding])
    headers["Content-Length"] = str(json_bytes(made.file_bytes))
    return StreamingResponse(in_json(made.file), 200, headers, JSON)


def cost_usd(made: Made, price_per_second: Decimal) -> Decimal:
    """What the time cost in which the machine worked for this picture: no waiting, no download."""
    return price_per_second * Decimal(sum(made.seconds[stage] for stage in WORK))


def error(fault: UpscalerError) -> Response:
    """The answer to an error that was raised on purpose (RES-4, RES-7)."""
    return JSONResponse({"detail": fault.detail}, fault.status, fault.headers)


def _pieces(made: Made) -> Iterator[bytes]:
    yield from made.file
