"""A request as it is sent, to the byte, and the command by which a person repeats it."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

from contract_tests.requests.images import SampleImage

TOKEN_PLACEHOLDER: Final = "$TOKEN"  # noqa: S105  stands for the token in headers, and in curl lines
LONGER_TOKEN: Final = "${TOKEN}x"  # noqa: S105  as TOKEN_PLACEHOLDER
SHORTER_TOKEN: Final = "${TOKEN%?}"  # noqa: S105  as TOKEN_PLACEHOLDER
SWAPPED_CASE_TOKEN: Final = '$(printf %s "$TOKEN" | tr a-zA-Z A-Za-z)'  # noqa: S105  as TOKEN_PLACEHOLDER
"""The token with a character more, without its last, and with its letters in the other case: as
the shell writes it."""
AUTHORIZATION: Final = ("Authorization", f"Bearer {TOKEN_PLACEHOLDER}")
JSON_TYPE: Final = ("Content-Type", "application/json")
ASYNC_HEADER: Final = ("X-OctoAI-Async", "1")
UPSCALING: Final = "/upscaling"
SHORT_BYTES: Final = 2000
"""A body of up to this length stands in the curl line itself, and a longer one before a pipe."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """What is sent. `image` is the one in init_image, if it is one that we made.

    `path` may be a whole URL, as asynchronous answers give it. In headers `$TOKEN` stands for the
    token, so that neither a report nor a curl line has it.
    """

    body: bytes = b""
    image: SampleImage | None = None
    headers: Headers = (AUTHORIZATION, JSON_TYPE)
    method: str = "POST"
    path: str = UPSCALING

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """The same with these headers, instead of its own of the same names."""
        names = {name.lower() for name, _ in headers}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=(*kept, *headers))

    def without_headers(self, *names: str) -> Self:
        """The same without headers of these names."""
        gone = {name.lower() for name in names}
        return replace(
            self, headers=tuple(pair for pair in self.headers if pair[0].lower() not in gone)
        )

    def with_model(self, models: Sequence[str]) -> Self:
        """The same by the first of these models, if its body is an object that names none of them.

        Where there are none, it is the same.
        """
        try:
            fields = json.loads(self.body)
        except ValueError:
            return self
        if not models or not isinstance(fields, dict) or fields.get("model") in models:
            return self
        return replace(self, body=json.dumps({**fields, "model": models[0]}).encode())

    def header(self, name: str) -> str | None:
        """What a header says: all of its lines, with commas between, or None if there is none."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def asynchronous(self) -> bool:
        return self.header(ASYNC_HEADER[0]) == ASYNC_HEADER[1]

    def __repr__(self) -> str:
        """What a person wants to see of it: all but the digits of its picture."""
        more = [f"{name}: {value}" for name, value in self.headers
                if (name, value) not in (AUTHORIZATION, JSON_TYPE)]  # fmt: skip
        image = [str(self.image)] if self.image else []
        body = [self.shown_body] if self.body else []
        return f"<{' | '.join([f'{self.method} {self.path}', *more, *body, *image])}>"

    @cached_property
    def shown_body(self) -> str:
        """The body, with long texts in it cut off."""
        text = self.body.decode(errors="backslashreplace")
        if self.image:
            text = text.replace(self.image.base64(), "(base64)")
        return text if len(text) <= 300 else f"{text[:200]}... of {len(self.body)} bytes"

    def curl(self, base_url: str) -> str:
        """A command for a POSIX shell that sends the same, the token being in `$TOKEN`."""
        url = self.path if "://" in self.path else base_url.rstrip("/") + self.path
        # A header is left out by curl if nothing stands behind its colon.
        silent = [f"{name}:" for name in ("Content-Type", "Accept") if self.header(name) is None]
        headers = [*(f"{name}: {value}" if value else f"{name};" for name, value in self.headers)]
        words = ["curl", "-sS", "-i", *(["-I"] if self.method == "HEAD" else ["-X", self.method])]
        words += [word for text in (*headers, *silent) for word in ("-H", _quoted(text))]
        before, data = self._data()
        return " ".join([*before, *words, *data, shlex.quote(url)])

    def _data(self) -> tuple[list[str], list[str]]:
        """What stands before the command and feeds it, and what it says of that."""
        if not self.body:
            return [], []
        from_pipe = ["--data-binary", "@-"]
        if len(self.body) > SHORT_BYTES and not self.body.strip(b" "):
            return ["head", "-c", str(len(self.body)), "/dev/zero", "|", "tr", r"'\0'", "' '",
                    "|"], from_pipe  # fmt: skip
        text = _text(self.body)
        if text is None:
            encoded = base64.b64encode(self.body).decode()
            return ["printf", "%s", encoded, "|", "base64", "-d", "|"], from_pipe
        if len(self.body) > SHORT_BYTES:
            return ["printf", "%s", shlex.quote(text), "|"], from_pipe
        return [], ["--data-raw", shlex.quote(text)]


def _quoted(header: str) -> str:
    """A header for the shell, which puts the token in."""
    if "$" not in header:
        return shlex.quote(header)
    return f'"{header}"'


def _text(body: bytes) -> str | None:
    """The body, if it can stand in a command."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def upscaling_request(fields: Mapping[str, object], image: SampleImage | None = None) -> Request:
    """A request with these fields, and with `image` in init_image if it is given.

    Fields stand before the picture, so that a person sees them first; a field init_image of its
    own goes before the picture's, which is then only what is known of it.
    """
    told = dict(fields)
    if image is not None:
        told.setdefault("init_image", image.base64())
    return Request(json.dumps(told).encode(), image)
