"""Bodies in gzip or deflate, as gateways send them, and in what is neither."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Mock
from tests.support.both_servers import SERVERS, api_of
from tests.support.mock_servers import SMALL, mocked, recorded
from tests.support.service import SETTINGS, decoded, only_error
from upscaler.api.limits import ASYNC_MAX_BODY_BYTES, MAX_BODY_BYTES
from upscaler.errors import BodyTooLarge, InvalidRequest
from upscaler.service.coding import MAX_MEMBERS, decode_body

BODY: Final = json.dumps(SMALL).encode()


def raw_deflate(data: bytes) -> bytes:
    """Without zlib's header, as some clients send it (RFC 9110, 8.4.1.2)."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def members(data: bytes) -> bytes:
    """A gzip file for each thousand bytes, one after the other (RFC 1952, 2.2)."""
    return b"".join(gzip.compress(data[at : at + 1000]) for at in range(0, len(data), 1000))


CODINGS: Final[list[tuple[str, Callable[[bytes], bytes]]]] = [
    ("gzip", gzip.compress),
    ("gzip", members),
    ("X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("identity, gzip", gzip.compress),
]


def sent(api: httpx.Client, content: bytes, coding: str, **headers: str) -> httpx.Response:
    all_headers = {"Content-Type": "application/json", "Content-Encoding": coding, **headers}
    return api.post("/upscaling", content=content, headers=all_headers, timeout=60)


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
def test_a_compressed_body_is_read(
    api: httpx.Client, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    assert decoded(sent(api, encode(BODY), coding)).size == (152, 128)
    error = only_error(sent(api, encode(BODY.replace(b"0.5", b"-1")), coding))
    assert error["loc"] == ["body", "scale"]


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip,br", "x" * 999])
def test_another_coding_is_a_415_that_says_which_are_read(api: httpx.Client, coding: str) -> None:
    """RFC 9110, 12.5.3 and 15.5.16."""
    answer = sent(api, BODY, coding)
    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"
    detail = answer.json()["detail"]
    assert "gzip or deflate" in detail
    assert (coding in detail) == (coding in ("br", "zstd", "compress"))
    assert len(detail) < 200


def test_several_lines_are_several_codings(api: httpx.Client) -> None:
    lines = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    headers = [
        *lines,
        ("Content-Encoding", "gzip"),
        ("Authorization", api.headers["Authorization"]),
    ]
    assert api.post("/upscaling", content=gzip.compress(BODY), headers=headers).status_code == 415


DAMAGED: Final = {
    "no gzip": (BODY, "gzip"),
    "nothing": (b"", "gzip"),
    "half of it": (gzip.compress(BODY)[:-1000], "gzip"),
    "a wrong checksum": (gzip.compress(BODY)[:-8] + bytes(8), "gzip"),
    "more behind it": (gzip.compress(BODY) + b"more", "gzip"),
    "more behind deflate": (zlib.compress(BODY) + b"more", "deflate"),
    "no deflate": (b"\xff" * 100, "deflate"),
    "a dictionary": (zlib.compressobj(zdict=BODY).compress(BODY), "deflate"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_decoded_is_a_422_on_the_header(api: httpx.Client, name: str) -> None:
    error = only_error(sent(api, *DAMAGED[name]))
    assert (error["loc"], error["type"]) == (["header", "Content-Encoding"], "content_encoding")


def test_the_limits_of_a_body_are_those_of_what_comes_of_it(api: httpx.Client) -> None:
    """A bomb of 33 kB, and one of the longest body that is read."""
    for limit, headers in ((MAX_BODY_BYTES, {}), (ASYNC_MAX_BODY_BYTES, {"X-OctoAI-Async": "1"})):
        largest, larger = (gzip.compress(b" " * size, 1) for size in (limit, limit + 1))
        assert only_error(sent(api, largest, "gzip", **headers))["type"] == "json_invalid"
        refused = sent(api, larger, "gzip", **headers)
        assert refused.status_code == 413
        assert str(limit) in refused.json()["detail"]


@pytest.mark.parametrize("server", SERVERS)
def test_what_comes_of_a_body_counts_as_memory_while_it_is_decoded(server: str) -> None:
    with api_of(server, replace(SETTINGS, queue_memory=4 * 2**20)) as api:
        refused = sent(api, gzip.compress(b" " * 8 * 2**20, 1), "gzip")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]


def test_nothing_is_decoded_without_a_token(api: httpx.Client) -> None:
    headers = {"Authorization": "Bearer wrong"}
    assert sent(api, gzip.compress(bytes(MAX_BODY_BYTES * 2)), "gzip", **headers).status_code == 401
    assert sent(api, BODY, "br", **headers).status_code == 401


@pytest.mark.parametrize("server", SERVERS)
def test_memory_is_free_again_after_compressed_bodies(server: str) -> None:
    with api_of(server) as api:
        for content in (gzip.compress(BODY), b"no gzip", gzip.compress(bytes(MAX_BODY_BYTES + 1))):
            sent(api, content, "gzip")
        assert "upscaler_held_bytes 0.0" in api.get("/metrics").text


def test_the_mock_notes_the_fields_of_a_compressed_body() -> None:
    mock = Mock()
    with mocked(mock) as api:
        sent(api, gzip.compress(BODY), "gzip")
        sent(api, b"no gzip", "gzip")
        sent(api, BODY, "br")
        sent(api, gzip.compress(b" " * (MAX_BODY_BYTES + 1)), "gzip")
        mock.assert_called_with(scale=0.5, times=1)
        entries = recorded(api)
    assert [entry["fields"] is not None for entry in entries] == [True, False, False, False]
    assert entries[0]["body_bytes"] == len(gzip.compress(BODY))


# The decoder


def limit_of(most: int) -> Callable[[int], None]:
    def check(size: int) -> None:
        if size > most:
            raise BodyTooLarge

    return check


@given(st.binary(max_size=300), st.integers(1, 10**5), st.sampled_from(CODINGS[:5]))
def test_decoding_gives_what_was_encoded(
    data: bytes, times: int, coded: tuple[str, Callable[[bytes], bytes]]
) -> None:
    data = (data * times)[: 2**22]
    name = coded[0].lower().removeprefix("x-")
    if coded[1] is members:
        data = data[: MAX_MEMBERS * 1000]
    if not data and coded[1] is members:
        return  # of nothing there is no member
    assert decode_body(coded[1](data), name, limit_of(len(data))) == data
    if data:
        with pytest.raises(BodyTooLarge):
            decode_body(coded[1](data), name, limit_of(len(data) - 1))


def test_a_bomb_is_given_up_early() -> None:
    """A gigabyte, of which no more is made than the limit and a piece."""
    bomb = gzip.compress(bytes(2**26), 9) * 16
    seen: list[int] = []

    def check(size: int) -> None:
        seen.append(size)
        limit_of(2**25)(size)

    with pytest.raises(BodyTooLarge):
        decode_body(bomb, "gzip", check)
    assert max(seen) <= 2**25 + 2**20


def test_a_million_empty_members_are_refused() -> None:
    empty = gzip.compress(b"")
    assert decode_body(empty * MAX_MEMBERS, "gzip", limit_of(0)) == b""
    with pytest.raises(InvalidRequest):
        decode_body(empty * 10**6, "gzip", limit_of(0))


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]), st.integers(), st.binary())
def test_damaged_bodies_raise_no_other_error(
    data: bytes, coding: str, at: int, patch: bytes
) -> None:
    encode: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    coded = encode[coding](data)
    at %= len(coded)
    result: Any = None
    try:
        result = decode_body(coded[:at] + patch + coded[at + len(patch) :], coding, limit_of(2**20))
    except (InvalidRequest, BodyTooLarge):
        return
    assert isinstance(result, bytes | bytearray)
