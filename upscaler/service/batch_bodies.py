"""Reads the body of a batch, one request after another, as it arrives (EXT-6).

Either JSON lines, each the body of a request, or a multipart form with files and, before them, the
fields that they have in common.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

import anyio
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from upscaler.api.limits import ASYNC_MAX_BODY_BYTES
from upscaler.api.request import IMAGE_FIELDS, UpscalingRequest, parse_fields, validate_request
from upscaler.errors import (
    BodyTooLarge,
    CompressedBatch,
    FieldError,
    InvalidRequest,
    RequestTimeout,
    UpscalerError,
)
from upscaler.service.body import BODY_BYTES_PER_S, BODY_GRACE_S
from upscaler.service.queue import MemoryReservation

JSON_LINES: Final = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
FORM: Final = "multipart/form-data"
MOST_MEMBERS: Final = 1000
MOST_MEMBER_BYTES: Final = ASYNC_MAX_BODY_BYTES
"""Of one request in a batch: what an asynchronous one may have (ASY-4)."""
MOST_FIELD_BYTES: Final = 1000
"""Of a field of a form that is no file."""
MOST_FIELDS: Final = 20
MOST_NAME: Final = 100
MOST_NAME_BYTES: Final = 200
"""The most characters and bytes of a member's name that are kept: a file system takes 255 bytes,
with a number and a suffix."""

InThread = Callable[[Callable[[bytes, int], "Member"], bytes, int], Awaitable["Member"]]
"""Calls a function with two arguments in a thread."""


@dataclass(frozen=True)
class Member:
    """One request of a batch, and the name of its file; or what is wrong with it."""

    name: str
    wanted: UpscalingRequest | None
    error: UpscalerError | None = None


def members(request: Request, in_thread: InThread) -> AsyncIterator[Member]:
    """Yield the requests of a batch as they arrive, the bytes of one at a time in memory.

    What is wrong with one of them is in that one. Raises InvalidRequest for a body of another kind,
    RequestTimeout, BodyTooLarge for too many, CompressedBatch, and Busy if there is no memory for
    the next one. `in_thread` parses: a line of 10 MiB would hold up all others meanwhile.
    """
    codings = ",".join(request.headers.getlist("Content-Encoding")).lower().split(",")
    if {coding.strip() for coding in codings} - {"", "identity"}:
        raise CompressedBatch("a batch is read as it is: send it without a Content-Encoding")
    media_type, options = parse_options_header(request.headers.get("Content-Type"))
    name = media_type.decode("latin-1").lower()
    if name in JSON_LINES:
        return _lines(request, in_thread)
    if name == FORM and options.get(b"boundary"):
        return _files(request, options[b"boundary"])
    msg = f"send the header Content-Type: {JSON_LINES[0]}, or a form with files: {FORM}"
    raise InvalidRequest(FieldError(("header", "Content-Type"), msg, "content_type"))


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises RequestTimeout for a client that is too slow.

    The time that others take with what has arrived does not count.
    """
    arrived_bytes, waited_s = 0, 0.0
    chunks = request.stream()
    while True:
        began_s = anyio.current_time()
        limit_s = BODY_GRACE_S + arrived_bytes / BODY_BYTES_PER_S - waited_s
        with anyio.move_on_after(limit_s) as scope:
            chunk = await anext(chunks, None)
        if scope.cancelled_caught:
            raise RequestTimeout("the body arrived too slowly: send smaller batches")
        if chunk is None:
            return
        waited_s += anyio.current_time() - began_s
        arrived_bytes += len(chunk)
        yield chunk


async def _lines(request: Request, in_thread: InThread) -> AsyncIterator[Member]:
    line, count, skipping = bytearray(), 0, False
    memory: MemoryReservation = request.state.memory

    async for chunk in _chunks(request):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line += end
            if skipping or line.strip():
                count += 1
                _check_count(count)
                if skipping:
                    yield _too_large(count)
                else:
                    yield await in_thread(_of_line, bytes(line), count)
            line, skipping = bytearray(), False
        line += rest
        if len(line) > MOST_MEMBER_BYTES:
            line, skipping = bytearray(), True
        memory.reserve(len(line))
    if skipping or line.strip():
        _check_count(count + 1)
        count += 1
        if skipping:
            yield _too_large(count)
        else:
            yield await in_thread(_of_line, bytes(line), count)
    _check_any(count)


