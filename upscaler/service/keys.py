"""Idempotency-Keys: how a request that is sent again is known (EXT-1).

As the draft of the IETF has them (draft-ietf-httpapi-idempotency-key-header).
"""

import hashlib
import re
from typing import Final

from fastapi import Request

from upscaler.api.request import UpscalingRequest
from upscaler.errors import FieldError, InvalidRequest
from upscaler.formats import ImageEncoding
from upscaler.service.jobs.store import KEY_HEADER

MOST_KEY: Final = 255
KEY: Final = re.compile(f"[!-~]{{1,{MOST_KEY}}}")
"""An Idempotency-Key: printable ASCII without spaces."""


def key_of(request: Request) -> str | None:
    """The key of a request, if it has one. Raises InvalidRequest for one that is none."""
    given = request.headers.get(KEY_HEADER)
    if given is None:
        return None
    # The draft has a string of RFC 9651, in quotes; most clients leave them out.
    key = re.sub(r'\A"(.*)"\Z', r"\1", given)
    if not KEY.fullmatch(key):
        msg = f"must have 1 to {MOST_KEY} characters of ASCII, such as a UUID"
        raise InvalidRequest(FieldError(("header", KEY_HEADER), msg, "idempotency_key_invalid"))
    return key


def fingerprint(wanted: UpscalingRequest, kind: ImageEncoding | None) -> str:
    """What is the same for equal requests, and for no others, as far as the response goes."""
    fields = wanted.model_dump(exclude={"init_image"})
    digest = hashlib.sha256(repr((sorted(fields.items()), kind)).encode())
    digest.update(wanted.init_image or b"")
    return digest.hexdigest()
