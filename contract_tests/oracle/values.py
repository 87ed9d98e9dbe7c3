"""What the value of a field is, and whether a source or our choice says so.

A value is as `json.loads` gives it. REQ-12 has values read as pydantic 2 does by default, and its
conversion table says: a number also from a string that is one, an integer also from a float
without a fraction, a boolean also from 0, 1 and some words, a boolean for a number as 0 or 1. A
name and a text come from strings alone.
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
"""The names that a model may have, the default first (REQ-8)."""
ENCODINGS: Final = ("png", "jpeg")
"""The names that an encoding may have, our default first (REQ-9)."""


class Support(Enum):
    """How a value stands to the rules."""

    ALLOWED = "a source allows it"
    TOLERATED = "our choice allows it"
    OPTIONAL = "an implementation may refuse it, and may take it"
    DISALLOWED = "our choice forbids it"
    FORBIDDEN = "a source forbids it, and does not say with which status"
    INVALID = "the schema forbids it, with a 422"

    @property
    def refused(self) -> bool:
        return self in (Support.DISALLOWED, Support.FORBIDDEN, Support.INVALID)


ALLOWED, TOLERATED, OPTIONAL, DISALLOWED, FORBIDDEN, INVALID = Support


class Parsed(NamedTuple):
    """What a value is read as, if anything, how it stands, and to which rule."""

    value: object
    support: Support
    rule: str


# Unicode's White_Space. Python's own strip() takes four control characters more.
_SPACES: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_INTEGER: Final = re.compile(r"([+-]?[0-9]+)(?:\.0+)?")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BEYOND_INT64: Final = 2.0**63
"""A float from here on is none of pydantic's integers, though an int may be."""
_YES: Final = ("1", "on", "t", "true", "y", "yes")
_NO: Final = ("0", "off", "f", "false", "n", "no")

_PREFIX: Final = re.compile(r"data:image/[a-z0-9_.+-]+;base64,", re.IGNORECASE | re.ASCII)
_FOURS: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*")
_LAST: Final = re.compile(r"(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def scale(raw: object) -> Parsed:
    """A float above 0 (REQ-6)."""
    value = _float(raw)
    if value is None:
        return Parsed(None, INVALID, "REQ-12")
    if not math.isfinite(value) or value <= 0:
        return Parsed(None, DISALLOWED, "REQ-6")
    if isinstance(raw, bool | str):
        return Parsed(value, _coerced(raw), "REQ-12")
    return Parsed(value, ALLOWED if value >= 1 else TOLERATED, "REQ-6")


def side(raw: object) -> Parsed:
    """An int from 1 up (REQ-7)."""
    value = _int(raw)
    if value is None:
        # To the schema a number without a fraction is an integer, however large.
        is_integer = isinstance(raw, float) and raw.is_integer()
        return Parsed(None, DISALLOWED if is_integer else INVALID, "REQ-12")
    if value < 1:
        return Parsed(None, DISALLOWED, "REQ-7")
    return Parsed(value, _coerced(raw) if isinstance(raw, bool | str) else ALLOWED, "REQ-12")


def _coerced(raw: bool | str) -> Support:
    """Of `1_000` the table says nothing, and pydantic does not treat all fields alike."""
    return OPTIONAL if isinstance(raw, str) and "_" in raw else TOLERATED


def _float(raw: object) -> float | None:
    """The float that a value is, infinite if it is beyond all floats, or None if it is none."""
    if isinstance(raw, str):
        text = _bare(raw)
        return float(text) if _NUMBER.fullmatch(text) else None
    if not isinstance(raw, int | float):
        return None
    try:
        return float(raw)
    except OverflowError:
        return math.inf


def _int(raw: object) -> int | None:
    """The int that a value is, or None."""
    if isinstance(raw, str):
        found = _INTEGER.fullmatch(_bare(raw))
        try:
            return int(found[1]) if found else None
        except ValueError:  # of more than 4300 digits, for Python and for pydantic
            return None
    if isinstance(raw, float):
        whole = raw.is_integer() and abs(raw) < _BEYOND_INT64
        return int(raw) if whole else None
    return int(raw) if isinstance(raw, int) else None


def _bare(text: str) -> str:
    return text.strip(_SPACES).replace("_", "")


def flag(raw: object) -> Parsed:
    """A bool (REQ-10). True may be refused, by whoever has no face model."""
    word = raw.lower() if isinstance(raw, str) else raw
    if word in (*_YES, 1):
        return Parsed(True, OPTIONAL, "REQ-10")
    if word in (*_NO, 0):
        return Parsed(False, ALLOWED if raw is False else TOLERATED, "REQ-12")
    return Parsed(None, INVALID, "REQ-10")


def model(raw: object) -> Parsed:
    """One of the six names (REQ-8). The schema allows no null."""
    return Parsed(raw, ALLOWED if raw in MODELS else INVALID, "REQ-8")


def encoding(raw: object) -> Parsed:
    """One of the two names (REQ-9). The schema allows no null."""
    return Parsed(raw, ALLOWED if raw in ENCODINGS else INVALID, "REQ-9")


def url(raw: object) -> Parsed:
    """Any text: what is behind it is another question."""
    return Parsed(raw, ALLOWED if isinstance(raw, str) else INVALID, "REQ-12")


def base64(raw: object) -> Parsed:
    """The text without what is tolerated, if it is standard base64 of anything (REQ-17)."""
    if not isinstance(raw, str):
        return Parsed(None, INVALID, "REQ-12")
    prefix = _PREFIX.match(raw)
    text = raw[prefix.end() if prefix else 0 :].replace("\r", "").replace("\n", "")
    if not text:
        return Parsed(None, FORBIDDEN, "REQ-17")
    # In two steps: a pattern that may end in either would go back over all of a long text.
    fours = _FOURS.match(text)
    if fours is None or not _LAST.fullmatch(text, fours.end()):
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
"""How the value of each field is read. There are no other fields (REQ-11)."""
