"""Content negotiation: which media type the answer to a request has (RES-8; RFC 9110, 12.5.1)."""

from typing import Final

import mimeparse

from upscaler.errors import NotAcceptable
from upscaler.formats import ImageEncoding

JSON: Final = "application/json"
MEDIA_TYPES: Final = {encoding: encoding.media_type for encoding in ImageEncoding}


def negotiate(accept: str, asked: ImageEncoding) -> ImageEncoding | None:
    """Which kind of file a client wants that sends this Accept header, or None for JSON (RES-8).

    The one it likes best, by RFC 9110, 12.5.1; of those that it likes equally, the one that it
    names most exactly, and then JSON before a file, and one as `asked` in the body before another.
    No header, an empty one, as OctoAI's client for JavaScript sends it, and one that cannot be
    read all stand for JSON. Raises NotAcceptable if it likes none of them.
    """
    if not accept.strip(" ,"):
        return None
    likes = sorted(MEDIA_TYPES, key=lambda encoding: encoding is asked)
    try:
        best = mimeparse.best_match([*map(MEDIA_TYPES.__getitem__, likes), JSON], accept.lower())
    except mimeparse.MimeTypeParseException:
        return None
    if not best:
        offered = ", ".join([JSON, *MEDIA_TYPES.values()])
        raise NotAcceptable(f"an answer can be one of {offered}: accept one of them")
    return next((encoding for encoding in likes if MEDIA_TYPES[encoding] == best), None)
