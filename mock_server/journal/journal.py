"""What the mock was asked: each request, without its token, and with the traits of its picture."""

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
from starlette.types import Scope

from mock_server.faults.schedule import route_of
from upscaler.api.limits import MAX_FIELDS
from upscaler.api.request import has_too_many_values
from upscaler.errors import InvalidRequest
from upscaler.imaging import decode
from upscaler.service.logs import SHORTEST_SECRET

MAX_ENTRIES: Final = 1000
"""So many requests are kept; beyond, the oldest are forgotten and counted."""
MAX_FILE_BYTES: Final = 16 * 2**20
"""So many bytes of the pictures that were sent are kept with them, the latest ones."""
MAX_TEXT: Final = 1000
"""Longer texts than this are told by their length and SHA-256."""
MAX_HEADERS: Final = 100
SECRET: Final = "***"  # noqa: S105  what is written in place of one
SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")

_DATA_PREFIX: Final = re.compile(r"data:[^,;]{0,100};base64,", re.IGNORECASE)


@dataclass(eq=False)
class Entry:
    """One request, as far as it is kept.

    `time` is by the mock's clock. `route` is upscaling, poll, result, healthcheck or None, `fields`
    what was in the body if that was a JSON object and was read, and `status` None if nothing was
    answered. `fault` is what went wrong on purpose, and `fault_from` where that was told.

    `file` is the picture as it was sent, for as long as there is room; `authorization_sha256` is of
    the header, so that it can be compared though it is not kept. Neither is given out.
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
        """The picture that was sent; raises LookupError if there was none, or it is not kept."""
        if self.file is None:
            raise LookupError(f"request {self.number} has no picture, or it is not kept any more")
        return Image.open(io.BytesIO(self.file), formats=decode.FORMATS)

    def told(self) -> dict[str, Any]:
        """What is given out of it, in plain values."""
        hidden = ("file", "authorization_sha256")
        return {each.name: getattr(self, each.name) for each in fields(self)
                if each.name not in hidden}  # fmt: skip


class Journal:
    """The latest requests, the oldest first."""

    def __init__(self, clock: Callable[[], float], secrets: Collection[str] = ()) -> None:
        """Take the time by `clock`, and keep none of `secrets`, wherever a client has put it."""
        self.clock = clock
        self._secrets = sorted(
            (secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True
        )
        self._lock = Lock()  # tests ask for what a server in another thread notes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries: deque[Entry] = deque()
            self._file_bytes = 0
            self._count = 0

    @property
    def dropped(self) -> int:
        """How many requests were forgotten."""
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
        """The requests of which all of that is so; `limit` is how many of the latest.

        `fault` is any for all that have one. `since` is a time by the clock.
        """
        wanted = {"method": method, "path": path, "route": route, "status": status}

        def fits(entry: Entry) -> bool:
            return (
                all(value in (None, getattr(entry, name)) for name, value in wanted.items())
                and model in (None, (entry.fields or {}).get("model"))
                and (fault in (None, entry.fault) or (fault == "any" and entry.fault is not None))
                and (since is None or entry.time >= since)
            )

        found = [entry for entry in self.entries if fits(entry)]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def opened(self, scope: Scope) -> Entry:
        """What can be told of a request before its body has come."""
        lines = [tuple(part.decode("latin-1") for part in line) for line in scope["headers"]]
        headers: dict[str, str] = {}
        for name, text in lines[:MAX_HEADERS]:
            value = self.discreet(_unless_secret(name, text))
            headers[self.discreet(name)] = ", ".join(filter(None, [headers.get(name), value]))
        authorization = dict(lines).get("authorization", "")
        return Entry(
            time=self.clock(),
            request_id=self.discreet(scope.get("state", {}).get("request_id", "")),
            method=self.discreet(scope["method"]),
            path=self.discreet(scope["path"]),
            query=self.discreet(scope["query_string"].decode("latin-1")),
            headers=headers,
            route=route_of(scope),
            authorization_sha256=sha256(authorization.encode("latin-1")),
        )

    def add(self, entry: Entry) -> None:
        """Keep a request, unless it is already."""
        with self._lock:
            if entry.number:
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

    def read(self, entry: Entry, body: bytes) -> None:
        """Note what is in a body that has come as a whole."""
        if not body or has_too_many_values(body):
            return
        try:
            content = from_json(body, allow_inf_nan=False)
        except ValueError:
            return
        if isinstance(content, dict):
            members = list(content.items())[:MAX_FIELDS]
            entry.fields = {self.discreet(name): self._noted(entry, name, value)
                            for name, value in members}  # fmt: skip

    def discreet(self, text: str) -> str:
        """A text without secrets, and in short if it is long."""
        for secret in self._secrets:
            for written in {secret, secret.encode().decode("latin-1")}:
                text = text.replace(written, SECRET)
        if len(text) <= MAX_TEXT:
            return text
        digest = sha256(text.encode(errors="surrogatepass"))
        return f"{text[:20]}... ({len(text)} characters, SHA-256 {digest})"

    def _drop_file(self, entry: Entry) -> None:
        self._file_bytes -= len(entry.file or b"")
        entry.file = None

    def _noted(self, entry: Entry, name: str, value: Any) -> Any:  # noqa: ANN401  whatever was sent
        if name == "init_image" and isinstance(value, str):
            entry.file = _decoded(value)
            return picture(entry.file) if entry.file else {"characters": len(value)}
        if isinstance(value, str):
            return self.discreet(value)
        if isinstance(value, dict | list):
            return self.discreet(json.dumps(value))
        return value


def picture(file: bytes) -> dict[str, Any]:
    """What tells of a picture in place of itself."""
    told: dict[str, Any] = {"bytes": len(file), "sha256": sha256(file)}
    try:
        header = decode.read_header(file)
    except InvalidRequest:
        return told
    kind = (header.image.format or "").lower()
    return told | {"width": header.size[0], "height": header.size[1], "format": kind}


def sha256(data: bytes) -> str:
    """The SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _decoded(text: str) -> bytes | None:
    """The file in base64, with what the API tolerates around it (REQ-17); or None."""
    prefix = _DATA_PREFIX.match(text)
    text = text[prefix.end() if prefix else 0 :]
    if "\n" in text or "\r" in text:  # which is found out sooner than replaced
        text = text.replace("\n", "").replace("\r", "")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        return None


def _unless_secret(name: str, text: str) -> str:
    """A header's value; of one that lets somebody in only the scheme."""
    if name not in SECRET_HEADERS:
        return text
    scheme, space, _ = text.partition(" ")
    return f"{scheme} {SECRET}" if space else SECRET
