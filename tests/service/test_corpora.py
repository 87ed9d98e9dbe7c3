"""Inputs made for breaking parsers, sent wherever a client may send anything: no fault of ours."""

import base64
import json
import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from PIL import Image, ImageOps

from tests.support.corpora import json_documents, naughty_strings, needs_corpora, pictures
from tests.support.hostile_requests import (
    JSON_HEADERS,
    MADE,
    SHORTEST_ECHO,
    SIZE,
    asked,
    body,
    check,
    check_silent,
    errors,
    is_json,
)
from tests.support.request_literals import VALID, half_up
from tests.support.service import decoded
from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER, INPUT_SIZE_HEADER, REQUEST_ID_HEADER
from upscaler.api.limits import MAX_INPUT_PX, MIN_INPUT_PX
from upscaler.api.sizes import Size

pytestmark = [
    pytest.mark.dev,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_fault_of_ours"),
    needs_corpora(),
    # Outside of the tests a warning of Pillow's about an odd file is none but a line in the log.
    pytest.mark.filterwarnings("ignore:::PIL"),
]

FOREIGN_LOGS = ("httpx", "uvicorn.access")
FIELDS = [*VALID, "unknown"]
NOT_JSON = [("body", "json_invalid")]
IGNORED_HEADERS = (
    "Accept-Encoding",
    "Accept-Language",
    "Content-Language",
    "Cookie",
    "Expect",
    "Forwarded",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "Origin",
    "Range",
    "Referer",
    "TE",
    "Upgrade",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-OctoAI-Queue-Dispatch",
)
MADE_OF_A_URL: Final = (51, 51)
"""The size of what the mock makes of a picture that it has made for a URL."""
DAMAGED: Final = ("hopper_bad_exif.jpg",)
"""Pillow shows it, and not as it was: libjpeg complains that most of an interval is left over."""
EVERY: Final = {"service": 1, "mock": 6}
"""The service is sent all inputs. The mock, in which nothing but the network is another, is sent
every sixth of them, for the sake of time."""


@pytest.fixture(scope="module")
def documents(target: str) -> list[tuple[str, bytes]]:
    return list(json_documents())[:: EVERY[target]]


@pytest.fixture(scope="module")
def strings(target: str) -> list[str]:
    return naughty_strings()[:: EVERY[target]]


@pytest.fixture(scope="module")
def files(target: str) -> list[Path]:
    return pictures()[:: EVERY[target]]


