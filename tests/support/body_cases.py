"""Malicious requests as bytes, the outcome that each must have, and how they are sent."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np

from tests.support.processes import HEADERS, Child
from tests.support.raw_http import CLOSE, END, HEAD, Answer, answers, connected, rest
from tests.support.service import GOOD
from upscaler.api.limits import MAX_BODY_BYTES

MIB: Final = 2**20
FULL: Final = MAX_BODY_BYTES - 1000
"""Nearly as long as a body may be."""
SECONDS: Final = 15
"""A request's time at most, on a machine that does other things, too; the slowest takes 1.4 s."""
MEMORY: Final = 260 * MIB
"""A request's memory at most, over the resting service: eight times the largest body, for it, its
text, what is read of that, and what the allocator keeps in between."""
SURPLUS: Final = 16 * MIB
"""How much more is sent than a body may have."""
PIECE: Final = 2**20


@dataclass(frozen=True)
class Case:
    """A request by name, in pieces, and the status and the kind of error that it must get."""

    name: str
    pieces: Callable[[], Iterator[bytes]]
    status: int
    error: str = ""


@dataclass(frozen=True)
class Sent:
    """The outcome of a request. `memory` is the peak in bytes over the memory at rest."""

    answer: Answer
    sent_bytes: int
    seconds: float
    memory: int


def body(data: bytes) -> Iterator[bytes]:
    yield HEAD + CLOSE + b"Content-Length: %d" % len(data) + END + data


