"""The requests that the mock has received, without their tokens, and with what their image is."""

import hashlib
import io
import json
import re
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from threading import Lock
from typing import Any, Final

import pybase64
from PIL import Image
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import Scope

from mock_server.endpoints import route_of
from upscaler.api.limits import MAX_FIELDS, check_body_size
from upscaler.api.request import has_too_many_values
from upscaler.errors import ImageError, UpscalerError
from upscaler.imaging import decode
from upscaler.service.coding import coding_of, decode_body
from upscaler.service.logs import SHORTEST_SECRET

MAX_ENTRIES: Final = 1000
"""How many requests are kept; the oldest are dropped and counted."""
MAX_FILE_BYTES: Final = 16 * 2**20
"""How many bytes of the latest images are kept with their requests."""
MAX_TEXT: Final = 1000
"""Longer texts are replaced by their beginning, length and SHA-256."""
MAX_HEADERS: Final = 100
REDACTED: Final = "***"
SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")
UNPUBLISHED: Final = ("file", "authorization_sha256")
"""The fields of an entry that are not in its JSON."""

_DATA_PREFIX: Final = re.compile(r"data:[^,;]{0,100};base64,", re.IGNORECASE)


@dataclass(eq=False)
class Entry:
    """One request.

    `time` is by the mock's clock. `route` is upscaling, poll, result, healthcheck or None. `fields`
    is the JSON object in the body, or None if there is none or it was not read. `status` is None
    without a response. `fault` is what went wrong on purpose, and `fault_from` where that was set.

    `file` is the image as it was sent, as long as there is room for it. `authorization_sha256` is
    the hash of the header, so that it can be compared although it is not kept. Neither is in the
    JSON.
    """

    time: float
    request_id: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    route: str | None = None
    number: int = 0
    body_bytes: int = 0
    fields: dict[str, Any] | None = None
    status: int | None = None
    fault: str | None = None
    fault_from: str | None = None
    file: bytes | None = field(default=None, repr=False)
    authorization_sha256: str = field(default="", repr=False)

    @property
    def image(self) -> Image.Image:
        """The image that was sent; raises LookupError if there was none, or it was dropped."""
        if self.file is None:
            raise LookupError(f"request {self.number} has no image, or it is no longer kept")
        return Image.open(io.BytesIO(self.file), formats=decode.FORMATS)

    def to_dict(self) -> dict[str, Any]:
        """Return its published fields, as JSON has them."""
        names = [each.name for each in fields(self) if each.name not in UNPUBLISHED]
        return {name: getattr(self, name) for name in names}