def post(api: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    return api.post("/upscaling", content=content, headers=JSON_HEADERS | headers, timeout=60)


def check_made(answer: httpx.Response, field: str, value: Any, case: object) -> None:
    """The picture has the size that the request asks for, where `value` is what `field` has."""
    width, height = SIZE
    size = MADE
    if value is not None and field == "scale":
        size = half_up(width * Decimal(value)), half_up(height * Decimal(value))
    elif value is not None and field == "init_image_url":
        size = MADE_OF_A_URL
    elif value is not None and field == "output_image_width":
        size = int(Decimal(value)), half_up(height * Decimal(value) / width)
    elif value is not None and field == "output_image_height":
        size = half_up(width * Decimal(value) / height), int(Decimal(value))
    assert decoded(answer).size == size, f"{case!r} makes a picture of another size"


def test_each_document_is_read_as_json_or_refused_as_none(
    api: httpx.Client, documents: list[tuple[str, bytes]]
) -> None:
    seen = set()
    for name, document in documents:
        answer = post(api, document)
        check(answer, name)
        assert answer.status_code == 422, name
        assert (errors(answer) != NOT_JSON) == is_json(document), (name, answer.text)
        seen.add((name[:2], errors(answer) != NOT_JSON))
    assert seen >= {("y_", True), ("n_", False), ("i_", True), ("i_", False)}
    assert seen.isdisjoint({("y_", False), ("n_", True)})


@pytest.mark.parametrize("field", FIELDS)
def test_each_document_in_a_field_is_told_there(
    api: httpx.Client, field: str, documents: list[tuple[str, bytes]]
) -> None:
    for name, document in documents:
        content = body(**{field: document})
        answer = post(api, content)
        check(answer, name)
        assert (errors(answer) != NOT_JSON) == is_json(content), (name, answer.text)
        check_silent(answer, document.decode(errors="replace"), name)
        if answer.status_code == 200:
            check_made(answer, field, json.loads(document), name)


@pytest.mark.parametrize("field", FIELDS)
def test_each_string_in_a_field_is_told_there_and_not_repeated(
    api: httpx.Client, field: str, strings: list[str]
) -> None:
    for text in strings:
        answer = post(api, body(**{field: json.dumps(text).encode()}))
        check(answer, text)
        check_silent(answer, text, text)
        if answer.status_code == 200:
            check_made(answer, field, text, text)
        else:
            assert [loc for loc, _ in errors(answer)] == [f"body/{field}"], (text, answer.text)


def test_each_string_may_be_the_name_of_a_field(api: httpx.Client, strings: list[str]) -> None:
    for text in strings:
        answer = post(api, body(**{text: b"1"}))
        check(answer, text)
        assert [kind for _, kind in errors(answer)] == ["extra_forbidden"], (text, answer.text)


def headers_of(name: str, strings: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each string as a header, without what is around a header's value and never part of it."""
    for text in strings:
        value = text.strip()
        yield value, {name: value.encode()}


@pytest.mark.parametrize("name", ["Accept", ASYNC_HEADER, DRY_RUN_HEADER])
def test_each_string_may_be_in_a_header_that_asks_for_something(
    api: httpx.Client, name: str, strings: list[str]
) -> None:
    for text, headers in headers_of(name, strings):
        answer = asked(api, headers)
        check(answer, text)
        assert answer.status_code == 200 or name == "Accept", (text, answer.text)
        asks = text == "1" and name != "Accept"
        assert ("image_b64" in answer.text) == (answer.status_code == 200 and not asks), text
        check_silent(answer, text, text)


def test_no_string_is_a_content_type(api: httpx.Client, strings: list[str]) -> None:
    """REQ-3."""
    for text, headers in headers_of("Content-Type", strings):
        answer = asked(api, headers)
        check(answer, text)
        assert errors(answer) == [("header/Content-Type", "content_type")], text
        check_silent(answer, text, text)


def test_a_string_is_the_id_of_a_request_if_it_may_be_one(
    api: httpx.Client, strings: list[str]
) -> None:
    """RES-6."""
    kept = set()
    for text, headers in headers_of(REQUEST_ID_HEADER, strings):
        answer = asked(api, headers)
        check(answer, text)
        sane = re.fullmatch("[A-Za-z0-9.:_-]{1,128}", text) is not None
        assert (answer.headers[REQUEST_ID_HEADER] == text) == sane, text
        kept.add(sane)
    assert kept == {True, False}


def test_each_string_may_be_in_any_header_that_is_none_of_ours(
    api: httpx.Client, strings: list[str]
) -> None:
    """REQ-18."""
    for text in strings:
        value = text.strip().encode()
        answer = asked(api, dict.fromkeys(IGNORED_HEADERS, value))
        check(answer, text)
        check_made(answer, "", None, text)
        check_silent(answer, text.strip(), text)


@pytest.mark.parametrize("scheme", ["", "Bearer ", "bearer first-token "])
def test_no_string_is_a_token(
    api: httpx.Client, scheme: str, caplog: pytest.LogCaptureFixture, strings: list[str]
) -> None:
    """REQ-2; and none comes into the log."""
    caplog.set_level(logging.INFO)
    for text in strings:
        value = f"{scheme}{text}".strip().encode()
        if value.split()[1:] == [b"first-token"]:
            continue  # an empty string leaves the right one
        answer = asked(api, {"Authorization": value})
        check(answer, text)
        assert answer.status_code == 401, text
        assert answer.headers["WWW-Authenticate"] == "Bearer", text
        check_silent(answer, text, text)
    check_unlogged(caplog, strings)


def check_unlogged(caplog: pytest.LogCaptureFixture, strings: list[str]) -> None:
    """No record has one of the strings, not even in an attribute that a formatter would write.

    The client has a log, too; and uvicorn's of its own, which is switched off, pytest listens to.
    """
    records = [record for record in caplog.records if record.name not in FOREIGN_LOGS]
    assert records, "nothing is logged at all"
    values = [value for record in records for value in vars(record).values()]
    written = "\n".join(str(value) for value in values if not isinstance(value, int | float))
    for text in strings:
        by_chance = len(text) < SHORTEST_ECHO or re.fullmatch("[0-9a-fA-F.+-]+", text)
        assert by_chance or text not in written, f"{text!r} is logged"


@pytest.mark.parametrize(
    "place", ["/", "/page/", "/docs/", "/upscaling/", "/v1/requests/", "/v1/responses/"]
)
def test_each_string_may_be_in_a_path(api: httpx.Client, place: str, strings: list[str]) -> None:
    for text in strings:
        for target in (place + quote(text, safe=""), place + quote(text, safe="/:@!$&'()*+,;=%")):
            # As it is: httpx would leave out what "." and ".." stand for.
            answer = api.get("/", extensions={"target": target.encode()})
            check(answer, target)
            assert answer.status_code == (200 if target == "/" else 404), target
            if target != "/":
                check_silent(answer, text, target)


def test_each_string_may_be_in_a_query(
    api: httpx.Client, caplog: pytest.LogCaptureFixture, strings: list[str]
) -> None:
    """And none comes into the log."""
    caplog.set_level(logging.INFO)
    for text in strings:
        for query in (quote(text, safe=""), "scale=" + quote(text, safe="/:@!$&'()*+,;=%?")):
            # A dry run, which is faster.
            headers = JSON_HEADERS | {DRY_RUN_HEADER: "1"}
            extensions = {"target": f"/upscaling?{query}".encode()}
            answer = api.post("/", content=body(), headers=headers, extensions=extensions)
            check(answer, query)
            assert answer.json()["output_width"] == MADE[0], query
            check_silent(answer, text, query)
    check_unlogged(caplog, strings)


def still(path: Path) -> Size | None:
    """The size of one still picture, upright, if that is what Pillow reads in a file."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
            image.load()
            return ImageOps.exif_transpose(image).size if frames == 1 else None
    except Exception:  # of nearly every kind, on a bad file
        return None


def test_each_picture_is_enlarged_if_it_is_one_and_else_refused(
    api: httpx.Client, target: str, files: list[Path]
) -> None:
    """REQ-13, REQ-16."""
    made = 0
    for path in files:
        image = base64.b64encode(path.read_bytes())
        answer = post(api, body(init_image=b'"%s"' % image, scale=b"0.25"))
        check(answer, path.name)
        size = still(path)
        if path.name in DAMAGED:
            assert errors(answer) == [("body/init_image", "image_damaged")]
            continue
        fits = size and min(size) >= MIN_INPUT_PX and max(size) <= MAX_INPUT_PX
        assert (answer.status_code == 200) == bool(fits), (path.name, size, answer.text[:300])
        if not fits:
            ((loc, kind),) = errors(answer)
            assert loc == "body/init_image", path.name
            assert not size or kind in ("image_too_small", "image_too_large"), (path.name, kind)
            continue
        assert size
        assert answer.headers[INPUT_SIZE_HEADER] == f"{size[0]}x{size[1]}", path.name
        smaller = half_up(size[0] * Decimal("0.25")), half_up(size[1] * Decimal("0.25"))
        assert decoded(answer).size == smaller, path.name
        made += 1
    assert made > 50 / EVERY[target]
