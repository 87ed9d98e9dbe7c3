"""The rules that a request and its answer are judged by, and what supports each.

A check may be strict only about what a source supports. So each rule names its sources, and what
of it is the choice of whoever wrote it down: that part binds our own implementations alone.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Source(StrEnum):
    """Where a rule is from."""

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
    """No source speaks, and somebody had to decide."""


PAGE, SCHEMA, OLD_PAGE, PLATFORM, CLIENT, CHOICE = Source


@dataclass(frozen=True)
class Rule:
    """A rule by its id. `chosen` says what of it no source supports, if not all or nothing."""

    id: str
    sentence: str
    sources: tuple[Source, ...]
    chosen: str = ""

    @property
    def documented(self) -> bool:
        """Whether any part of it may be asked of the real API."""
        return self.sources != (CHOICE,)


_ALL: Final = (
    Rule("REQ-1", "An upscaling is a POST of one JSON object to /upscaling.", (PAGE, SCHEMA)),
    Rule(
        "REQ-2",
        "Who asks sends a bearer token in Authorization, and gets nothing without a valid one.",
        (PAGE, CHOICE),
        "the status 401",
    ),
    Rule(
        "REQ-3",
        "The body is declared as application/json; parameters of that type do no harm.",
        (PAGE, CHOICE),
        "the status 422",
    ),
    Rule(
        "REQ-4",
        "The picture is given once: as base64 in init_image or as a URL in init_image_url. "
        "A null is as good as nothing.",
        (PAGE, SCHEMA, OLD_PAGE),
    ),
    Rule(
        "REQ-5",
        "The size is asked for once: by scale, output_image_height or output_image_width. "
        "A null is as good as nothing.",
        (PAGE, SCHEMA),
    ),
    Rule(
        "REQ-6",
        "The scale is a number. It is finite and above 0, and may be below 1.",
        (SCHEMA, CHOICE),
        "the bounds",
    ),
    Rule(
        "REQ-7",
        "A height or width is an integer from 1 up, and the other side keeps the aspect ratio.",
        (PAGE, SCHEMA, CHOICE),
        "the bound",
    ),
    Rule(
        "REQ-8",
        "The model is one of six by name, and real-esrgan-x4-plus if none is named.",
        (PAGE, SCHEMA),
    ),
    Rule(
        "REQ-9",
        "The encoding is png or jpeg. If none is named, the page has png and the schema jpeg.",
        (PAGE, SCHEMA, CHOICE),
        "png, where the two disagree",
    ),
    Rule(
        "REQ-10",
        "face_enhance is true or false, by default false. Who has no face model refuses true.",
        (SCHEMA, CHOICE),
        "the refusal",
    ),
    Rule(
        "REQ-11",
        "A field that is not one of the eight is refused. More than 100 fields are refused as a "
        "whole, and of a name at most 100 characters are told.",
        (SCHEMA, CHOICE),
        "the bounds",
    ),
    Rule(
        "REQ-12",
        "Values are read as pydantic 2 reads them by default: a string that is a number is one.",
        (SCHEMA, CHOICE),
        "all but what the schema itself allows or forbids",
    ),
    Rule("REQ-13", "The input has 256 to 2048 pixels on each side.", (PAGE,)),
    Rule("REQ-14", "The output has at most 8192 pixels on each side.", (PAGE,)),
    Rule(
        "REQ-15",
        "Both are told from the picture's header, with a 422 on the field that gave the picture "
        "or the one that asked for the size.",
        (CHOICE,),
    ),
    Rule(
        "REQ-16",
        "A side that is asked for is made as asked. One that is computed is rounded half up, "
        "exactly, and is at least 1.",
        (PAGE, CHOICE),
        "the rounding: another one differs by a pixel",
    ),
    Rule(
        "REQ-17",
        "init_image is a picture's file in standard base64. A prefix data:image/...;base64, and "
        "line breaks do no harm; other characters, wrong padding and nothing at all are refused.",
        (PAGE, CHOICE),
        "what is tolerated",
    ),
    Rule("REQ-18", "Headers that mean nothing here are ignored.", (PLATFORM,)),
    Rule(
        "REQ-19",
        "What is wrong with the fields is told at once, then what is wrong with the picture, then "
        "its size, then the size of the output.",
        (CHOICE,),
    ),
    Rule(
        "RES-1",
        "A picture is a 200 with image_b64 and removed_for_safety, both always there.",
        (SCHEMA, CHOICE),
        "spaces before it",
    ),
    Rule(
        "RES-2",
        "image_b64 is standard base64 on one line, of a file in the encoding and size asked for.",
        (PAGE, SCHEMA),
    ),
    Rule(
        "RES-3",
        "Where removed_for_safety is true, image_b64 is null.",
        (SCHEMA, PLATFORM),
    ),
    Rule(
        "RES-4",
        "A broken rule is a 422 with a list of loc, msg and type. The loc begins with body or "
        "header and ends with the field, and no value that was sent is repeated.",
        (SCHEMA, CHOICE),
        "that nothing is repeated",
    ),
    Rule(
        "RES-5",
        "Over a rate limit the answer is a 429 with Retry-After. Clients ask again after a 429 and "
        "a 5xx, so a client's own fault is never a 5xx.",
        (PLATFORM, CLIENT, CHOICE),
        "the header",
    ),
    Rule(
        "RES-6",
        "Every answer has the header X-User-Request-ID: the request's own, or a new one.",
        (CLIENT, CHOICE),
        "that the request's own is kept",
    ),
    Rule(
        "RES-7",
        'Other errors are {"detail": "..."}, and 404, 405 and 413 are what HTTP has them for.',
        (CHOICE,),
    ),
    Rule(
        "RES-8",
        "Accept: application/json, */* or none gets JSON. image/png and image/jpeg get the file "
        "itself, and what cannot be given is a 406.",
        (PAGE, CHOICE),
        "the files and the 406",
    ),
    Rule(
        "RES-9",
        "GET /healthcheck is a 200, without a token, if work is taken.",
        (SCHEMA, CLIENT),
    ),
    Rule(
        "ASY-1",
        "The header X-OctoAI-Async: 1 on the same POST is answered at once with response_id and "
        "poll_url, and what is wrong with the request is told at once.",
        (PLATFORM, CLIENT, CHOICE),
        "the status 200 among all of 2xx",
    ),
    Rule(
        "ASY-2",
        "GET poll_url with the token says pending, running, or completed with a response_url.",
        (PLATFORM, CLIENT),
    ),
    Rule(
        "ASY-3",
        "GET response_url with the token gives what the synchronous request would have given.",
        (PLATFORM, CLIENT),
    ),
    Rule(
        "ASY-4",
        "An asynchronous body has at most 10 MB, or it is a 413; an unknown id is a 404.",
        (PLATFORM,),
    ),
    Rule("ASY-5", "An id cannot be guessed, and is of no use without a valid token.", (CHOICE,)),
)
RULES: Final = {rule.id: rule for rule in _ALL}
"""Each rule by its id."""
CHECKED_IN_EVERY_RESPONSE: Final = frozenset({"RES-6"})
"""Judged in every answer beside what a test is about: to find them broken ends no test."""
