"""Servers that get invalid requests, and what every response to them must satisfy."""

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NoReturn

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.support.mock_servers import mocking
from tests.support.request_literals import SIZE_GROUP
from tests.support.service import Resizer, png, serving
from upscaler.api.headers import ASYNC_HEADER, REQUEST_ID_HEADER

TARGETS: Final[dict[str, Callable[[], AbstractContextManager[httpx.Client]]]] = {
    "mock": mocking,
    "service": lambda: serving(Resizer()),
}
"""A client of each server that keeps the contract, by the server's name."""

SHARED: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
"""For a property whose examples all ask the same server."""

JSON_HEADERS: Final = {"Content-Type": "application/json"}
SIZE: Final = (300, 256)
GOOD: Final = {"init_image": f'"{png(*SIZE)}"'.encode(), "scale": b"0.1"}
"""A right request, each field as the literal that stands in its body."""
MADE: Final = (30, 26)
"""The size of what comes of it (REQ-16)."""
MAX_DEPTH: Final = 200
"""How many arrays and objects may stand in each other in a body."""
SHORTEST_ECHO: Final = 5
"""As many characters of a value as do not come into an answer by chance."""


@contextmanager
def unharmed(api: httpx.Client, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """For a fixture: after the test the server lives, and has logged no fault of its own.

    By then `caplog.records` has what is logged in the teardown alone.
    """
    yield
    assert api.get("/livez").status_code == 200
    logged = caplog.get_records("call") + caplog.get_records("teardown")
    assert [record for record in logged if record.levelno >= logging.ERROR] == []


def stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve no names or addresses but this machine's: strings may look like real URLs."""
    find = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "127.0.0.1":
            return find(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "nothing is known here")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def body(**fields: bytes) -> bytes:
    """GOOD with some fields as other literals, last; one of a group stands for all of it."""
    gone = {*fields}
    if "init_image_url" in fields:
        gone.add("init_image")
    if not gone.isdisjoint(SIZE_GROUP):
        gone.add("scale")
    kept = {name: literal for name, literal in GOOD.items() if name not in gone}
    members = [json.dumps(name).encode() + b":" + literal for name, literal in kept.items()]
    members += [json.dumps(name).encode() + b":" + literal for name, literal in fields.items()]
    return b"{" + b",".join(members) + b"}"


def completed(api: httpx.Client, headers: dict[str, bytes]) -> tuple[str, str]:
    """Where to poll and to fetch an asynchronous inference that is completed: paths (ASY-1 to 3).

    Their URLs must be some, whatever the headers say.
    """
    answer = asked(api, headers | {ASYNC_HEADER: b"1"})
    check(answer, headers)
    poll_path = _path(answer.json()["poll_url"])
    for _ in range(3000):
        answer = api.get(poll_path, headers={name.encode(): headers[name] for name in headers})
        check(answer, headers)
        assert answer.status_code == 200, answer.text
        if "response_url" in answer.json():
            return poll_path, _path(answer.json()["response_url"])
        time.sleep(0.01)
    raise AssertionError("it never ended")


def asked(api: httpx.Client, headers: dict[str, bytes]) -> httpx.Response:
    """The response to a request that is valid except for these headers."""
    all_headers = {b"Content-Type": b"application/json"}
    all_headers |= {name.encode(): value for name, value in headers.items()}
    return api.post("/upscaling", content=body(), headers=all_headers)


def _path(url: str) -> str:
    parsed = httpx.URL(url)
    assert parsed.scheme == "http", url
    assert parsed.host, url
    return parsed.path


def check(answer: httpx.Response, case: object) -> None:
    """Fail unless a response has a status and shape of the contract (RES-4, RES-6, RES-7)."""
    told = f"{case!r} is answered with {answer.status_code}: {answer.text[:300]}"
    assert answer.status_code in (200, 401, 404, 405, 406, 413, 422), told
    assert re.fullmatch("[A-Za-z0-9.:_-]{1,128}", answer.headers[REQUEST_ID_HEADER]), told
    if answer.status_code == 200 or answer.request.method == "HEAD":
        return
    assert answer.headers["Content-Type"] == "application/json", told
    assert answer.json().keys() == {"detail"}, told
    detail = answer.json()["detail"]
    if answer.status_code != 422:
        assert isinstance(detail, str), told
        return
    assert detail, told
    for error in detail:
        assert error.keys() == {"loc", "msg", "type"}, told
        assert error["loc"][0] in ("body", "header"), told
        assert isinstance(error["msg"], str), told
        assert isinstance(error["type"], str), told


def errors(answer: httpx.Response) -> list[tuple[str, str]]:
    """The location and type of each error in a 422; empty for any other response."""
    if answer.status_code != 422:
        return []
    detail = answer.json()["detail"]
    return [("/".join(map(str, error["loc"])), error["type"]) for error in detail]


def check_silent(answer: httpx.Response, value: str, case: object) -> None:
    """Fail if a response repeats what was sent, except for the id of the request (RES-4, RES-6)."""
    if len(value) < SHORTEST_ECHO:
        return
    headers = [text for name, text in answer.headers.items() if name != REQUEST_ID_HEADER.lower()]
    is_json = answer.headers.get("Content-Type") == "application/json" and answer.content
    for text in (*headers, *(_texts(answer.json()) if is_json else ())):
        assert value not in text, f"{case!r} is repeated in {text!r}"


def _texts(value: object) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def is_json(raw: bytes) -> bool:
    """Whether Python takes it for JSON in UTF-8, that could be written back, and not too deep."""
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs have no UTF-8
    except (ValueError, RecursionError):
        return False
    return _depth(value) <= MAX_DEPTH


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _depth(value: object) -> int:
    """How many arrays and objects stand in each other."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [value for values in inner for value in values]
    return depth
