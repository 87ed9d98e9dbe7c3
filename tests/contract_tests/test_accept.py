"""The negotiation that the oracle expects, and that the service does it in the same way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract_tests.oracle import accept
from tests.support.properties import examples
from upscaler.errors import NotAcceptable
from upscaler.formats import ImageEncoding
from upscaler.service.negotiation import MEDIA_TYPES, negotiate

NAMES = ("application/json", "image/png", "image/jpeg", "image/*", "application/*", "*/*")
OTHERS = ("text/html", "image/webp", "text/*", "application/xml", "nonsense")
ranges = st.builds(
    lambda name, weight, space: name + (f";{space}q={weight}" if weight else ""),
    st.sampled_from(NAMES + OTHERS),
    st.sampled_from(("", "0", "0.1", "0.5", "1", "1.0", "0.001")),
    st.sampled_from(("", " ")),
)
headers = st.lists(ranges, max_size=5, unique_by=lambda text: text.partition(";")[0])


@settings(max_examples=examples(500))
@given(headers, st.sampled_from(ImageEncoding))
def test_oracle_and_service_negotiate_alike(drawn: list[str], asked: ImageEncoding) -> None:
    header = ", ".join(drawn)
    try:
        kind = negotiate(header, asked)
        wanted = accept.JSON if kind is None else MEDIA_TYPES[kind]
    except NotAcceptable:
        wanted = None
    assert accept.negotiate(header, asked) == wanted


@pytest.mark.parametrize(
    ("header", "asked", "chosen"),
    [
        (None, "png", "application/json"),
        ("", "png", "application/json"),
        ("*/*", "png", "application/json"),
        ("application/json", "jpeg", "application/json"),
        ("image/png", "jpeg", "image/png"),
        ("image/*", "jpeg", "image/jpeg"),
        ("image/*", "png", "image/png"),
        ("IMAGE/PNG;Q=0.5", "png", "image/png"),
        ("image/jpeg;q=0.5, image/png;q=0.4", "png", "image/jpeg"),
        ("application/json;q=0.1, image/png", "jpeg", "image/png"),
        ("*/*, image/png;q=0", "png", "application/json"),
        ("image/png;q=0, image/*", "png", "image/jpeg"),
        ("text/html", "png", None),
        ("nonsense", "png", "application/json"),
        ("nonsense, image/png", "png", "application/json"),
        ("*/*;q=0", "png", None),
    ],
)
def test_the_negotiated_media_type(header: str | None, asked: str, chosen: str | None) -> None:
    assert accept.negotiate(header, asked) == chosen
