"""The rules: printed, in both dialects, and in the header of every error response."""

import base64
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from starlette.types import Message, Receive, Scope, Send

from mock_server.mock import Mock
from mock_server.rules.catalogue import LABELS, ORDER, RULES, SOURCES, WIDTH
from mock_server.rules.middleware import (
    RULE_HEADER,
    RuleHeaderMiddleware,
    rule_of_status,
    rules_of_error,
)
from mock_server.serving import cli
from mock_server.serving.connection import MockConnection
from tests.support.image_files import noise, saved
from tests.support.mock_servers import mock_child, mocking
from tests.support.paths import PHOTO, ROOT
from tests.support.request_literals import ANY_FIELDS, ANY_JSON
from tests.support.service import (
    GOOD,
    PHOTO_B64,
    SETTINGS,
    TOKENS,
    Moody,
    decoded,
    png,
    running,
    upscale,
)
from upscaler import errors
from upscaler.api.limits import ASYNC_MAX_BODY_BYTES, MAX_BODY_BYTES, MAX_COMMAS
from upscaler.api.request import parse_request
from upscaler.errors import InvalidRequest, UpscalerError
from upscaler.formats import ImageEncoding
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.server.connection import MAX_HEAD_BYTES

CONTRACT: Final = ROOT / "docs" / "CONTRACT.md"

# Printed


def test_the_rules_are_those_of_the_contract() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in CONTRACT.read_text("utf-8").splitlines()
        if re.match(r"\| [A-Z]{3}-[0-9]+ \|", line)
    ]
    wanted = [(row[0], row[2] if row[2:] else "ours") for row in rows]
    assert len(wanted) == 19 + 9 + 5 + 6 + 6
    assert [(rule.id, rule.support) for rule in RULES] == wanted


def test_the_sources_are_those_of_the_contract() -> None:
    explained = re.findall(r"^- \*\*([a-z]+)\*\*: ", CONTRACT.read_text("utf-8"), re.MULTILINE)
    assert set(explained) == set(LABELS) == set(SOURCES)


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("REQ-1", ("documented", "published schema", "our choice")),
        ("REQ-3", ("documented", "our choice")),
        ("REQ-12", ("published schema", "our choice")),
        ("REQ-18", ("documented",)),
        ("RES-3", ("documented", "published schema")),
        ("RES-5", ("documented", "observed in clients", "our choice")),
        ("RES-7", ("our choice",)),
        ("ASY-2", ("documented", "observed in clients")),
    ],
)
def test_a_rule_is_labelled_by_its_support(rule: str, labels: tuple[str, ...]) -> None:
    assert RULES[ORDER[rule]].fidelity == labels


def test_rules_are_printed_with_labels_and_sources(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for rule in RULES:
        (first,) = [at for at, line in enumerate(lines) if line.startswith(f"{rule.id} ")]
        paragraph = " ".join(" ".join(lines[first:]).split()).removeprefix(f"{rule.id} ")
        assert paragraph.startswith(f"{rule.text} [{', '.join(rule.fidelity)}] {rule.support}")
    for word, meaning in SOURCES.items():
        assert f"{word:10}{meaning}" in lines


def test_rules_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--rules", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [rule["id"] for rule in told] == list(ORDER)
    assert told[2] == {
        "id": "REQ-3",
        "text": RULES[2].text,
        "support": "page; the refusal is ours",
        "fidelity": ["documented", "our choice"],
    }


# The dialects


@pytest.mark.parametrize("default", ImageEncoding)
def test_the_default_encoding_can_be_chosen(default: ImageEncoding) -> None:
    """REQ-9; Accept still overrides it (RES-8)."""
    other = next(encoding for encoding in ImageEncoding if encoding is not default)
    with mocking(replace(SETTINGS, default_encoding=default)) as api:
        assert decoded(upscale(api, **GOOD)).format == default.upper()
        for encoding in ImageEncoding:
            fields = GOOD | {"output_image_encoding": encoding}
            assert decoded(upscale(api, **fields)).format == encoding.upper()
        for accept, wanted in (("image/*", default), (f"image/{other}", other)):
            answer = api.post("/upscaling", json=GOOD, headers={"Accept": accept})
            assert answer.headers["Content-Type"] == f"image/{wanted}"
        refused = upscale(api, **GOOD, output_image_encoding=None)
        assert refused.headers[RULE_HEADER] == "REQ-9", "null is not among the two"


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("options", "environment", "wanted"),
    [
        ((), {}, "PNG"),
        (("--dialect", "strict"), {"UPSCALER_DEFAULT_ENCODING": "jpeg"}, "PNG"),
        (("--dialect", "octoai"), {}, "JPEG"),
        ((), {"UPSCALER_DEFAULT_ENCODING": "jpeg"}, "JPEG"),
    ],
)
def test_the_dialect_is_of_the_option_or_the_environment(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], wanted: str
) -> None:
    headers = {"Authorization": "Bearer mock-token"}
    with (
        mock_child(tmp_path, *options, environment=environment) as child,
        httpx.Client(base_url=child.url, headers=headers) as api,
    ):
        assert decoded(upscale(api, **GOOD)).format == wanted


