"""An answer as it came, and what it is read as."""

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

SIGNATURES: Final = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
SHOWN_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Response:
    """What came: header names are in lower case, several of one name joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @cached_property
    def json(self) -> Any:  # noqa: ANN401  whatever came
        """What the body is as JSON; raises ValueError if it is none."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    @property
    def file(self) -> bytes:
        """The picture's file; raises ValueError, KeyError or TypeError if there is none."""
        if self.media_type.startswith("image/"):
            return self.body
        return base64.b64decode(self.json["image_b64"], validate=True)

    @property
    def shown(self) -> str:
        """What a person wants to see of it, in a line or two."""
        text = self.body[: 4 * SHOWN_CHARACTERS].decode(errors="backslashreplace")
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:SHOWN_CHARACTERS]}... ({len(self.body)} bytes)"
        return f"{self.status} {self.media_type}: {text}"


def encoding_of(file: bytes) -> str | None:
    """The encoding by which a file begins, or None if it is neither of the two."""
    return next((name for name, magic in SIGNATURES.items() if file.startswith(magic)), None)