def _of_line(line: bytes, number: int) -> Member:
    name = f"{number:04d}"
    try:
        if len(line) > MOST_MEMBER_BYTES:
            return _too_large(number)
        fields = parse_fields(line)
        if isinstance(fields, dict) and "name" in fields:
            name = _sane(fields.pop("name"), name)
        return Member(name, validate_request(fields))
    except InvalidRequest as error:
        return Member(name, None, error)


@dataclass
class _Form:
    """What a parser of a form has found: the common fields, and the files that are complete."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, bytes | None]] = field(default_factory=list)
    names: dict[bytes, bytes] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    options: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False
    count: int = 0

    def begin(self) -> None:
        self.options, self.data, self.is_too_large = {}, bytearray(), False

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            _, self.options = parse_options_header(self.value)
        self.header = self.value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        is_file = b"filename" in self.options
        most = MOST_MEMBER_BYTES if is_file else MOST_FIELD_BYTES
        if len(self.data) + end - start > most:
            self.is_too_large = True
            self.data.clear()
        if not self.is_too_large:
            self.data += data[start:end]

    def part_end(self) -> None:
        name = self.options.get(b"name", b"").decode(errors="replace")
        if b"filename" in self.options:
            self.count += 1
            _check_count(self.count)
            text = self.options[b"filename"].decode(errors="replace")
            file = None if self.is_too_large else bytes(self.data)
            self.files.append((_sane(text, f"{self.count:04d}"), file))
        elif self.count:
            raise _wrong(f"send the field {name[:MOST_NAME]} before the files")
        elif name in IMAGE_FIELDS:
            raise _wrong(f"{name} is no field that files have in common: send each as a file")
        elif self.is_too_large or len(self.fields) >= MOST_FIELDS:
            most = f"{MOST_FIELDS} fields, of {MOST_FIELD_BYTES} bytes"
            raise _wrong(f"a form has at most {most}, and files, each with a filename")
        else:
            self.fields[name] = self.data.decode(errors="replace")


async def _files(request: Request, boundary: bytes) -> AsyncIterator[Member]:
    form = _Form()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": form.begin,
            "on_header_field": form.header_field,
            "on_header_value": form.header_value,
            "on_header_end": form.header_end,
            "on_part_data": form.part_data,
            "on_part_end": form.part_end,
        },
    )
    try:
        async for chunk in _chunks(request):
            parser.write(chunk)
            request.state.memory.reserve(len(form.data) + len(chunk))
            for name, file in form.files:
                yield _of_file(name, file, form.fields)
            form.files.clear()
        parser.finalize()
        if parser.state is not MultipartState.END:
            raise _wrong("the form is cut off: its last boundary is missing")
        _check_any(form.count)
    except FormParserError as error:
        raise _wrong(f"this is not a form with files: {error}") from error


def _of_file(name: str, file: bytes | None, fields: dict[str, str]) -> Member:
    if file is None:
        return Member(name, None, _limit())
    typed: dict[str, Any] = {"init_image": file, **fields}
    try:
        return Member(name, validate_request(typed))
    except InvalidRequest as error:
        return Member(name, None, error)


def _too_large(number: int) -> Member:
    return Member(f"{number:04d}", None, _limit())


def _limit() -> BodyTooLarge:
    return BodyTooLarge(f"a request of a batch may have at most {MOST_MEMBER_BYTES} bytes")


def _check_count(count: int) -> None:
    if count > MOST_MEMBERS:
        raise BodyTooLarge(f"a batch may have at most {MOST_MEMBERS} requests")


def _check_any(count: int) -> None:
    if not count:
        msg = "there is no request in it: send JSON lines, or files with their names"
        raise InvalidRequest(FieldError(("body",), msg, "batch_empty"))


def _sane(name: object, otherwise: str) -> str:
    """The last part of a path, in characters that every file system takes."""
    stem = PurePosixPath(str(name).replace("\\", "/")).stem if isinstance(name, str) else ""
    sane = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:MOST_NAME]
    return sane.encode()[:MOST_NAME_BYTES].decode(errors="ignore") or otherwise


def _wrong(msg: str) -> InvalidRequest:
    return InvalidRequest(FieldError(("body",), msg, "form_invalid"))