def test_an_unknown_dialect_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--dialect", "stable"])
    assert ended.value.code == 2
    assert "argument --dialect: invalid choice: 'stable'" in capsys.readouterr().err


# On error responses


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    """A service that can fail in every way, with the rules in its error responses."""
    app = create_app(LocalBackend(Moody()), SETTINGS)
    app.add_middleware(RuleHeaderMiddleware)
    with (
        running(app, MockConnection) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKENS[0]}"}) as client,
    ):
        yield client


@dataclass(frozen=True)
class Case:
    """A wrong request, and the rules that it breaks."""

    rules: str
    fields: dict[str, Any] = field(default_factory=dict)
    """Override those of a valid request; None removes a field."""
    status: int = 422
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    method: str = "POST"
    path: str = "/upscaling"


def image(data: bytes) -> dict[str, Any]:
    return {"init_image": base64.b64encode(data).decode()}


WEBP: Final = saved(noise(300, 300, 3), "WEBP")
ABSENT: Final = {"init_image": None}
URL: Final = ABSENT | {"init_image_url": "http://127.0.0.1/a.png"}
ASYNC: Final = {"X-OctoAI-Async": "1"}
LONG: Final = b" " * (MAX_BODY_BYTES + 1)

CASES: Final = {
    "no token": Case("REQ-2", status=401, headers={"Authorization": ""}),
    "a wrong token": Case("REQ-2", status=401, headers={"Authorization": "Bearer x"}),
    "no such path": Case("REQ-1", status=404, path="/upscale"),
    "a wrong method": Case("REQ-1", status=405, method="GET"),
    "HEAD": Case("REQ-1", status=405, method="HEAD"),
    "a wrong method on health": Case("RES-9", status=405, path="/healthcheck"),
    "a wrong method on a poll": Case("ASY-2", status=405, path="/v1/requests/x"),
    "a wrong method on a result": Case("ASY-3", status=405, path="/v1/responses/x"),
    "a wrong method on metrics": Case("OWN-5", status=405, path="/metrics"),
    "an unknown id": Case("ASY-4", status=404, method="GET", path="/v1/requests/x"),
    "an unknown result": Case("ASY-4", status=404, method="GET", path="/v1/responses/x"),
    "too long": Case("RES-7", status=413, content=LONG),
    "too long for later": Case(
        "ASY-4", status=413, content=LONG[: ASYNC_MAX_BODY_BYTES + 1], headers=ASYNC
    ),
    "text": Case("REQ-3", headers={"Content-Type": "text/plain"}),
    "another coding": Case("OWN-6", status=415, headers={"Content-Encoding": "br"}),
    "no gzip": Case("OWN-6", headers={"Content-Encoding": "gzip"}),
    "no JSON": Case("REQ-1", content=b"{"),
    "no object": Case("REQ-1", content=b"[]"),
    "too many values": Case("REQ-11", content=b'{"scale": [' + b"0," * (MAX_COMMAS + 1) + b"0]}"),
    "too many fields": Case("REQ-11", {f"x{number}": 0 for number in range(100)}),
    "an unknown field": Case("REQ-11", {"x": 0}),
    "an unknown field called body": Case("REQ-11", {"body": 0}),
    "no image": Case("REQ-4", ABSENT),
    "two images": Case("REQ-4", {"init_image_url": "http://a.example"}),
    "a URL that is a number": Case("REQ-4, REQ-12", ABSENT | {"init_image_url": 1}),
    "no size": Case("REQ-5", {"scale": None}),
    "two sizes": Case("REQ-5", {"output_image_width": 300}),
    "nothing at all": Case("REQ-4, REQ-5", content=b"{}"),
    "scale 0": Case("REQ-6", {"scale": 0}),
    "scale inf": Case("REQ-6", {"scale": "inf"}),
    "scale abc": Case("REQ-6, REQ-12", {"scale": "abc"}),
    "scale []": Case("REQ-6, REQ-12", {"scale": []}),
    "height 0": Case("REQ-7", {"scale": None, "output_image_height": 0}),
    "width 1.5": Case("REQ-7, REQ-12", {"scale": None, "output_image_width": 1.5}),
    "model x8": Case("REQ-8", {"model": "x8"}),
    "encoding gif": Case("REQ-9", {"output_image_encoding": "gif"}),
    "faces": Case("REQ-10", {"face_enhance": True}),
    "maybe faces": Case("REQ-10, REQ-12", {"face_enhance": "maybe"}),
    "half of everything": Case(
        "REQ-5, REQ-8, REQ-9, REQ-11, REQ-17",
        {"init_image": "?", "scale": None, "model": 1, "output_image_encoding": [], "x": 0},
    ),
    "no base64": Case("REQ-17", {"init_image": "?"}),
    "an image that is a number": Case("REQ-12, REQ-17", {"init_image": 1}),
    "no image in it": Case("REQ-17", image(b"hello")),
    "half an image": Case("REQ-17", image(PHOTO.read_bytes()[:50_000])),
    "a damaged WebP": Case("REQ-17", image(WEBP[: len(WEBP) // 2])),
    "a small image": Case("REQ-13", {"init_image": png(255, 300)}),
    "a large image": Case("REQ-13", {"init_image": png(300, 2049)}),
    "a large output": Case("REQ-14", {"scale": 99}),
    "a wide output": Case("REQ-14", {"scale": None, "output_image_width": 8193}),
    "a URL that is refused": Case("OWN-3", URL),
    "what nobody can give": Case("RES-8", status=406, headers={"Accept": "text/html"}),
    "weights that are not there": Case("RES-7", {"model": "real-esrgan-x4-v3"}, status=503),
    "a fault of ours": Case("RES-7", {"model": "real-esrgan-x2-plus"}, status=500),
}


def sent(api: httpx.Client, case: Case) -> httpx.Response:
    fields = {name: value for name, value in (GOOD | case.fields).items() if value is not None}
    content = json.dumps(fields).encode() if case.content is None else case.content
    headers = {"Content-Type": "application/json"} | case.headers
    return api.request(case.method, case.path, content=content, headers=headers, timeout=60)


@pytest.mark.parametrize("name", CASES)
def test_an_error_response_names_its_rules(api: httpx.Client, name: str) -> None:
    case = CASES[name]
    answer = sent(api, case)
    assert answer.status_code == case.status, answer.text
    assert answer.headers.get_list(RULE_HEADER) == [case.rules], answer.text
    assert answer.headers["X-User-Request-ID"]


def test_other_responses_name_no_rule(api: httpx.Client) -> None:
    answers = [
        *(upscale(api, **GOOD), api.get("/livez"), api.get("/"), api.get("/openapi.json")),
        api.post("/upscaling", json=GOOD, headers=ASYNC),
        api.post("/upscaling", json=GOOD, headers={"Accept": "image/png"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert not [answer for answer in answers if RULE_HEADER in answer.headers]


@pytest.mark.parametrize("head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a" * 2**17])
def test_a_refusal_of_no_request_names_a_rule(api: httpx.Client, head: bytes) -> None:
    assert len(head) < 100 or len(head) > MAX_HEAD_BYTES
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), 30) as connection:
        connection.sendall(head)
        answer = connection.makefile("rb").read()
    assert re.match(rb"HTTP/1.1 4(00|31) ", answer)
    assert b"\r\nX-Mock-Rule: RES-7\r\n" in answer


def test_a_pending_result_is_not_an_unknown_one() -> None:
    mock = Mock(settings=SETTINGS)
    mock.jobs.progress = replace(mock.jobs.progress, pending=1)
    with running(mock.app) as url, httpx.Client(base_url=url) as api:
        api.headers["Authorization"] = f"Bearer {TOKENS[0]}"
        job = api.post("/upscaling", json=GOOD, headers=ASYNC).json()["response_id"]
        answer = api.get(f"/v1/responses/{job}")
        assert (answer.status_code, answer.headers[RULE_HEADER]) == (404, "ASY-3")


@given(ANY_FIELDS | ANY_JSON)
def test_every_error_of_a_request_has_a_rule(value: object) -> None:
    try:
        parse_request(json.dumps(value).encode())
    except InvalidRequest as error:
        for broken in error.errors:
            rules = rules_of_error(
                str(broken.loc[min(1, len(broken.loc) - 1)]), broken.type, broken.msg
            )
            assert set(rules) <= ORDER.keys()
            assert rules


KINDS: Final = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, UpscalerError)
]
"""All classes of errors."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [False, True])
def test_every_status_has_a_rule(kind: type[UpscalerError], again: bool) -> None:
    assert rule_of_status(kind.status, path="/upscaling", has_retry_after=again) in ORDER


@pytest.mark.parametrize(
    ("path", "again", "rule"),
    [
        ("/upscaling", True, "OWN-4"),
        ("/upscaling", False, "RES-7"),
        ("/healthcheck", True, "RES-9"),
    ],
)
def test_the_rule_of_a_503_depends_on_retry_after(path: str, again: bool, rule: str) -> None:
    assert rule_of_status(503, path=path, has_retry_after=again) == rule


# The middleware over any app


def app_of(*messages: Message) -> Callable[[Scope, Receive, Send], Any]:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def through(*messages: Message, path: str = "/upscaling") -> list[Message]:
    """Return the messages that the middleware sends for those of an app."""
    out: list[Message] = []

    async def send(message: Message) -> None:
        out.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody asks for the body")

    scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    coroutine = RuleHeaderMiddleware(app_of(*messages))(scope, receive, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    return out


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"no JSON", b"[]", b"1", b"{}", b'{"detail": "text"}', b'{"detail": [1, null, []]}'),
        b'{"detail": []}',
    ],
)
def test_a_422_of_another_shape_is_res_4(body: bytes) -> None:
    """RES-4; the body of an injected fault may be anything."""
    (head, rest) = through(start(422), {"type": "http.response.body", "body": body})
    assert dict(head["headers"]) == {b"x-mock-rule": b"RES-4"}
    assert rest["body"] == body


def test_a_body_in_chunks_is_passed_on() -> None:
    parts: list[Message] = [
        {"type": "http.response.body", "body": part, "more_body": part != b"c"}
        for part in (b"a", b"b", b"c")
    ]
    out = through(start(503, (b"retry-after", b"1")), *parts)
    assert out[1:] == parts
    assert (b"x-mock-rule", b"OWN-4") in out[0]["headers"]


def test_a_header_that_is_there_already_stays() -> None:
    head, _ = through(start(500, (b"x-mock-rule", b"RES-1")), {"type": "http.response.body"})
    assert head["headers"] == [(b"x-mock-rule", b"RES-1")]


def test_errors_below_mock_name_no_rule() -> None:
    head, _ = through(start(404), {"type": "http.response.body"}, path="/_mock/nowhere")
    assert head["headers"] == []


def test_a_response_without_a_body_is_not_sent() -> None:
    assert through(start(500)) == []


def test_the_base64_of_the_photo_is_that_of_the_file() -> None:
    assert base64.b64decode(PHOTO_B64) == PHOTO.read_bytes()
