"""A response as it was received, and its parsed content."""

import base64
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NoReturn

from contract_tests.text import printable

SIGNATURES: Final = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
SUMMARY_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Response:
    """Header names are in lower case; several headers of one name are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever came
        """The body parsed as JSON; raises ValueError if it is not JSON."""
        return self._parsed[0]

    @property
    def repeated_names(self) -> frozenset[str]:
        """The names that an object in the JSON has more than once; none if it is not JSON."""
        try:
            return self._parsed[1]
        except ValueError:
            return frozenset()

    @cached_property
    def _parsed(self) -> tuple[Any, frozenset[str]]:
        repeated: set[str] = set()

        def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            counts = Counter(name for name, _ in pairs)
            repeated.update(name for name, count in counts.items() if count > 1)
            return dict(pairs)

        try:
            parsed = json.loads(self.body, object_pairs_hook=collect, parse_constant=_not_json)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return parsed, frozenset(repeated)

    @property
    def image_file(self) -> bytes:
        """The image's file; raises ValueError, KeyError or TypeError if there is none."""
        if self.media_type.startswith("image/"):
            return self.body
        return base64.b64decode(self.json["image_b64"], validate=True)

    @property
    def summary(self) -> str:
        """The status, type and beginning of the body, and where it redirects to, for people."""
        text = self.body[: 4 * SUMMARY_CHARACTERS].decode(errors="backslashreplace")
        if len(text) > SUMMARY_CHARACTERS:
            text = f"{text[:SUMMARY_CHARACTERS]}... ({len(self.body)} bytes)"
        location = self.headers.get("location") if 300 <= self.status < 400 else None
        to = f"to {location[:SUMMARY_CHARACTERS]}" if location else ""
        head = " ".join(filter(None, (str(self.status), self.media_type, to)))
        return printable(f"{head}: {text}" if text else head)


def _not_json(name: str) -> NoReturn:
    """Called by json for NaN, Infinity and -Infinity, which RFC 8259 does not have."""
    raise ValueError(f"JSON has no {name}")


def encoding_of(file: bytes) -> str | None:
    """The encoding that a file's signature indicates, or None if it is neither PNG nor JPEG."""
    return next((name for name, magic in SIGNATURES.items() if file.startswith(magic)), None)
