"""The same request in the other forms that HTTP and JSON have for it.

Clients and proxies write a request in many ways, and a parser of one's own knows only some.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from contract_tests.judge.run import Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    TOKEN_PLACEHOLDER,
    Headers,
    Request,
    upscaling_request,
)

rule = pytest.mark.rule
pytestmark = [pytest.mark.billable, pytest.mark.strict]
FIELDS: Final = {"scale": 1.5, "output_image_encoding": "jpeg"}


def request(run: Run, seed: int) -> Request:
    return upscaling_request(FIELDS, SampleImage(256, 300, "png", seed, "palette")).with_model(
        run.models
    )


def _escaped(text: str) -> str:
    """JSON with every character of its strings as an escape (RFC 8259, 7)."""
    pairs = (f"{_string(name)}:{_value(value)}" for name, value in json.loads(text).items())
    return "{" + ",".join(pairs) + "}"


def _string(text: str) -> str:
    return '"' + "".join(f"\\u{ord(character):04X}" for character in text) + '"'


def _value(value: object) -> str:
    return _string(value) if isinstance(value, str) else json.dumps(value)


JSON_FORMS: Final[dict[str, Callable[[str], str]]] = {
    "escaped slashes": lambda text: text.replace("/", "\\/"),
    "escaped characters": _escaped,
    "white space": lambda text: "\r\n\t " + json.dumps(json.loads(text), indent="\t") + "\r\n\t ",
    "no white space": lambda text: json.dumps(json.loads(text), separators=(",", ":")),
    "other order": lambda text: json.dumps(dict(reversed(json.loads(text).items()))),
    "exponent": lambda text: text.replace("1.5", "15E-1"),
    "many digits": lambda text: text.replace("1.5", f"1.5{'0' * 400}"),
    "repeated name": lambda text: text.replace('"scale"', '"scale": 1, "scale"'),
}
"""A name that is repeated has its last value, as in Python and JavaScript."""


@rule("REQ-1", "REQ-12", "REQ-16", "RES-1")
@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_may_be_written_in_any_way(run: Run, form: str) -> None:
    plain = request(run, 61)
    changed = JSON_FORMS[form](plain.body.decode())
    assert changed != plain.body.decode(), "the form differs"
    run.check(replace(plain, body=changed.encode()))


@rule("REQ-7", "REQ-12", "RES-1")
@pytest.mark.parametrize("number", ["384.0", "3.84e2", "384000E-3"])
@pytest.mark.parametrize("name", ["output_image_height", "output_image_width"])
def test_an_integer_may_have_a_fraction_or_an_exponent_of_zero(
    run: Run, name: str, number: str
) -> None:
    plain = upscaling_request({name: 384}, SampleImage(256, 300, "png", 62, "palette"))
    plain = plain.with_model(run.models)
    run.check(replace(plain, body=plain.body.replace(b"384", number.encode())))


@rule("REQ-2")
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer "])
def test_the_scheme_of_the_token_has_any_case(run: Run, scheme: str) -> None:
    """And any number of spaces behind it (RFC 9110, 11.1 and 11.4)."""
    run.check(request(run, 63).with_headers(("Authorization", f"{scheme} {TOKEN_PLACEHOLDER}")))


def _renamed(headers: Headers, change: Callable[[str], str]) -> Headers:
    return tuple((change(name), value) for name, value in headers)


@rule("REQ-18")
@pytest.mark.parametrize(
    "change", [str.lower, str.upper, str.swapcase], ids=lambda each: each.__name__
)
def test_names_of_headers_have_any_case(run: Run, change: Callable[[str], str]) -> None:
    """RFC 9110, 5.1."""
    plain = request(run, 64).with_headers(("Accept", "image/png"))
    run.check(replace(plain, headers=_renamed(plain.headers, change)))


@rule("ASY-1")
def test_the_name_of_the_async_header_has_any_case(run: Run) -> None:
    plain = request(run, 65)
    run.check(replace(plain, headers=_renamed((*plain.headers, ("x-octoai-ASYNC", "1")), str)))


@rule("REQ-1", "RES-1")
def test_a_body_may_come_in_chunks(run: Run) -> None:
    """RFC 9112, 7.1. Clients that stream a body do not know its length."""
    run.check(request(run, 66).with_headers(("Transfer-Encoding", "chunked")))


@rule("RES-7", "RES-4")
@pytest.mark.parametrize("body", [b"", b"{", b'{"scale": "two"}'])
def test_a_chunked_body_is_refused_like_any_other(run: Run, body: bytes) -> None:
    run.check(Request(body).with_headers(("Transfer-Encoding", "chunked")))


@rule("REQ-18")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Expect", "100-continue"), ("Connection", "close"), ("Range", "bytes=0-9")),
        *(("If-None-Match", "*"), ("Cookie", "a=1; b=2"), ("Origin", "https://a.example")),
        *(("Accept-Language", "tr"), ("Accept-Charset", "x"), ("X-Long", "x" * 4000)),
        *(("Content-Language", "de"), ("Content-Encoding", "identity")),
    ],
)
def test_headers_that_clients_and_proxies_add_are_accepted(run: Run, name: str, value: str) -> None:
    run.check(request(run, 67).with_headers((name, value)))


ACCEPTED: Final[dict[str, Headers]] = {
    "in another case": (("Accept", "IMAGE/PNG"),),
    "with parameters in another case": (("Accept", "application/json;q=0.5, Image/Png;Q=0.9"),),
    "on two lines": (("Accept", "text/html"), ("Accept", "image/png")),
    "on two lines, the first one empty": (("Accept", ""), ("Accept", "image/png")),
    "with tabs": (("Accept", "text/html\t,\timage/png\t;\tq=1"),),
}


@rule("RES-8")
@pytest.mark.parametrize("form", ACCEPTED)
def test_accept_may_be_written_in_any_way(run: Run, form: str) -> None:
    """RFC 9110, 5.3, 8.3.1 and 12.5.1."""
    run.check(request(run, 68).with_headers(*ACCEPTED[form]))
