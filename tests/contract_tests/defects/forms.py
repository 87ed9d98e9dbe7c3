"""Mistakes with requests that are written in another way than usual, and with large ones."""

import json
import re
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Final

import httpx
import numpy as np
from PIL import Image

from mock_server.backend import nearest
from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Planting,
    changed_answer,
    changed_body,
    changed_file,
    changed_headers,
    changed_size,
    patched,
    refusing,
    refusing_body,
    together,
)
from tests.contract_tests.defects.probes import (
    Probe,
    asking,
    checking,
    fields_of,
    file,
    saved,
    seen,
    sending,
    text,
    upscaled,
    with_token,
)
from tests.contract_tests.defects.tokens import TOKEN
from upscaler.api import sizes
from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size, output_size
from upscaler.errors import FieldError, InvalidRequest
from upscaler.models import UpscalingModel
from upscaler.service import intake
from upscaler.service.backend import UpscaleJob

BODY: Final = json.dumps(fields_of({"scale": 1.5}))
MIB: Final = 2**20
ORIENTED: Final = Image.Exif()
ORIENTED[0x0112] = 6


def not_taken(when: Callable[[Asked], bool], status: int) -> Planting:
    """Refuse an upscaling for how it is sent."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        if asked.path != "/upscaling" or answer.status != 200 or not when(asked):
            return answer
        return answer.saying({"detail": "this is not taken here"}, status)

    return changed_answer(changed)


def in_full_detail(change: Callable[[Asked, Answer], Answer]) -> Planting:
    """Give out other answers, whose pictures have every pixel that was sent, as real ones have."""
    return together(patched(nearest, "SAMPLED_PX", 2**14), changed_answer(change))


def with_header(name: str, value: str = "", status: int = 400) -> Planting:
    """Refuse an upscaling that has a header with `value` in it."""
    return not_taken(lambda asked: name in asked.headers and value in asked.headers[name], status)


def first_lines(asked: Asked) -> dict[str, str]:
    """Of several headers of one name the first."""
    return dict(reversed(asked.lines))


def first_names(body: bytes) -> bytes:
    """Of several values of one name the first."""
    repeated = False

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        found = dict(reversed(pairs))
        repeated |= len(found) < len(pairs)
        return found

    try:
        fields = json.loads(body, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return body
    return json.dumps(fields).encode() if repeated else body


def exact_limit(request: UpscalingRequest, size: Size) -> Size:
    """The output's size, which is looked at before it is rounded."""
    sizes.check_input_size(size, request.image_field)
    if request.scale is not None and max(size) * Fraction(str(request.scale)) > 8192:
        msg = "the output may be at most 8192 pixels on each side"
        raise InvalidRequest(FieldError(("body", "scale"), msg, "output_too_large"))
    return output_size(request, size)


