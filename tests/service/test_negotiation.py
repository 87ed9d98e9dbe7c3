"""RES-8: JSON, or the file itself, by the Accept header."""

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.service import GOOD, Resizer, decoded, serving, upscale
from upscaler.errors import NotAcceptable
from upscaler.formats import ImageEncoding
from upscaler.service.negotiation import negotiate

PNG, JPEG = ImageEncoding.PNG, ImageEncoding.JPEG


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with serving(Resizer()) as client:
        yield client


@pytest.mark.parametrize("asked", ImageEncoding)
@pytest.mark.parametrize(
    "accept",
    [
        "",
        " ",
        " , ",
        "*/*",
        "application/json",
        "Application/JSON",
        "application/*",
        "application/json; charset=utf-8",
        "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8",  # a browser
        "image/png;q=0.5, application/json",
        "image/png;q=0, */*",
        "image/png, image/jpeg, application/json",
        "image/*;q=0, application/json;q=0.001",
        "what is this",
    ],
)
def test_json_is_what_most_clients_get(accept: str, asked: ImageEncoding) -> None:
    assert negotiate(accept, asked) is None


@pytest.mark.parametrize("asked", ImageEncoding)
@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("image/png", PNG),
        ("image/jpeg", JPEG),
        ("IMAGE/PNG", PNG),
        ("image/jpeg;q=0.9, application/json;q=0.8", JPEG),
        ("image/jpeg;q=0.2, image/png;q=0.3", PNG),
        ("image/webp, image/jpeg;q=0.1, text/html", JPEG),
        ("image/png, */*", PNG),
        ("image/*, image/png;q=0, application/json;q=0.5", JPEG),
        ("*/*, image/jpeg;q=0.2, application/json;q=0", PNG),
    ],
)
def test_a_file_is_given_where_it_is_liked_best(
    accept: str, encoding: ImageEncoding, asked: ImageEncoding
) -> None:
    assert negotiate(accept, asked) is encoding


@pytest.mark.parametrize("asked", ImageEncoding)
@pytest.mark.parametrize(
    "accept", ["image/*", "*/*, application/json;q=0", "image/jpeg, image/png"]
)
def test_of_two_kinds_that_are_liked_equally_the_body_chooses(
    accept: str, asked: ImageEncoding
) -> None:
    assert negotiate(accept, asked) is asked


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "image/webp",
        "text/event-stream",
        "*/*;q=0",
        "application/json;q=0",
        "image/*;q=0, application/json;q=0.000",
    ],
)
def test_only_if_nothing_is_liked_there_is_nothing_to_give(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        negotiate(accept, PNG)


RANGES = {
    "application/json": {"application/json"},
    "image/png": {"image/png"},
    "image/jpeg": {"image/jpeg"},
    "image/*": {"image/png", "image/jpeg"},
    "*/*": {"application/json", "image/png", "image/jpeg"},
    "text/*": set(),
}
SPECIFIC = ["text/*", "*/*", "image/*", "application/json", "image/png", "image/jpeg"]


@given(st.dictionaries(st.sampled_from(SPECIFIC), st.integers(0, 10), min_size=1), st.randoms())
def test_what_is_given_is_liked_as_much_as_anything(likes: dict[str, int], random: Random) -> None:
    """By RFC 9110, 12.5.1: the most specific range that fits a type says how much it is liked."""

    def liking(kind: str) -> int:
        fitting = [name for name in SPECIFIC if name in likes and kind in RANGES[name]]
        return likes[fitting[-1]] if fitting else 0

    names = list(likes)
    random.shuffle(names)
    header = ", ".join(f"{name};q={likes[name] / 10:g}" for name in names)
    best = max(map(liking, RANGES["*/*"]))
    if best == 0:
        with pytest.raises(NotAcceptable):
            negotiate(header, PNG)
        return
    given_kind = negotiate(header, PNG)
    name = f"image/{given_kind}" if given_kind else "application/json"
    assert liking(name) == best


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_a_fault_of_ours(header: str) -> None:
    with suppress(NotAcceptable):
        assert negotiate(header, PNG) in (None, *ImageEncoding)


@pytest.mark.parametrize(("encoding", "kind"), [("png", "PNG"), ("jpeg", "JPEG")])
@pytest.mark.parametrize("asked", ["png", "jpeg"])
def test_the_file_itself_is_answered(
    api: httpx.Client, encoding: str, kind: str, asked: str
) -> None:
    fields = {**GOOD, "output_image_encoding": asked}
    answer = api.post("/upscaling", json=fields, headers={"Accept": f"image/{encoding}"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == f"image/{encoding}"
    assert answer.headers["Vary"] == "Accept"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size) == (kind, (608, 512))


@pytest.mark.parametrize("accept", [None, "", "*/*", "application/json"])
def test_json_is_answered_with_what_varies_it(api: httpx.Client, accept: str | None) -> None:
    """An empty header is what OctoAI's client for JavaScript sends."""
    headers = {} if accept is None else {"Accept": accept}
    with httpx.Client(headers={"Authorization": api.headers["Authorization"]}) as client:
        del client.headers["Accept"]
        answer = client.post(f"{api.base_url}/upscaling", json=GOOD, headers=headers)
    assert decoded(answer).size == (608, 512)
    assert answer.headers["Vary"] == "Accept"


def test_both_answers_hold_the_same_file(api: httpx.Client) -> None:
    file = api.post("/upscaling", json=GOOD, headers={"Accept": "image/png"}).content
    assert base64.b64decode(upscale(api, **GOOD).json()["image_b64"]) == file


def test_several_headers_are_one_list(api: httpx.Client) -> None:
    headers = [("Accept", "text/html"), ("Accept", "image/png;q=0.3"), *api.headers.items()]
    with httpx.Client() as client:
        headers = [(name, value) for name, value in headers if value != "*/*"]
        answer = client.post(f"{api.base_url}/upscaling", json=GOOD, headers=headers)
    assert answer.headers["Content-Type"] == "image/png"


def test_what_cannot_be_given_is_told_as_json(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={"Accept": "text/html"})
    assert answer.status_code == 406
    assert answer.headers["Vary"] == "Accept"
    assert "image/png" in answer.json()["detail"]


def test_errors_are_json_whatever_is_accepted(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json={}, headers={"Accept": "image/png"})
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/json"
