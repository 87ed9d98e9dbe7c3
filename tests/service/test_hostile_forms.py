"""Forms where JSON belongs, methods that nothing has, and hosts that are none: no fault of ours."""

from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.hostile_requests import (
    JSON_HEADERS,
    SHARED,
    body,
    check,
    completed,
    errors,
    is_json,
)
from tests.support.request_literals import VALID
from tests.support.service import decoded
from upscaler.host_port import is_authority

pytestmark = pytest.mark.usefixtures("no_fault_of_ours")

NOT_JSON = [("body", "json_invalid")]
OTHER_TYPE = [("header/Content-Type", "content_type")]
READ = ("GET", "HEAD", "OPTIONS")
METHODS = {
    "/": READ,
    "/page/page.js": READ,
    "/page/config.json": READ,
    "/docs": READ,
    "/docs/swagger-ui-bundle.js": READ,
    "/openapi.json": READ,
    "/livez": READ,
    "/healthcheck": READ,
    "/metrics": READ,
    "/upscaling": ("OPTIONS", "POST"),
    "/v1/requests": READ,
    "/v1/requests/{response_id}": ("DELETE", *READ),
    "/v1/requests/{response_id}/events": READ,
    "/v1/responses/{response_id}": READ,
    "/v1/batches": ("OPTIONS", "POST"),
    "/v1/batches/{batch_id}": ("DELETE", *READ),
    "/v1/batches/{batch_id}/events": READ,
    "/v1/batches/{batch_id}/zip": READ,
    "/v1/webhooks/secret": READ,
    "/v1/webhooks/test": ("OPTIONS", "POST"),
}
"""What each route can be asked for."""
OTHER_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "POST")
ODD_HOSTS = (
    "[",
    "[a]",
    "[::1",
    "]",
    "a:b",
    "a:-1",
    "@",
    "//a",
    "a/b?c#d",
    "a b",
    "",
    "\xff",
    "<a>",
)


def check_refused(api: httpx.Client, content: bytes, content_type: bytes) -> None:
    """By its type, or as the JSON that it is not, where it is said to be some (REQ-3, REQ-19)."""
    for sent, expected in ((content_type, OTHER_TYPE), (b"application/json", NOT_JSON)):
        headers = {b"Content-Type": sent}
        answer = api.post("/upscaling", content=content, headers=headers)
        check(answer, (sent, content))
        if sent == content_type or not is_json(content):
            assert errors(answer) == expected, (sent, content)


