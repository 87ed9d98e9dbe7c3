"""How two implementations differ in their responses to the same request."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract_tests.judge import decoding
from contract_tests.requests.request import Request
from contract_tests.target.response import Response, encoding_of

SIDE_PX: Final = 32
"""Images are compared at this size, at which the details that a network adds do not count."""
MAX_MEAN_DIFFERENCE: Final = 24.0
"""Mean difference in levels of 255 up to which two images show the same."""


def compare_responses(request: Request, ours: Response, theirs: Response) -> str:
    """A sentence that says how the responses differ, or an empty string.

    What each implementation chooses freely is not compared: messages, ids, and the details of an
    image.
    """
    for name, one, two in _compared(request, ours, theirs):
        if one != two:
            return f"{name} differs: {one} here, {two} there"
    return ""


def _compared(request: Request, ours: Response, theirs: Response) -> Iterator[tuple[str, Any, Any]]:
    """Names and pairs to compare, the most telling first; each requires that those before agree."""
    yield "the status", ours.status, theirs.status
    yield "the media type", ours.media_type, theirs.media_type
    if ours.status == 422:
        yield "the location of errors", _locations(ours), _locations(theirs)
    yield "the body's fields", _names(ours), _names(theirs)
    if request.asynchronous or not 200 <= ours.status < 300:
        return
    one, two = _image(ours), _image(theirs)
    yield "the image", "present" if one else "missing", "present" if two else "missing"
    if one and two:
        yield "the image's encoding", one.format, two.format
        yield "the image's size", one.size, two.size
        apart = float(np.abs(_small(one) - _small(two)).mean())
        if apart >= MAX_MEAN_DIFFERENCE:
            other = f"another, by {apart:.0f} of 255 levels on average,"
            yield "the image's content", "one image", other


def _locations(response: Response) -> Any:  # noqa: ANN401  None if it cannot be read
    try:
        return sorted(".".join(map(str, error["loc"])) for error in response.json["detail"])
    except (ValueError, TypeError, KeyError):
        return None


def _names(response: Response) -> Any:  # noqa: ANN401  None if there is no object
    try:
        return sorted(response.json)
    except (ValueError, TypeError):
        return None


def _image(response: Response) -> Image.Image | None:
    try:
        file = response.image_file
        return decoding.decode_image(file, encoding_of(file) or "png")
    except (ValueError, TypeError, KeyError):
        return None


def _small(image: Image.Image) -> NDArray[np.float32]:
    """The image on white, at a small size: float32 of shape (32, 32, 3), 0 to 255."""
    rgba = decoding.to_eight_bits(image).convert("RGBA")
    page = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(page, rgba).convert("RGB")
    return np.asarray(flat.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float32)
