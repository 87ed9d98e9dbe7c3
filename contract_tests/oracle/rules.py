"""The rules that responses are judged by, and what supports each.

A check may be strict only about what a source supports. So each rule names its sources, and what
of it is our own choice: that part binds only our own implementations.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from contract_tests.oracle.limits import (
    MAX_FIELDS,
    MAX_INPUT_PX,
    MAX_NAME,
    MAX_OUTPUT_PX,
    MIN_INPUT_PX,
)
from contract_tests.oracle.values import ENCODINGS, FILES, MODELS


class Source(StrEnum):
    """Where a rule comes from."""

    PAGE = "page"
    """OctoAI's documentation page of the Upscaling REST API, July 2024."""
    SCHEMA = "schema"
    """OctoAI's OpenAPI description of its media utilities, July 2024."""
    OLD_PAGE = "old page"
    """An earlier version of the documentation page."""
    PLATFORM = "platform"
    """OctoAI's pages on asynchronous inference, rate limits, and trust and safety."""
    CLIENT = "client"
    """OctoAI's own clients, on PyPI and npm."""
    CHOICE = "choice"
    """No source says, so somebody had to decide."""


PAGE, SCHEMA, OLD_PAGE, PLATFORM, CLIENT, CHOICE = Source


@dataclass(frozen=True)
class Rule:
    """`chosen` is the part of a rule that no source supports, if it is neither all nor nothing."""

    id: str
    sentence: str
    sources: tuple[Source, ...]
    chosen: str = ""

    @property
    def documented(self) -> bool:
        """Whether any part of it may be required of the real API."""
        return self.sources != (CHOICE,)