class Journal:
    """The latest requests, the oldest first."""

    def __init__(self, clock: Callable[[], float], secrets: Collection[str] = ()) -> None:
        """Take the time from `clock`, and redact `secrets` wherever a client sends them."""
        self.clock = clock
        # The longest first: a secret that contains another one has to be redacted as a whole.
        self._secrets = sorted(
            (secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True
        )
        self.renew_lock()
        self.reset()

    def renew_lock(self) -> None:
        """Use a new lock, after a fork: no thread of this process would release the old one."""
        self._lock = Lock()  # tests read what a server in another thread adds

    def reset(self) -> None:
        """Forget all requests, and count from 1 again."""
        with self._lock:
            self._entries: deque[Entry] = deque()
            self._file_bytes = 0
            self._count = 0

    @property
    def dropped(self) -> int:
        """How many requests were dropped because there were too many."""
        return self._count - len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries)

    def find(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        route: str | None = None,
        status: int | None = None,
        model: str | None = None,
        fault: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        """Return the requests that match all filters; `limit` returns only the latest.

        The fault `any` matches every request that had one. `since` is a time by the clock.
        """
        equal = {"method": method, "path": path, "route": route, "status": status}

        def matches(entry: Entry) -> bool:
            return (
                all(value in (None, getattr(entry, name)) for name, value in equal.items())
                and model in (None, (entry.fields or {}).get("model"))
                and (fault in (None, entry.fault) or (fault == "any" and entry.fault is not None))
                and (since is None or entry.time >= since)
            )

        found = [entry for entry in self.entries if matches(entry)]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def open_entry(self, scope: Scope) -> Entry:
        """Return the entry of a request whose body has not arrived yet; `add` keeps it."""
        lines = [tuple(part.decode("latin-1") for part in line) for line in scope["headers"]]
        headers: dict[str, str] = {}
        for name, text in lines[:MAX_HEADERS]:
            # Lines with the same name are one list (RFC 9110, 5.3).
            value = self.redact(_redact_credentials(name, text))
            headers[self.redact(name)] = ", ".join(filter(None, [headers.get(name), value]))
        authorization = dict(lines).get("authorization", "")
        return Entry(
            time=self.clock(),
            request_id=self.redact(scope.get("state", {}).get("request_id", "")),
            method=self.redact(scope["method"]),
            path=self.redact(scope["path"]),
            query=self.redact(scope["query_string"].decode("latin-1")),
            headers=headers,
            route=route_of(scope),
            authorization_sha256=sha256(authorization.encode("latin-1")),
        )

    def add(self, entry: Entry) -> None:
        """Keep a request; does nothing if it is kept already."""
        with self._lock:
            if entry.number:  # a request is added before its response, and again at its end
                return
            self._count += 1
            entry.number = self._count
            self._entries.append(entry)
            self._file_bytes += len(entry.file or b"")
            if len(self._entries) > MAX_ENTRIES:
                self._drop_file(self._entries.popleft())
            for oldest in self._entries:
                if self._file_bytes <= MAX_FILE_BYTES:
                    break
                self._drop_file(oldest)

    def read_body(self, entry: Entry, body: bytes) -> None:
        """Fill in the fields and the file of `entry` from its whole body."""
        try:
            coding = coding_of(Headers(entry.headers))
            content = decode_body(body, coding, check_body_size) if coding else body
        except UpscalerError:
            return
        # The service refuses such a body without parsing it, too (REQ-11).
        if not content or has_too_many_values(content):
            return
        try:
            fields = from_json(content, allow_inf_nan=False)
        except ValueError:
            return
        if isinstance(fields, dict):
            members = list(fields.items())[:MAX_FIELDS]
            entry.fields = {
                self.redact(name): self._summarise(entry, name, value) for name, value in members
            }

    def redact(self, text: str) -> str:
        """Return a text without secrets, shortened if it is long."""
        for secret in self._secrets:
            # ASGI's headers and queries are decoded as Latin-1 here, and paths and bodies as UTF-8.
            for written in {secret, secret.encode().decode("latin-1")}:
                text = text.replace(written, REDACTED)
        if len(text) <= MAX_TEXT:
            return text
        digest = sha256(text.encode(errors="surrogatepass"))
        return f"{text[:20]}... ({len(text)} characters, SHA-256 {digest})"

    def _drop_file(self, entry: Entry) -> None:
        self._file_bytes -= len(entry.file or b"")
        entry.file = None

    def _summarise(self, entry: Entry, name: str, value: Any) -> Any:  # noqa: ANN401  any JSON
        """Return what stands for a field; the file of an image is kept in `entry`."""
        if name == "init_image" and isinstance(value, str):
            entry.file = _decode(value)
            return describe_image(entry.file) if entry.file else {"characters": len(value)}
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict | list):
            return self.redact(json.dumps(value))
        return value


def describe_image(file: bytes) -> dict[str, Any]:
    """Return the length and the hash of an image file, and its size and format if it is valid."""
    traits: dict[str, Any] = {"bytes": len(file), "sha256": sha256(file)}
    try:
        header = decode.read_header(file)
    except ImageError:
        return traits
    image_format = (header.image.format or "").lower()
    return traits | {"width": header.size[0], "height": header.size[1], "format": image_format}


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _decode(text: str) -> bytes | None:
    """Decode a file in base64 with what the API tolerates around it (REQ-17), or return None."""
    prefix = _DATA_PREFIX.match(text)
    text = text[prefix.end() if prefix else 0 :]
    if "\n" in text or "\r" in text:  # searching is much faster than copying megabytes for nothing
        text = text.replace("\n", "").replace("\r", "")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        return None


def _redact_credentials(name: str, text: str) -> str:
    """Return the value of a header, or only its scheme if it has credentials in it."""
    if name not in SECRET_HEADERS:
        return text
    scheme, space, _ = text.partition(" ")
    return f"{scheme} {REDACTED}" if space else REDACTED
