"""In what two implementations differ that were asked the same."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract_tests.judge import decoding
from contract_tests.requests.request import Request
from contract_tests.target.response import Response, encoding_of

SIDE: Final = 32
"""Pictures are compared in so few pixels a side that a network's details do not count."""
FAR: Final = 24.0
"""By how many of 255 levels two pictures may differ in the mean and still show the same."""


def compare_responses(request: Request, ours: Response, theirs: Response) -> str:
    """A sentence that says in what the answers differ, or nothing.

    What each of them chooses freely is not compared: messages, ids, and how a picture looks in
    detail.
    """
    for name, one, two in _compared(request, ours, theirs):
        if one != two:
            return f"{name} differs: {one} here, and {two} there"
    return ""


def _compared(request: Request, ours: Response, theirs: Response) -> Iterator[tuple[str, Any, Any]]:
    """What is compared, the most telling first; the rest makes sense if it is the same."""
    yield "the status", ours.status, theirs.status
    yield "the media type", ours.media_type, theirs.media_type
    if ours.status == 422:
        yield "what is blamed", _blamed(ours), _blamed(theirs)
    yield "the body's fields", _names(ours), _names(theirs)
    if request.asynchronous or not 200 <= ours.status < 300:
        return
    one, two = _picture(ours), _picture(theirs)
    yield "the picture", one and "is there", two and "is there"
    if one and two:
        yield "its encoding", one.format, two.format
        yield "its size", one.size, two.size
        apart = float(np.abs(_small(one) - _small(two)).mean())
        yield "what it shows", "a picture", "a picture" if apart < FAR else f"another ({apart:.0f})"


def _blamed(response: Response) -> Any:  # noqa: ANN401  None if it cannot be read
    try:
        return sorted(".".join(map(str, each["loc"])) for each in response.json["detail"])
    except (ValueError, TypeError, KeyError):
        return None


def _names(response: Response) -> Any:  # noqa: ANN401  None if there is no object
    try:
        return sorted(response.json)
    except (ValueError, TypeError):
        return None


def _picture(response: Response) -> Image.Image | None:
    try:
        file = response.file
        return decoding.decode_image(file, encoding_of(file) or "png")
    except (ValueError, TypeError, KeyError):
        return None


def _small(image: Image.Image) -> NDArray[np.float32]:
    """The picture on white, in few pixels: float32 of shape (32, 32, 3), 0 to 255."""
    seen = decoding.to_eight_bits(image).convert("RGBA")
    page = Image.new("RGBA", seen.size, "white")
    flat = Image.alpha_composite(page, seen).convert("RGB")
    return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
