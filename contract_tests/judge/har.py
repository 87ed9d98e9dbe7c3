"""Reads recorded traffic: an HTTP Archive (HAR 1.2), as browsers, proxies and the mock write it."""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from contract_tests.judge.expectations import KNOWN_HEADERS
from contract_tests.oracle import values
from contract_tests.requests.recorded_image import RecordedImage
from contract_tests.requests.request import AUTHORIZATION, UPSCALING, Request
from contract_tests.target.response import Response

HEALTHCHECK: Final = "/healthcheck"
METHODS: Final = {
    UPSCALING: ("POST", "GET", "PUT", "PATCH", "DELETE", "HEAD"),
    HEALTHCHECK: ("GET",),
}
"""What the rules speak of, by path. OPTIONS, for one, belongs to CORS."""
EXTENSIONS: Final = (
    ("idempotency-key", ""),
    ("x-upscaler-webhook", ""),
    ("accept", "text/event-stream"),
)
"""Headers, by a part of their values, with which what is right depends on other requests."""
MOMENTARY: Final = "that say something about the moment, as 429 and 5xx do"


class InvalidHar(ValueError):
    """A file that is no HTTP Archive; the message is a sentence."""


class _LeftOut(Exception):
    """Why an entry cannot be judged, as an addition to a number of entries."""


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its response; `number` counts the entries of the file from 1."""

    number: int
    base_url: str
    request: Request
    response: Response


@dataclass(frozen=True)
class Recording:
    """What can be judged of a file, in its order, and how many entries cannot, by reason."""

    exchanges: tuple[Exchange, ...]
    left_out: Mapping[str, int]


def read_har(path: Path, base_url: str | None = None) -> Recording:
    """The recorded traffic of the API, by default at any URL; raises InvalidHar or OSError."""
    try:
        entries = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))["log"]["entries"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidHar(f"{path} is not an HTTP Archive: it needs log.entries") from error
    if not isinstance(entries, list):
        raise InvalidHar(f"{path} is not an HTTP Archive: log.entries is no list")
    exchanges, left_out = [], Counter[str]()
    for number, entry in enumerate(entries, 1):
        try:
            exchanges.append(_exchange(number, entry, base_url))
        except _LeftOut as reason:
            left_out[str(reason)] += 1
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidHar(f"entry {number} of {path} is not as HAR 1.2 has it") from error
    return Recording(tuple(exchanges), left_out)


def _exchange(number: int, entry: Mapping[str, Any], base_url: str | None) -> Exchange:
    asked, told = entry["request"], entry["response"]
    url = urlsplit(asked["url"])
    path = next((each for each in METHODS if url.path.endswith(each)), None)
    below = base_url is None or asked["url"].startswith(f"{base_url}/")
    if path is None or url.query or asked["method"] not in METHODS[path] or not below:
        raise _LeftOut("of other URLs or methods")
    status = int(told["status"])
    if status == 429 or status >= 500:
        raise _LeftOut(MOMENTARY)
    if status < 200 or 300 <= status < 400:
        raise _LeftOut("without a final response")
    request = _request(asked, path, refused=status in (401, 403))
    response = Response(
        status,
        _joined(told["headers"]),
        _content(told["content"], "responses", request.method),
        max(0.0, float(entry.get("time") or 0.0)) / 1000,
    )
    origin = asked["url"].removesuffix(path)
    return Exchange(number, origin, request, response)


def _request(asked: Mapping[str, Any], path: str, *, refused: bool) -> Request:
    """The request, with the token as it is judged: recordings have it redacted or not at all.

    So who was let in had a token, unless the header is one of another scheme, and who was refused
    had none.
    """
    lines = [(str(line["name"]), str(line["value"])) for line in asked["headers"]]
    if any(name.lower() == "content-encoding" for name, _ in lines):
        raise _LeftOut("with a compressed body")
    for name, value in lines:
        if any(name.lower() == each and part in value.lower() for each, part in EXTENSIONS):
            raise _LeftOut("of the extensions (EXT-1, EXT-4 and EXT-5)")
    data = asked.get("postData") or {}
    if not data and asked.get("bodySize", 0) > 0:
        raise _LeftOut("without the content of their requests")
    body = _content(data, "requests", "POST") if data else b""
    # Without those that every client sends, which are ignored (REQ-18).
    known = tuple(line for line in lines if line[0].lower() in KNOWN_HEADERS)
    request = Request(body, method=asked["method"], path=path, headers=known)
    scheme = (request.header("Authorization") or "Bearer").partition(" ")[0].lower()
    if refused:
        request = request.without_headers("Authorization")
    elif scheme == "bearer":
        request = request.with_headers(AUTHORIZATION)
    return replace(request, image=_image(body))


def _image(body: bytes) -> RecordedImage | None:
    """The image in the body, if there is one in base64 of any kind that is tolerated."""
    try:
        text = values.base64(json.loads(body)["init_image"]).value
        return RecordedImage(base64.b64decode(str(text))) if text else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _joined(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Headers by their names in lower case, several of one name joined by commas."""
    joined: dict[str, str] = {}
    for line in lines:
        name, value = str(line["name"]).lower(), str(line["value"])
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    # The content is recorded without its coding.
    joined.pop("content-encoding", None)
    return joined


def _content(data: Mapping[str, Any], of: str, method: str) -> bytes:
    """The content, in base64 where it is no text."""
    text = data.get("text")
    if text is None:
        if method != "HEAD" and data.get("size", 0) > 0:
            raise _LeftOut(f"without the content of their {of}")
        return b""
    if "base64" in (data.get("encoding"), data.get("_encoding")):
        return base64.b64decode(text)
    return str(text).encode(errors="surrogatepass")