_ALL: Final = (
    Rule(
        "REQ-1",
        "An upscaling is a POST of one JSON object to /upscaling; other methods and paths are "
        "refused.",
        (PAGE, SCHEMA, CHOICE),
        "what other methods and paths get, and the status of what is no JSON object",
    ),
    Rule(
        "REQ-2",
        "Requests need a valid bearer token in Authorization.",
        (PAGE, CHOICE),
        "the status 401, its WWW-Authenticate, and that the scheme may be in any case, with "
        "several spaces behind it",
    ),
    Rule(
        "REQ-3",
        "The Content-Type is application/json; parameters of it are ignored. Any other is refused.",
        (PAGE, CHOICE),
        "the refusal",
    ),
    Rule(
        "REQ-4",
        "There is exactly one image: base64 in init_image or a URL in init_image_url. "
        "null means absent.",
        (PAGE, SCHEMA, OLD_PAGE, CHOICE),
        "the status 422, where the error is, and that an empty text is an image",
    ),
    Rule(
        "REQ-5",
        "There is exactly one size: scale, output_image_height or output_image_width. "
        "null means absent.",
        (PAGE, SCHEMA, CHOICE),
        "the status 422, and where the error is",
    ),
    Rule(
        "REQ-6",
        "The scale is a number. It is finite and above 0, and may be below 1.",
        (SCHEMA, CHOICE),
        "the bounds",
    ),
    Rule(
        "REQ-7",
        "A height or width is an integer of at least 1; the other side keeps the aspect ratio.",
        (PAGE, SCHEMA, CHOICE),
        "the bound",
    ),
    Rule(
        "REQ-8",
        f"The model is one of {len(MODELS)} names, by default {MODELS[0]}.",
        (PAGE, SCHEMA, CHOICE),
        "that a header X-Upscaler-Model names the one that was used",
    ),
    Rule(
        "REQ-9",
        f"The encoding is {' or '.join(ENCODINGS)}; the default is png on the page and jpeg in the "
        "schema.",
        (PAGE, SCHEMA, CHOICE),
        "png, where the two disagree",
    ),
    Rule(
        "REQ-10",
        "face_enhance is true or false, by default false. Without a face model true is refused.",
        (SCHEMA, CHOICE),
        "the refusal",
    ),
    Rule(
        "REQ-11",
        f"Unknown fields are refused. More than {MAX_FIELDS} fields are refused as a whole, and "
        f"errors contain at most {MAX_NAME} characters of a name.",
        (SCHEMA, CHOICE),
        "the bounds",
    ),
    Rule(
        "REQ-12",
        "Values are parsed as pydantic 2 does by default: a numeric string is a number.",
        (SCHEMA, CHOICE),
        "all but what the schema itself allows or forbids",
    ),
    Rule(
        "REQ-13",
        f"The input has {MIN_INPUT_PX} to {MAX_INPUT_PX} pixels on each side.",
        (PAGE, CHOICE),
        "the status 422, and that WebP and unusual kinds of PNG and JPEG are read",
    ),
    Rule(
        "REQ-14",
        f"The output has at most {MAX_OUTPUT_PX} pixels on each side.",
        (PAGE, CHOICE),
        "the status 422",
    ),
    Rule(
        "REQ-15",
        "Both limits are checked by the image's header; the 422 is located at the field of the "
        "image or of the size.",
        (CHOICE,),
    ),
    Rule(
        "REQ-16",
        "A requested side is exact. A computed side is rounded half up, without binary rounding "
        "errors, and is at least 1.",
        (PAGE, CHOICE),
        "the rounding of what has a fraction: any other differs by a pixel",
    ),
    Rule(
        "REQ-17",
        "init_image is an image file in standard base64. A prefix data:image/...;base64, and line "
        "breaks are accepted; other characters, wrong padding and an empty string are refused.",
        (PAGE, CHOICE),
        "what is tolerated, as the prefix in any case, the status 422, and that a file that is cut "
        "off is refused",
    ),
    Rule("REQ-18", "Unknown headers are ignored.", (PLATFORM,)),
    Rule(
        "REQ-19",
        "All errors of the fields are reported at once, then those of the image, of its size, and "
        "of the output's size.",
        (CHOICE,),
    ),
    Rule(
        "RES-1",
        "A result is a 200 with image_b64 and removed_for_safety, and nothing else.",
        (SCHEMA, CHOICE),
        "white space before it, that there is nothing else, which the schema does not forbid, and "
        "that the JSON has no byte order mark and no name twice",
    ),
    Rule(
        "RES-2",
        "image_b64 is standard base64 on one line, of a file in the requested encoding and size.",
        (PAGE, SCHEMA, CHOICE),
        "that transparency is kept in a PNG and put on white in a JPEG, and that the EXIF "
        "orientation is applied",
    ),
    Rule(
        "RES-3",
        "If removed_for_safety is true, image_b64 is null.",
        (SCHEMA, PLATFORM),
    ),
    Rule(
        "RES-4",
        "An invalid request gets a 422 with a list of loc, msg and type. The loc begins with body "
        "or header and ends with the field, and no value of the request is repeated.",
        (SCHEMA, CHOICE),
        "how a loc begins and ends, that there is at least one error, and that no value is "
        "repeated",
    ),
    Rule(
        "RES-5",
        "Above a rate limit the response is a 429 with Retry-After, which a 503 has, too. Clients "
        "retry a 429 and a 5xx, so a client error is never a 5xx.",
        (PLATFORM, CLIENT, CHOICE),
        "the header",
    ),
    Rule(
        "RES-6",
        "Every response has the header X-User-Request-ID: that of the request, or a new one.",
        (CLIENT, CHOICE),
        "all but the name: the clients read it only if it is there",
    ),
    Rule(
        "RES-7",
        'Other errors are {"detail": "..."}; 404, 405 and 413 are used as HTTP defines them.',
        (CHOICE,),
    ),
    Rule(
        "RES-8",
        f"Accept: application/json, */* or none gets JSON; {' and '.join(FILES.values())} get the "
        "file itself; anything else gets a 406.",
        (PAGE, CHOICE),
        "the files, the 406 and the header Vary",
    ),
    Rule(
        "RES-9",
        "GET /healthcheck is a 200 without a token while requests are accepted.",
        (SCHEMA, CLIENT),
    ),
    Rule(
        "ASY-1",
        "With the header X-OctoAI-Async: 1 the response comes at once with response_id and "
        "poll_url, and errors of the request are reported at once.",
        (PLATFORM, CLIENT, CHOICE),
        "the status 200 of all 2xx",
    ),
    Rule(
        "ASY-2",
        "GET poll_url with the token returns pending, running, or completed with a response_url.",
        (PLATFORM, CLIENT),
    ),
    Rule(
        "ASY-3",
        "GET response_url with the token returns what the synchronous request would have.",
        (PLATFORM, CLIENT, CHOICE),
        "that the Accept of the POST counts, and not that of the GET",
    ),
    Rule(
        "ASY-4",
        "An asynchronous body above 10 MB gets a 413, an unknown id a 404.",
        (PLATFORM,),
    ),
    Rule("ASY-5", "An id cannot be guessed, and is useless without a valid token.", (CHOICE,)),
    Rule(
        "EXT-1",
        "A request that is sent again with its Idempotency-Key gets the same job and response; "
        "another request with that key is refused.",
        (CHOICE,),
    ),
    Rule(
        "EXT-2",
        "DELETE of a poll_url is a 204, after which the inference and its result are unknown.",
        (CHOICE,),
    ),
    Rule(
        "EXT-3",
        "GET /v1/requests lists the inferences of a token, the newest first and page by page.",
        (CHOICE,),
    ),
    Rule(
        "EXT-4",
        "An inference can be watched as server-sent events, of /v1/requests/{id}/events or of a "
        "POST that accepts text/event-stream, until it is completed.",
        (CHOICE,),
    ),
    Rule(
        "EXT-5",
        "The URL in X-Upscaler-Webhook is told that an inference is completed, signed as Standard "
        "Webhooks has it, until it says that it knows.",
        (CHOICE,),
    ),
    Rule(
        "EXT-6",
        "POST /v1/batches takes several requests as JSON lines or files of a form. Each is a job, "
        "whose result is a file, or has an error of its own.",
        (CHOICE,),
    ),
)
RULES: Final = {rule.id: rule for rule in _ALL}
"""Each rule by its id."""
EXTENSIONS: Final = frozenset(name for name in RULES if name.startswith("EXT-"))
"""The rules of what OctoAI had not: a target may lack it."""
CHECKED_IN_EVERY_RESPONSE: Final = frozenset({"RES-6"})
"""Checked in every response beside what a test is about: finding them broken ends no test."""