def capped(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """No more than the model makes by itself."""
    if max(right) > 8192:
        return right
    native = 2 if request.model is UpscalingModel.X2_PLUS else 4
    return min(right[0], native * size[0]), min(right[1], native * size[1])


def oriented(made: bytes, task: UpscaleJob) -> bytes:
    """The file with the orientation of the one that was sent, although its pixels are upright."""
    if b"Exif" not in task.source and b"eXIf" not in task.source:
        return made
    exif = ORIENTED.tobytes()
    if made.startswith(b"\x89PNG"):
        chunk = exif.removeprefix(b"Exif\0\0")
        return made[:33] + _chunk(b"eXIf", chunk) + made[33:]
    return made[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + made[2:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def chunked(client: httpx.Client) -> object:
    """Send a body of which nobody knows how long it is."""
    headers = {"Content-Type": "application/json"}
    return seen(client, client.post("/upscaling", content=iter([BODY.encode()]), headers=headers))


def accept_twice(client: httpx.Client) -> object:
    """Send two lines of Accept."""
    headers = [("Content-Type", "application/json"), ("Accept", "text/html")]
    sent = [*headers, ("Accept", "image/png")]
    return seen(client, client.post("/upscaling", content=BODY, headers=sent))


@cache
def noise(width: int, height: int) -> str:
    """A picture of which nothing can be compressed."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return text(saved(Image.fromarray(pixels), "PNG", compress_level=1))


def of_noise(client: httpx.Client) -> httpx.Response:
    """The answer to a picture that is large in each encoding and size."""
    return upscaled(client, init_image=noise(1800, 1000))


def later(make: Callable[[], Probe]) -> Probe:
    """A question whose large picture is made when it is asked."""

    def probing(client: httpx.Client) -> object:
        return make()(client)

    return probing


def upright(client: httpx.Client) -> object:
    """Ask for a picture that is to be turned."""
    source = text(file(kind="PNG", exif=ORIENTED.tobytes()))
    return asking(init_image=source, scale=1)(client)


LARGE: Final = (
    Defect(
        "init-image-of-4-mb",
        "Has a limit of 4 MB on a field, as some gateways and form parsers do.",
        ("REQ-13", "REQ-17", "RES-1"),
        refusing(lambda fields: len(str(fields.get("init_image"))) > 4 * MIB, "init_image"),
        later(lambda: checking(init_image=noise(1200, 1000), scale=1)),
    ),
    Defect(
        "answer-of-6-mb",
        "Refuses an answer of more than 6 MB, as platforms for functions do.",
        ("RES-1", "REQ-13"),
        in_full_detail(
            lambda _, answer: (
                answer.saying({"detail": "Response payload size exceeded"}, 413)
                if len(answer.body) > 6 * MIB
                else answer
            )
        ),
        lambda client: of_noise(client).status_code,
    ),
    Defect(
        "answer-cut-off-at-6-mb",
        "Cuts off an answer after 6 MB.",
        ("RES-1", "RES-2"),
        in_full_detail(lambda _, answer: answer.being(answer.body[: 6 * MIB], _kind(answer))),
        lambda client: of_noise(client).content[-1:],
    ),
    Defect(
        "output-limit-before-rounding",
        "Compares the output's size with the limit before it is rounded.",
        ("REQ-14", "REQ-16"),
        patched(intake, "output_size", exact_limit),
        checking(init_image=text(file(2048, 256)), scale=4.0002),
    ),
    Defect(
        "capped-at-native-scale",
        "Makes no more of a picture than the model does by itself.",
        ("REQ-16",),
        changed_size(capped),
        checking(model="real-esrgan-x2-plus", scale=3),
    ),
    Defect(
        "orientation-left",
        "Turns a picture, and leaves the tag that has viewers turn it again.",
        ("RES-2",),
        changed_file(oriented),
        upright,
    ),
)

WRITTEN: Final = (
    Defect(
        "bearer-in-lower-case-refused",
        "Compares Bearer with regard to upper and lower case.",
        ("REQ-2",),
        not_taken(lambda asked: asked.headers["authorization"][:7] != "Bearer ", 401),
        with_token(f"bearer {TOKEN}"),
    ),
    Defect(
        "two-spaces-before-the-token",
        "Splits Authorization at each space, and refuses more than one.",
        ("REQ-2",),
        not_taken(lambda asked: "  " in asked.headers["authorization"], 403),
        with_token(f"Bearer  {TOKEN}"),
    ),
    Defect(
        "chunked-refused",
        "Says 411 to a body without Content-Length.",
        ("RES-1", "REQ-1"),
        not_taken(lambda asked: "content-length" not in asked.headers, 411),
        chunked,
    ),
    Defect(
        "json-slash-refused",
        "Does not know that a slash may be escaped, as PHP writes it.",
        ("RES-1", "REQ-1"),
        refusing_body(lambda body: b"\\/" in body),
        sending(BODY.replace("/", "\\/").encode()),
    ),
    Defect(
        "json-escape-refused",
        "Does not know names whose characters are escaped.",
        ("RES-1", "REQ-1"),
        refusing_body(lambda body: re.search(rb'"\\u00(69|73)', body, re.IGNORECASE) is not None),
        sending(BODY.replace("scale", "\\u0073cale").encode()),
    ),
    Defect(
        "json-leading-space-refused",
        "Takes a body for JSON only if it begins with a brace.",
        ("RES-1", "REQ-1"),
        refusing_body(lambda body: body[:1].isspace() and body.strip()[-1:] == b"}"),
        sending(f"\r\n{BODY}".encode()),
    ),
    Defect(
        "json-in-one-order",
        "Reads the fields in one order, with the picture at the end.",
        ("REQ-13", "RES-1", "REQ-1"),
        refusing(lambda fields: next(iter(fields), "") == "init_image", "init_image"),
        asking(scale=1.5),
    ),
    Defect(
        "json-exponent-refused",
        "Does not know exponents of numbers.",
        ("RES-1", "REQ-1", "REQ-12", "REQ-7"),
        refusing_body(lambda body: re.search(rb"[0-9][eE]-[13]\b", body) is not None),
        sending(BODY.replace("1.5", "15e-1").encode()),
    ),
    Defect(
        "json-many-digits-refused",
        "Has a buffer of 64 characters for a number.",
        ("RES-1", "REQ-1", "REQ-12"),
        refusing_body(lambda body: re.search(rb"[0-9]\.[0-9]{64}", body) is not None),
        sending(BODY.replace("1.5", f"1.5{'0' * 100}").encode()),
    ),
    Defect(
        "json-first-of-a-name",
        "Takes the first value of a name that is repeated.",
        ("REQ-16", "REQ-12", "REQ-1"),
        changed_body(first_names),
        sending(BODY.replace('"scale"', '"scale": 1, "scale"').encode()),
    ),
    Defect(
        "json-with-byte-order-mark",
        "Begins its JSON with a byte order mark.",
        ("RES-1", "RES-4", "RES-7"),
        changed_answer(
            lambda _, answer: (
                answer.being(b"\xef\xbb\xbf" + answer.body, "application/json")
                if answer.document is not None
                else answer
            )
        ),
        lambda client: client.post("/upscaling", json=fields_of({})).content[:3],
    ),
    Defect(
        "json-name-twice",
        "Writes removed_for_safety twice into its JSON.",
        ("RES-1", "ASY-3"),
        changed_answer(
            lambda _, answer: (
                answer.being(answer.body[:-1] + b',"removed_for_safety":false}', "application/json")
                if answer.body.startswith(b'{"image_b64"')
                else answer
            )
        ),
        asking(),
    ),
    Defect(
        "accept-with-case",
        "Compares media types with regard to upper and lower case.",
        ("RES-8",),
        changed_headers(
            lambda asked: (
                {k: v for k, v in asked.headers.items() if k != "accept" or v == v.lower()}
            )
        ),
        asking({"Accept": "IMAGE/PNG"}),
    ),
    Defect(
        "accept-first-line-only",
        "Reads the first line of Accept only.",
        ("RES-8",),
        changed_headers(first_lines),
        accept_twice,
    ),
    Defect(
        "expect-417",
        "Says 417 to who expects 100 Continue, as curl does before a large body.",
        ("REQ-18",),
        with_header("expect", "100-continue", 417),
        asking({"Expect": "100-continue"}),
    ),
    Defect(
        "long-header-431",
        "Refuses headers of more than 2000 characters.",
        ("REQ-18",),
        not_taken(lambda asked: any(len(text) > 2000 for _, text in asked.lines), 431),
        asking({"X-Long": "x" * 4000}),
    ),
    Defect(
        "if-none-match-412",
        "Looks at If-None-Match although nothing is kept here.",
        ("REQ-18",),
        with_header("if-none-match", "*", 412),
        asking({"If-None-Match": "*"}),
    ),
    Defect(
        "origin-403",
        "Refuses requests with an Origin, as a check of another page does.",
        ("REQ-18", "REQ-2"),
        with_header("origin", "", 403),
        asking({"Origin": "https://a.example"}),
    ),
)


def _kind(answer: Answer) -> str:
    return answer.headers.get("content-type", "")
