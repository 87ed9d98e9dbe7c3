"""Content negotiation: the media type of a response (RES-8; RFC 9110, 12.5.1)."""

import re
from typing import Final

import mimeparse

from upscaler.errors import NotAcceptable
from upscaler.formats import ImageEncoding

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
MEDIA_TYPES: Final = {encoding: encoding.media_type for encoding in ImageEncoding}
REDIRECTABLE: Final = re.compile(r"node|python-requests/.*|Python/[0-9.]+ aiohttp/.*")
"""The User-Agents of those that follow a redirect to another host unasked, and do not send it the
token, for which S3 would refuse them. curl and httpx follow none, urllib, wget and old versions of
node-fetch send the token, and browsers need the other host's consent."""


def negotiate(accept: str, requested: ImageEncoding) -> ImageEncoding | None:
    """Return the file format to respond with by this Accept header, or None for JSON (RES-8).

    The highest quality wins (RFC 9110, 12.5.1), then the most specific range, then JSON before
    files, then `requested`, the body's output_image_encoding, before other formats. JSON is also
    the response without a header, to an empty one, which OctoAI's JavaScript client sends, and to
    one that cannot be parsed. Raises NotAcceptable if all have quality 0 or are not listed.
    """
    if not accept.strip(" ,"):
        return None
    # `best_match` prefers the last of equals, and compares case-sensitively, unlike RFC 9110.
    offered = sorted(MEDIA_TYPES, key=lambda encoding: encoding is requested)
    try:
        best = mimeparse.best_match([*map(MEDIA_TYPES.__getitem__, offered), JSON], accept.lower())
    except mimeparse.MimeTypeParseException:
        return None
    if not best:
        media_types = ", ".join([JSON, *MEDIA_TYPES.values()])
        raise NotAcceptable(f"a response can be one of {media_types}: accept one of them")
    return next((encoding for encoding in offered if MEDIA_TYPES[encoding] == best), None)


def without_events(accept: str) -> tuple[str, bool]:
    """Take server-sent events out of an Accept header, and return whether they were in it.

    They must be named, and not with quality 0: ranges such as `*/*` do not ask for them (EXT-4).
    """
    kept, found = [], False
    for part in accept.split(","):
        name, *parameters = part.lower().replace(" ", "").replace("\t", "").split(";")
        if name == EVENTS:
            found = found or not any(re.fullmatch(r"q=0(\.0*)?", each) for each in parameters)
        else:
            kept.append(part)
    return ",".join(kept), found


def redirectable(user_agent: str) -> bool:
    """Whether a client can be sent to another host for its result."""
    return REDIRECTABLE.fullmatch(user_agent) is not None