boundaries = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=70)
names = st.sampled_from([*VALID, "unknown", "", "_charset_"]) | st.text(max_size=20)
values = st.sampled_from([literal.strip('"') for literal in VALID.values()]).map(str.encode)
odd = st.sampled_from([b"", b"\r\n", b"\r", b"\n", b"--", b"\0", b'"', b";", b"\xff", b"=" * 999])


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """A part of a form: a field, a file, or one that says too much of itself, or nothing."""
    name = quote(draw(names), safe=" ;=")
    head = f'Content-Disposition: form-data; name="{name}"'
    more = st.sampled_from(
        [
            "",
            '; filename="photo.png"\r\nContent-Type: image/png',
            "; filename=\"..\\..\\a\"; filename*=UTF-8''%ff%00",
            "\r\nContent-Type: multipart/mixed; boundary=inner",
            "\r\nContent-Transfer-Encoding: base64",
            "\r\nContent-Length: -1",
            "\r\n" + "X: y\r\n" * 500,
        ]
    )
    return (head + draw(more)).encode() + b"\r\n\r\n" + draw(values | st.binary(max_size=60))


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A form and its content type."""
    boundary = draw(boundaries).encode()
    all_parts = draw(st.lists(parts(), max_size=4))
    content = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in all_parts)
    return content + b"--%s--\r\n" % boundary, b"multipart/form-data; boundary=" + boundary


content_types = st.sampled_from(
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="',
        b"multipart/form-data; boundary=" + b"b" * 5000,
        b"multipart/form-data; boundary=a; boundary=b",
        b"multipart/form-data; boundary*=UTF-8''%ff",
        b"multipart/mixed; boundary=a",
        b"multipart/form-data; boundary=\xff",
        b"multipart/application/json",
        b"application/json, multipart/form-data; boundary=a",
    ]
)


@SHARED
@given(forms())
def test_a_form_is_refused(api: httpx.Client, form: tuple[bytes, bytes]) -> None:
    check_refused(api, *form)


@SHARED
@given(forms(), st.data())
def test_a_form_that_is_damaged_is_refused(
    api: httpx.Client, form: tuple[bytes, bytes], data: st.DataObject
) -> None:
    content, content_type = form
    at, gone = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 60))
    new = data.draw(odd | st.binary(max_size=20))
    damaged = content[:at] + new + content[at + gone :]
    check_refused(api, damaged, data.draw(st.just(content_type) | content_types))


@SHARED
@given(st.lists(st.tuples(names, values), max_size=5), odd)
@example([], b"1")
@example([("init_image", b"QUJD"), ("scale", b"2")], b"&" * 99_999)
def test_fields_in_url_encoding_are_refused(
    api: httpx.Client, fields: list[tuple[str, bytes]], end: bytes
) -> None:
    content = urlencode(fields).encode() + end
    check_refused(api, content, b"application/x-www-form-urlencoded")


def test_the_table_of_methods_has_every_route_there_is(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()["paths"]
    ours = {path: methods for path, methods in METHODS.items() if path in described}
    assert described.keys() == ours.keys()
    for path, methods in ours.items():  # HEAD and OPTIONS are HTTP's own, and in no description
        assert {each.lower() for each in methods} - {"head", "options"} == set(described[path])


def check_method(answer: httpx.Response, method: str, path: str, case: object) -> None:
    """405 unless the route can be asked so; and before the token is looked at (REQ-19)."""
    if method == "OPTIONS":
        assert (answer.status_code, answer.content) == (204, b""), case
        assert answer.headers["X-User-Request-ID"], case
        assert answer.headers["Allow"] == ", ".join(METHODS[path]), case
        return
    check(answer, case)
    if method in METHODS[path]:
        assert answer.status_code in (200, 401), case
        return
    assert answer.status_code == 405, case
    assert answer.headers["Allow"] == ", ".join(METHODS[path]), case
    if method == "HEAD":
        assert answer.content == b"", case
    else:
        assert answer.json() == {"detail": "Method Not Allowed"}, case


@pytest.mark.every(3)
@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("method", OTHER_METHODS)
def test_a_method_that_a_route_has_not_is_a_405(api: httpx.Client, method: str, path: str) -> None:
    """Also of the page, and whatever is sent along."""
    for headers, content in (({}, None), (JSON_HEADERS, body())):
        sent = {**headers, "Authorization": ""}
        answer = api.request(method, path, headers=sent, content=content)
        check_method(answer, method, path, (method, path))


tokens = st.text(
    st.sampled_from("!#$%&'*+-.^_`|~019AZaz"), min_size=1, max_size=40
)  # as RFC 9110, 5.6.2, has them
ids = st.one_of(
    st.text(min_size=1, max_size=40).map(quote).map(lambda text: text.replace("/", "%2E")),
    st.text(st.sampled_from("!#$%&'()*+,-.:;<=>@[]^_`{|}~\"\\"), min_size=1, max_size=20).map(
        lambda text: text.replace("#", "")  # where a URL ends
    ),
    st.sampled_from(["%", "%0", "%00", "%FF", "%C0%AF", "%u0041", "%0D%0A", ".", "..", "a" * 9000]),
).filter(bool)


@SHARED
@given(tokens | st.sampled_from(OTHER_METHODS), st.sampled_from(sorted(METHODS)), ids)
@example("GET", "/v1/requests/{response_id}", "%00")
def test_a_method_that_nobody_has_is_a_405(
    api: httpx.Client, method: str, path: str, response_id: str
) -> None:
    target = path.format(response_id=response_id, batch_id=response_id).encode()
    answer = api.request(method, "/", extensions={"target": target}, headers={"Authorization": ""})
    check_method(answer, method, path, (method, target))


@SHARED
@given(st.sampled_from(["/v1/requests/", "/v1/responses/"]), ids)
@example("/v1/requests/", "a%2Fb")
def test_an_id_that_is_none_is_a_404(api: httpx.Client, path: str, response_id: str) -> None:
    """ASY-4."""
    target = (path + response_id).encode()
    answer = api.get("/", extensions={"target": target})
    check(answer, target)
    assert answer.status_code == 404, target


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_whatever_host_is_asked_is_a_400_or_gives_addresses_to_go_on_with(
    api: httpx.Client, host: str
) -> None:
    """ASY-1, ASY-2. With a Starlette before 1.0.1 some of them were a 500."""
    value = host.encode("latin-1")
    if not is_authority(host):
        answer = api.get("/livez", headers={b"Host": value})
        assert answer.status_code == 400
        assert isinstance(answer.json()["detail"], str)
        return
    _, response_path = completed(api, {"Host": value})
    decoded(api.get(response_path))
