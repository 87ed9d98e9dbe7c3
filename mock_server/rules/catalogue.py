"""The rules of the API, and what supports each: OctoAI's documents and clients, or our choice.

docs/CONTRACT.md has the same rules in full, with the same IDs and the same support.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Final, NamedTuple

from upscaler.api.limits import (
    ASYNC_MAX_BODY_BYTES,
    MAX_BODY_BYTES,
    MAX_INPUT_PX,
    MAX_OUTPUT_PX,
    MIN_INPUT_PX,
    RESULT_LIFETIME_S,
)
from upscaler.api.request import UpscalingRequest
from upscaler.formats import ImageEncoding
from upscaler.models import MODELS

WIDTH: Final = 96
"""The longest line of `upscaler-mock --rules`."""

LABELS: Final = {
    "page": "documented",
    "platform": "documented",
    "schema": "published schema",
    "client": "observed in clients",
    "ours": "our choice",
}
"""How faithful a rule is to the original, by the kinds of source in its support."""
SOURCES: Final = {
    "page": "OctoAI's documentation page of the Upscaling REST API, as of July 2024",
    "schema": "the OpenAPI 3.1 description that it published of its media utilities, July 2024",
    "platform": "its pages on asynchronous inference, rate limits, and trust and safety",
    "client": "its clients on PyPI (octoai 1.11.0, octoai-sdk 0.10.1) and npm",
    "ours": "no source says, so we had to choose",
}
"""What each kind of source is."""


class Rule(NamedTuple):
    """A rule by its ID. `support` names its sources, as docs/CONTRACT.md does."""

    id: str
    text: str
    support: str

    @property
    def fidelity(self) -> tuple[str, ...]:
        """The labels of its sources, each once."""
        return tuple(dict.fromkeys(LABELS[word] for word in LABELS if word in self.support))


_MIB: Final = 2**20
_DEFAULT_MODEL: Final = UpscalingRequest.model_fields["model"].default
_ENCODINGS: Final = " or ".join(ImageEncoding)
_MEDIA_TYPES: Final = " and ".join(encoding.media_type for encoding in ImageEncoding)

RULES: Final = (
    Rule(
        "REQ-1",
        "POST /upscaling with one JSON object as its body",
        "page, schema; what other methods and paths get is ours",
    ),
    Rule(
        "REQ-2",
        "the header Authorization: Bearer TOKEN is required, or else it is a 401",
        "page; the status, its challenge, and how the scheme may be written are ours",
    ),
    Rule(
        "REQ-3",
        "the header Content-Type: application/json is required, or else it is a 422",
        "page; the refusal is ours",
    ),
    Rule(
        "REQ-4",
        "exactly one of init_image and init_image_url is given; null counts as absent",
        "page, schema; the status, and where the error is, are ours",
    ),
    Rule(
        "REQ-5",
        "exactly one of scale, output_image_height and output_image_width is given; null counts as "
        "absent",
        "page, schema; the status, and where the error is, are ours",
    ),
    Rule("REQ-6", "scale is a finite number above 0", "schema; the bounds are ours"),
    Rule(
        "REQ-7",
        "output_image_height and output_image_width are integers of at least 1, and the other side "
        "keeps the aspect ratio",
        "page, schema; the bound is ours",
    ),
    Rule(
        "REQ-8",
        f"model is one of {len(MODELS)} names, by default {_DEFAULT_MODEL}",
        "page, schema; what the header of a response says of it is ours",
    ),
    Rule(
        "REQ-9",
        f"output_image_encoding is {_ENCODINGS}. Its default is png, as the page has it, and in "
        "the dialect octoai jpeg, as the schema has it",
        "page, schema",
    ),
    Rule(
        "REQ-10",
        "face_enhance is a boolean, by default false; true restores faces, and without a face "
        "model it is a 422, or ignored by --face-enhance ignore",
        "schema; the 422s and headers are ours",
    ),
    Rule(
        "REQ-11",
        "an unknown field is a 422, and so are more fields or values than any request has",
        "schema; the bounds are ours",
    ),
    Rule(
        "REQ-12",
        'values are coerced as pydantic 2 does by default: "2.5" is a number, "abc" is not',
        "ours, from the shape of the schema",
    ),
    Rule(
        "REQ-13",
        f"both sides of the input have {MIN_INPUT_PX} to {MAX_INPUT_PX} pixels",
        "page; the status, and which other files are read, are ours",
    ),
    Rule(
        "REQ-14",
        f"both sides of the output have at most {MAX_OUTPUT_PX} pixels",
        "page; the status is ours",
    ),
    Rule(
        "REQ-15",
        "REQ-13 and REQ-14 are checked by the header of the image, before its pixels are decoded",
        "ours",
    ),
    Rule(
        "REQ-16",
        "the size of the output: a computed side is rounded half up, by exact arithmetic on the "
        "decimal as written, and is at least 1",
        "page; the rounding, where there is a fraction, is ours",
    ),
    Rule(
        "REQ-17",
        "init_image is standard base64 of an encoded image; a prefix data:image/...;base64, and "
        "line breaks are tolerated, and nothing else",
        "page; the tolerance and the status are ours",
    ),
    Rule("REQ-18", "unknown headers are ignored, X-OctoAI-Queue-Dispatch among them", "platform"),
    Rule(
        "REQ-19",
        "errors are reported in this order: path and method, token, body size, content type, "
        "content coding, JSON, fields (all of a request's at once), Accept, the image, input "
        "size, output size",
        "ours",
    ),
    Rule(
        "RES-1",
        "an image is 200 with image_b64 and removed_for_safety; spaces may come before the JSON",
        "schema; the spaces, and that there is nothing else, are ours",
    ),
    Rule(
        "RES-2",
        f"image_b64 is standard base64, without line breaks, of one {_ENCODINGS.upper()} of "
        "exactly the size of REQ-16",
        "page, schema; what becomes of transparency and orientation is ours",
    ),
    Rule("RES-3", "removed_for_safety: true goes with a null image_b64", "schema, platform"),
    Rule(
        "RES-4",
        "a broken rule is a 422 with a list of loc, msg and type; no value is repeated in it",
        "schema; how `loc` begins and ends, and no repeating, are ours",
    ),
    Rule(
        "RES-5",
        "429 with Retry-After when a rate limit is hit: 10 requests a minute free, 60 for pro. "
        "Clients retry 429 and 5xx, so a client's fault is never a 5xx",
        "platform, client; the header is ours",
    ),
    Rule(
        "RES-6",
        "every response has the header X-User-Request-ID: the request's own, or a new one",
        "client; that it is always there is ours",
    ),
    Rule(
        "RES-7",
        'other errors are {"detail": "..."}: 400, 401, 404, 405, 406, 408, '
        f"413 (above {MAX_BODY_BYTES // _MIB} MiB), 415, 431, 500, 503",
        "ours",
    ),
    Rule(
        "RES-8",
        f"Accept: application/json, */* or none gets JSON, {_MEDIA_TYPES} the file "
        "itself; 406 if it names no type that a response can have",
        "page; the files, the 406 and `Vary` are ours",
    ),
    Rule(
        "RES-9",
        "GET /healthcheck is 200, without a token, when requests are taken",
        "schema, client; the 503 is ours",
    ),
    Rule(
        "ASY-1",
        "the header X-OctoAI-Async: 1 on the same POST is answered at once with response_id and "
        "poll_url; errors in the request are reported at once, too",
        "platform, client; the 200 is ours",
    ),
    Rule(
        "ASY-2",
        "GET poll_url with the token says pending, running, or completed with a response_url",
        "platform, client",
    ),
    Rule(
        "ASY-3",
        "GET response_url with the token gives what the synchronous call would have given; until "
        "it is completed: 404",
        "platform, client; that the POST counts is ours",
    ),
    Rule(
        "ASY-4",
        f"an asynchronous body has at most {ASYNC_MAX_BODY_BYTES // _MIB} MiB, 413 above; results "
        f"are kept for {RESULT_LIFETIME_S // 3600} hours, and after that, or for an unknown id: "
        "404",
        "platform",
    ),
    Rule("ASY-5", "an ID cannot be guessed, and is useless without a valid token", "ours"),
    Rule("OWN-1", "X-Upscaler-Dry-Run: 1 validates the request and upscales nothing", "ours"),
    Rule(
        "OWN-2",
        "responses with an image have Server-Timing and X-Upscaler-... headers that describe it",
        "ours",
    ),
    Rule(
        "OWN-3",
        "a download that fails, or is not an image, is a 422 on init_image_url, of a type that "
        "says why",
        "ours",
    ),
    Rule(
        "OWN-4",
        "when the queue is full, or all memory is in use, a request is a 503 with Retry-After",
        "ours",
    ),
    Rule(
        "OWN-5",
        "GET /livez, GET /metrics with the token, and GET / for people; HEAD wherever there is "
        "GET, and OPTIONS everywhere",
        "ours",
    ),
    Rule(
        "OWN-6",
        "a body in gzip or deflate is decoded, and limits apply to the decoded body; any other "
        "Content-Encoding is a 415",
        "ours",
    ),
    Rule(
        "EXT-1",
        "a request that is sent again with its Idempotency-Key gets the same job and response; "
        "another request with it is a 422",
        "ours",
    ),
    Rule("EXT-2", "DELETE of a poll_url stops the inference, or removes its result", "ours"),
    Rule("EXT-3", "GET /v1/requests lists the inferences of a token, the newest first", "ours"),
    Rule(
        "EXT-4",
        "an inference can be watched as server-sent events, of /v1/requests/{id}/events, or of a "
        "POST that accepts text/event-stream",
        "ours",
    ),
    Rule(
        "EXT-5",
        "the URL in X-Upscaler-Webhook is told that an inference is completed, as Standard "
        "Webhooks has it",
        "ours",
    ),
    Rule("EXT-6", "POST /v1/batches takes up to 1000 requests, each of which is a job", "ours"),
)
ORDER: Final = {rule.id: number for number, rule in enumerate(RULES)}
"""The position of each rule."""


def format_text() -> Iterator[str]:
    """Yield the lines of all rules for people, and of what each kind of source is."""
    for rule in RULES:
        yield from textwrap.wrap(
            rule.text, WIDTH, initial_indent=f"{rule.id:8}", subsequent_indent=" " * 8
        )
        yield from textwrap.wrap(
            f"[{', '.join(rule.fidelity)}] {rule.support}",
            WIDTH,
            initial_indent=" " * 8,
            subsequent_indent=" " * 8,
        )
        yield ""
    for word, meaning in SOURCES.items():
        yield f"{word:10}{meaning}"


def format_json() -> Iterator[str]:
    """Yield all rules as JSON: a list of objects."""
    rules = [{**rule._asdict(), "fidelity": rule.fidelity} for rule in RULES]
    yield json.dumps(rules, indent=2)