def filled(start: str, part: str, end: str) -> Callable[[], Iterator[bytes]]:
    """A body of as many `part`s as fit."""

    def pieces() -> Iterator[bytes]:
        return body((start + part * ((FULL - len(start)) // len(part)) + end).encode())

    return pieces


def surplus(count: int) -> Callable[[], Iterator[bytes]]:
    """A number of fields that do not exist."""
    return lambda: body(b"{%s}" % b",".join(b'"%d": 0' % n for n in range(count)))


def chunked(size_bytes: int, chunk_bytes: int) -> Callable[[], Iterator[bytes]]:
    """Spaces in chunks of a number of bytes."""

    def pieces() -> Iterator[bytes]:
        yield HEAD + CLOSE + b"Transfer-Encoding: chunked" + END
        chunk = b"%x\r\n%s\r\n" % (chunk_bytes, b" " * chunk_bytes)
        for _ in range(0, size_bytes, PIECE):
            yield chunk * (min(size_bytes, PIECE) // chunk_bytes)
        yield b"0\r\n\r\n"

    return pieces


def longer_than_said() -> Iterator[bytes]:
    """A body that is longer than its Content-Length; the rest is not a valid request."""
    data = json.dumps({**GOOD, "scale": 1}).encode()
    yield HEAD + b"Content-Length: %d" % len(data) + END + data + data


def larger_than_allowed() -> Iterator[bytes]:
    size_bytes = MAX_BODY_BYTES + SURPLUS
    yield HEAD + CLOSE + b"Content-Length: %d" % size_bytes + END
    for _ in range(0, size_bytes, PIECE):
        yield b" " * PIECE


def compressed(coding: bytes, data: bytes) -> Iterator[bytes]:
    coded = b"Content-Encoding: " + coding + b"\r\n"
    yield HEAD + coded + CLOSE + b"Content-Length: %d" % len(data) + END + data


def bomb() -> Iterator[bytes]:
    """24 GiB of zeros."""
    part = gzip.compress(bytes(2**26))
    return compressed(b"gzip", part * (FULL // len(part)))


def head(headers: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + headers + b"\r\n"])


NOISE: Final = np.random.default_rng(0).integers(0, 64, FULL - 100, np.uint8)
BASE64: Final = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8
)


def base64_of_noise() -> Iterator[bytes]:
    text = BASE64[NOISE[: len(NOISE) // 4 * 4]].tobytes()
    return body(b'{"scale": 1, "init_image": "' + text + b'"}')


CASES: Final = (
    Case("2,000,000 unknown fields", surplus(2_000_000), 422, "json_invalid"),
    Case("9,000 unknown fields", surplus(9_000), 422, "too_many_fields"),
    Case("an array of 16 million numbers", filled('{"scale":[', "0,", "0]}"), 422, "json_invalid"),
    Case("11 million objects", filled("[", "{},", "{}]"), 422, "json_invalid"),
    Case("33 million brackets", filled("", "[", ""), 422, "json_invalid"),
    Case("a number of 33 million digits", filled('{"scale":', "9", "}"), 422, "json_invalid"),
    Case("a number of 33 million digits in a string", filled('{"scale":"', "9", '"}'), 422),
    Case("a name of 33 million letters", filled('{"', "a", '":0}'), 422),
    Case("a model of 33 million letters", filled('{"scale":1,"model":"', "a", '"}'), 422),
    Case("a URL of 33 million letters", filled('{"scale":1,"init_image_url":"', "a", '"}'), 422),
    Case("5 million escaped letters", filled('{"scale":"', "\\u0041", '"}'), 422),
    Case("16 million line breaks as base64", filled('{"init_image":"', "\\n", '"}'), 422),
    Case("a data: prefix of 33 million letters", filled('{"init_image":"data:', "a", '"}'), 422),
    Case("24 MiB of noise as an image", base64_of_noise, 422, "image_unreadable"),
    Case("a body that is larger than allowed", larger_than_allowed, 413),
    Case("the same in chunks of 64 KiB", chunked(MAX_BODY_BYTES + SURPLUS, 2**16), 413),
    Case("250,000 chunks of a byte", chunked(250_000, 1), 422, "json_invalid"),
    Case("a body that is longer than it said", longer_than_said, 200),
    Case("24 GiB in gzip", bomb, 413),
    Case(
        "1.6 million empty files in gzip",
        lambda: compressed(b"gzip", gzip.compress(b"") * (FULL // 20)),
        422,
        "content_encoding",
    ),
    Case(
        "6.7 million empty blocks of deflate",
        lambda: compressed(b"deflate", b"\0\0\0\xff\xff" * (FULL // 5)),
        422,
        "content_encoding",
    ),
    Case("10,000 headers", head(b"".join(b"X-%d: 1\r\n" % n for n in range(10_000))), 431),
    Case("16,000 headers of four bytes", head(b"a:\r\n" * 16_000), 431),
    Case(
        "a URL of 60,000 bytes",
        lambda: iter([b"GET /%s HTTP/1.1\r\nHost: x\r\n" % (b"a" * 60_000) + CLOSE + b"\r\n"]),
        404,
    ),
)


def send(case: Case, service: Child, resting: int) -> Sent:
    """Send a request on a connection of its own, as fast as it is taken."""
    pieces = list(case.pieces())
    service.forget_peak()
    began_s = time.perf_counter()
    with httpx.Client(base_url=service.url) as api, connected(api) as connection:
        with suppress(OSError):  # who is refused early does not get all of it across
            for piece in pieces:
                connection.sendall(piece)
        found = answers(rest(connection))
    seconds = time.perf_counter() - began_s
    return Sent(found[0], sum(map(len, pieces)), seconds, service.peak_bytes() - resting)


def warmed(service: Child) -> int:
    """The resident memory at rest in bytes, after everything is loaded that is loaded once."""
    for _ in range(3):
        answer = httpx.post(f"{service.url}/upscaling", json=GOOD, headers=HEADERS, timeout=60)
        assert answer.status_code == 200
    return service.memory_bytes()


def told(sent: Sent) -> str:
    """The status, and the types of the errors if there are any."""
    if sent.answer.status != 422:
        return str(sent.answer.status)
    kinds = {error["type"] for error in json.loads(sent.answer.body)["detail"]}
    return f"422 {', '.join(sorted(kinds))}"


def check(case: Case, sent: Sent) -> None:
    """Fail unless the outcome is the expected one."""
    assert sent.answer.status == case.status, sent.answer
    assert case.error in told(sent)
    assert len(sent.answer.body) < 2 * PIECE, "nothing is echoed"
