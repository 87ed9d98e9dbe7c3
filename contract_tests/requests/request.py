"""A request exactly as it is sent, and the curl command that repeats it."""

import base64
import gzip
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

from contract_tests.requests.images import SampleImage, described
from contract_tests.requests.recorded_image import RecordedImage
from contract_tests.text import printable

TOKEN_PLACEHOLDER: Final = "$TOKEN"  # noqa: S105  a placeholder in headers and curl commands
LONGER_TOKEN: Final = "${TOKEN}x"  # noqa: S105
SHORTER_TOKEN: Final = "${TOKEN%?}"  # noqa: S105
SWAPPED_CASE_TOKEN: Final = '$(printf %s "$TOKEN" | tr a-zA-Z A-Za-z)'  # noqa: S105
"""The token with another character, without its last, and with the case of its letters swapped, as
a POSIX shell writes them."""
AUTHORIZATION: Final = ("Authorization", f"Bearer {TOKEN_PLACEHOLDER}")
JSON_TYPE: Final = ("Content-Type", "application/json")
ASYNC_HEADER: Final = ("X-OctoAI-Async", "1")
UPSCALING: Final = "/upscaling"
MAX_ARGUMENT_BYTES: Final = 2000
"""A body of up to this length is an argument of curl; a longer one is piped into it."""
MAX_INLINE_BYTES: Final = 2**16
"""A body with an image of up to this length is part of its command; a longer one is made anew."""
IMAGE_PLACEHOLDER: Final = "(base64)"
"""Stands for the base64 of the sample image, in what people read and in `sample_body`."""

BLANKS: Final = re.compile(" {40,}")
"""So many that nobody would count them, and a terminal shows lines of nothing."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """What is sent. `image` is the sample in init_image, if it is one, or what was recorded there.

    `path` may be an absolute URL, as asynchronous responses have them. In headers `$TOKEN` stands
    for the token, so that neither a report nor a curl command contains it.
    """

    body: bytes = b""
    image: SampleImage | RecordedImage | None = None
    headers: Headers = (AUTHORIZATION, JSON_TYPE)
    method: str = "POST"
    path: str = UPSCALING

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """The same request with these headers, in place of those of the same names."""
        names = {name.lower() for name, _ in headers}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=(*kept, *headers))

    def without_headers(self, *names: str) -> Self:
        """The same request without headers of these names."""
        gone = {name.lower() for name in names}
        return replace(
            self, headers=tuple(pair for pair in self.headers if pair[0].lower() not in gone)
        )

    def with_model(self, models: Sequence[str]) -> Self:
        """The same request for the first of these models, unless it names one of them.

        A body that is no JSON object stays as it is, as does any if there are no models.
        """
        try:
            fields = json.loads(self.body)
        except ValueError:
            return self
        if not models or not isinstance(fields, dict) or fields.get("model") in models:
            return self
        return replace(self, body=json.dumps({**fields, "model": models[0]}).encode())

    def header(self, name: str) -> str | None:
        """The value of a header, several joined by commas (RFC 9110, 5.3), or None."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def asynchronous(self) -> bool:
        return self.header(ASYNC_HEADER[0]) == ASYNC_HEADER[1]

    def __repr__(self) -> str:
        """The request for people, without the base64 of its image."""
        more = [f"{name}: {value}" for name, value in self.headers
                if (name, value) not in (AUTHORIZATION, JSON_TYPE)]  # fmt: skip
        image = [str(self.image)] if self.image else []
        body = [self.shown_body] if self.body else []
        return f"<{' | '.join([f'{self.method} {self.path}', *more, *body, *image])}>"

    @cached_property
    def shown_body(self) -> str:
        """The body for people, cut off if it is long."""
        text = self.body.decode(errors="backslashreplace")
        if self.image:
            text = text.replace(self.image.base64(), IMAGE_PLACEHOLDER)
        text = BLANKS.sub(lambda found: f"({len(found[0])} spaces)", text)
        if len(text) > 300:
            text = f"{text[:200]}... of {len(self.body)} bytes"
        return printable(text)

    def curl(self, base_url: str, *, max_inline_bytes: int = MAX_INLINE_BYTES) -> str:
        """A command for a POSIX shell that sends the same, with the token in `$TOKEN`.

        A longer body than `max_inline_bytes` is made by `upscaler-contract --sample-body` if it has
        the sample image in it, and is packed by gzip if that is shorter.
        """
        url = self.path if "://" in self.path else base_url.rstrip("/") + self.path
        # curl adds these headers unless they are given with nothing behind the colon.
        omitted = [f"{name}:" for name in ("Content-Type", "Accept") if self.header(name) is None]
        headers = [*(f"{name}: {value}" if value else f"{name};" for name, value in self.headers)]
        words = ["curl", "-sS", "-i", *(["-I"] if self.method == "HEAD" else ["-X", self.method])]
        for header in (*headers, *omitted):
            # In double quotes the shell replaces $TOKEN.
            words += ["-H", f'"{header}"' if "$" in header else shlex.quote(header)]
        text = _text(self.body)
        made = self._made(text, max_inline_bytes)
        if made:
            data = [*made, "|"], ["--data-binary", "@-"]
        elif text:
            # Not --data, which reads a file if the text begins with @.
            data = [], ["--data-raw", shlex.quote(text)]
        else:
            data = [], []
        return " ".join([*data[0], *words, *data[1], shlex.quote(url)])

    def _made(self, text: str | None, max_inline_bytes: int) -> list[str]:
        """The command that prints the body, or nothing if an argument of curl can hold it."""
        length = len(self.body)
        if length > MAX_ARGUMENT_BYTES and not self.body.strip(b" "):
            return ["head", "-c", str(length), "/dev/zero", "|", "tr", r"'\0'", "' '"]
        if length > max_inline_bytes:
            if text and len(self._template) < len(text):
                assert isinstance(self.image, SampleImage), "nothing else has a template"
                words = ["upscaler-contract", "--sample-body", shlex.quote(self._template)]
                return [*words, shlex.quote(self.image.description)]
            packed = base64.b64encode(gzip.compress(self.body, mtime=0)).decode()
            if len(packed) < length:
                return ["printf", "%s", packed, "|", "base64", "-d", "|", "gzip", "-d"]
        if text is None:
            return ["printf", "%s", base64.b64encode(self.body).decode(), "|", "base64", "-d"]
        return ["printf", "%s", shlex.quote(text)] if length > MAX_ARGUMENT_BYTES else []

    @cached_property
    def _template(self) -> str:
        """The body with a placeholder for the sample image, or as it is if that is ambiguous."""
        text = self.body.decode()
        if not isinstance(self.image, SampleImage) or IMAGE_PLACEHOLDER in text:
            return text
        return text.replace(self.image.base64(), IMAGE_PLACEHOLDER)


def sample_body(template: str, description: str) -> bytes:
    """The body that `--sample-body` prints: the template with the base64 of the image in it.

    Raises ValueError if there is no image of this description.
    """
    return template.replace(IMAGE_PLACEHOLDER, described(description).base64()).encode()


def _text(body: bytes) -> str | None:
    """The body as text, or None if an argument cannot hold it or a terminal would not show it."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def upscaling_request(fields: Mapping[str, object], image: SampleImage | None = None) -> Request:
    """A request with these fields, and with `image` in init_image if it is given.

    A field init_image of its own takes precedence: `image` then only tells what is in it.
    """
    all_fields = dict(fields)  # before the image, so that people see them first
    if image is not None:
        all_fields.setdefault("init_image", image.base64())
    return Request(json.dumps(all_fields).encode(), image)
