"""Parses the values of fields, and tells whether a source or our choice supports each value.

Values are as `json.loads` returns them. REQ-12 has them parsed as pydantic 2 does by default, by
its conversion table: a number may be a string, an integer a float without a fraction, a boolean 0,
1 or one of some words, and a number true or false. Names and texts are strings alone.
"""

import math
import re
from enum import Enum
from typing import Final, NamedTuple

MODELS: Final = (
    "real-esrgan-x4-plus",
    "real-esrgan-x4-v3",
    "real-esrgan-x4-v3-wdn",
    "real-esrgan-animevideo-v3",
    "real-esrgan-x4-plus-anime",
    "real-esrgan-x2-plus",
)
"""The names of models, the default first (REQ-8)."""
FILES: Final = {"png": "image/png", "jpeg": "image/jpeg"}
"""The media types of the encodings by their names, our default first (REQ-9, RES-8)."""
ENCODINGS: Final = tuple(FILES)


class Support(Enum):
    """What the rules say about a value."""

    ALLOWED = "a source allows it"
    TOLERATED = "our choice allows it"
    OPTIONAL = "an implementation may accept or refuse it"
    DISALLOWED = "our choice forbids it"
    FORBIDDEN = "a source forbids it, but names no status"
    INVALID = "the schema forbids it, with a 422"

    @property
    def refused(self) -> bool:
        return self in (Support.DISALLOWED, Support.FORBIDDEN, Support.INVALID)


ALLOWED, TOLERATED, OPTIONAL, DISALLOWED, FORBIDDEN, INVALID = Support


class Parsed(NamedTuple):
    """A parsed value, or None; what the rules say about it, and which rule does."""

    value: object
    support: Support
    rule: str


# Unicode's White_Space, as pydantic strips it. Python's strip() takes four control characters more.
_WHITE_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_INTEGER: Final = re.compile(r"([+-]?[0-9]+)(?:\.0+)?")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_BEYOND_INT64: Final = 2.0**63
"""pydantic accepts no float from here on as an integer, though it does accept such an int."""
_TRUE_WORDS: Final = ("1", "on", "t", "true", "y", "yes")
_FALSE_WORDS: Final = ("0", "off", "f", "false", "n", "no")

_DATA_URL_PREFIX: Final = re.compile(r"data:image/[a-z0-9_.+-]+;base64,", re.IGNORECASE | re.ASCII)
_BASE64_GROUPS: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*")
_BASE64_END: Final = re.compile(r"(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def scale(raw: object) -> Parsed:
    """A float above 0 (REQ-6)."""
    value = _to_float(raw)
    if value is None:
        return Parsed(None, INVALID, "REQ-12")
    if not math.isfinite(value) or value <= 0:
        return Parsed(None, DISALLOWED, "REQ-6")
    if isinstance(raw, bool | str):
        return Parsed(value, _coerced(raw), "REQ-12")
    return Parsed(value, ALLOWED if value >= 1 else TOLERATED, "REQ-6")


def side(raw: object) -> Parsed:
    """An int from 1 up (REQ-7)."""
    value = _to_int(raw)
    if value is None:
        # To the schema a number without a fraction is an integer, however large.
        is_integer = isinstance(raw, float) and raw.is_integer()
        return Parsed(None, DISALLOWED if is_integer else INVALID, "REQ-12")
    if value < 1:
        return Parsed(None, DISALLOWED, "REQ-7")
    return Parsed(value, _coerced(raw) if isinstance(raw, bool | str) else ALLOWED, "REQ-12")


def _coerced(raw: bool | str) -> Support:
    """The table does not cover `1_000`, and pydantic does not treat all fields alike."""
    return OPTIONAL if isinstance(raw, str) and "_" in raw else TOLERATED


def _to_float(raw: object) -> float | None:
    """The value as a float, infinite if it is beyond all floats, or None if it is no number."""
    if isinstance(raw, str):
        text = _strip(raw)
        return float(text) if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text) else None
    if not isinstance(raw, int | float):
        return None
    try:
        return float(raw)
    except OverflowError:
        return math.inf


def _to_int(raw: object) -> int | None:
    """The value as an int, or None."""
    if isinstance(raw, str):
        found = _INTEGER.fullmatch(_strip(raw))
        try:
            return int(found[1]) if found else None
        except ValueError:  # of more than 4300 digits, for Python and for pydantic
            return None
    if isinstance(raw, float):
        whole = raw.is_integer() and abs(raw) < _BEYOND_INT64
        return int(raw) if whole else None
    return int(raw) if isinstance(raw, int) else None


def _strip(text: str) -> str:
    return text.strip(_WHITE_SPACE).replace("_", "")


def flag(raw: object) -> Parsed:
    """A bool (REQ-10). An implementation without a face model may refuse true."""
    word = raw.lower() if isinstance(raw, str) else raw
    if word in (*_TRUE_WORDS, 1):
        return Parsed(True, OPTIONAL, "REQ-10")
    if word in (*_FALSE_WORDS, 0):
        return Parsed(False, ALLOWED if raw is False else TOLERATED, "REQ-12")
    return Parsed(None, INVALID, "REQ-10")


def model(raw: object) -> Parsed:
    """One of the models' names (REQ-8). The schema allows no null."""
    return Parsed(raw, ALLOWED if raw in MODELS else INVALID, "REQ-8")


def encoding(raw: object) -> Parsed:
    """One of the encodings' names (REQ-9). The schema allows no null."""
    return Parsed(raw, ALLOWED if raw in ENCODINGS else INVALID, "REQ-9")


def url(raw: object) -> Parsed:
    """Any string: what is behind the URL is another question."""
    return Parsed(raw, ALLOWED if isinstance(raw, str) else INVALID, "REQ-12")


def base64(raw: object) -> Parsed:
    """Standard base64 of anything, less the tolerated prefix and line breaks (REQ-17)."""
    if not isinstance(raw, str):
        return Parsed(None, INVALID, "REQ-12")
    prefix = _DATA_URL_PREFIX.match(raw)
    text = raw[prefix.end() if prefix else 0 :].replace("\r", "").replace("\n", "")
    if not text:
        return Parsed(None, FORBIDDEN, "REQ-17")
    # In two steps: one pattern would backtrack over all of a long text.
    fours = _BASE64_GROUPS.match(text)
    if fours is None or not _BASE64_END.fullmatch(text, fours.end()):
        return Parsed(None, DISALLOWED, "REQ-17")
    return Parsed(text, ALLOWED if text == raw else TOLERATED, "REQ-17")


FIELDS: Final = {
    "init_image": base64,
    "init_image_url": url,
    "scale": scale,
    "output_image_height": side,
    "output_image_width": side,
    "model": model,
    "output_image_encoding": encoding,
    "face_enhance": flag,
}
"""The parser of each field. There are no other fields (REQ-11)."""
