"""A response as it was received, and its parsed content."""

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

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

    @cached_property
    def json(self) -> Any:  # noqa: ANN401  whatever came
        """The body parsed as JSON; raises ValueError if it is not JSON."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    @property
    def image_file(self) -> bytes:
        """The image's file; raises ValueError, KeyError or TypeError if there is none."""
        if self.media_type.startswith("image/"):
            return self.body
        return base64.b64decode(self.json["image_b64"], validate=True)

    @property
    def summary(self) -> str:
        """The status, type and beginning of the body, for people."""
        text = self.body[: 4 * SUMMARY_CHARACTERS].decode(errors="backslashreplace")
        if len(text) > SUMMARY_CHARACTERS:
            text = f"{text[:SUMMARY_CHARACTERS]}... ({len(self.body)} bytes)"
        return printable(f"{self.status} {self.media_type}: {text}")


def encoding_of(file: bytes) -> str | None:
    """The encoding that a file's signature indicates, or None if it is neither PNG nor JPEG."""
    return next((name for name, magic in SIGNATURES.items() if file.startswith(magic)), None)
