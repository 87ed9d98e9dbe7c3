"""Valid requests get their image, of the right size and encoding, and showing what was sent.

Each of these requests may cost money.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings, target

from contract_tests.judge.run import Run
from contract_tests.oracle.limits import MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from contract_tests.oracle.oracle import SIZE_FIELDS
from contract_tests.oracle.values import ENCODINGS, MODELS
from contract_tests.requests import strategies as draw
from contract_tests.requests.images import COMMON_KINDS, SampleImage
from contract_tests.requests.request import Request, upscaling_request

rule = pytest.mark.rule
pytestmark = pytest.mark.billable


def few(share: float) -> settings:
    """Settings with a share of the usual number of examples, since each may cost money."""
    usual = settings().max_examples
    return settings(max_examples=max(1, round(usual * share)))


def image(seed: int, width: int = 256, height: int = 256) -> SampleImage:
    return SampleImage(width, height, "png", seed, "palette")


@rule("REQ-1", "REQ-2", "REQ-16", "RES-1", "RES-2", "RES-3")
@given(request=draw.valid_requests)
@few(0.5)
def test_a_valid_request_gets_its_image(run: Run, request: Request) -> None:
    run.check_any_model(request)


@rule("REQ-13")
@pytest.mark.parametrize(
    "size",
    [
        *((MIN_INPUT_PX, MIN_INPUT_PX), (MIN_INPUT_PX, MIN_INPUT_PX + 1)),
        *((MIN_INPUT_PX + 1, MAX_INPUT_PX - 1), (MAX_INPUT_PX, MIN_INPUT_PX)),
        *((MIN_INPUT_PX, MAX_INPUT_PX), (MAX_INPUT_PX - 1, 300)),
    ],
)
def test_an_input_at_the_limits_is_accepted(run: Run, size: tuple[int, int]) -> None:
    run.check_any_model(upscaling_request({"scale": 1}, image(11, *size)))


WIDEST, TALLEST = (MAX_INPUT_PX, MIN_INPUT_PX), (MIN_INPUT_PX, MAX_INPUT_PX)
SHORT_SIDE = MIN_INPUT_PX * MAX_OUTPUT_PX // MAX_INPUT_PX
"""Of the output whose longer side is the longest, if the input is the widest or the tallest."""


@rule("REQ-14", "REQ-16")
@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"scale": round((MAX_OUTPUT_PX - 1) / MAX_INPUT_PX, 4)}, WIDEST),  # a little less
        ({"output_image_height": MAX_OUTPUT_PX - 1}, TALLEST),
        ({"output_image_height": MAX_OUTPUT_PX}, TALLEST),
        ({"output_image_width": MAX_OUTPUT_PX}, WIDEST),
        ({"scale": MAX_OUTPUT_PX / MAX_INPUT_PX}, TALLEST),
        ({"output_image_height": SHORT_SIDE}, WIDEST),
        ({"output_image_width": SHORT_SIDE}, TALLEST),
    ],
)
def test_an_output_at_the_limit_is_made(
    run: Run, given: dict[str, float], size: tuple[int, int]
) -> None:
    run.check_any_model(upscaling_request(given, image(12, *size)))


@rule("REQ-14", "REQ-16")
@pytest.mark.strict
@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"scale": 4.0002}, WIDEST),  # 0.4 of a pixel beyond it
        ({"scale": 4.0002}, TALLEST),
        ({"output_image_height": 1046}, (2005, MIN_INPUT_PX)),  # 0.3 of one
        ({"output_image_width": 1046}, (MIN_INPUT_PX, 2005)),
    ],
)
def test_an_output_that_is_rounded_to_the_limit_is_made(
    run: Run, given: dict[str, float], size: tuple[int, int]
) -> None:
    run.check_any_model(upscaling_request(given, image(29, *size)))


TIES = (
    ({"scale": 0.35}, (290, 290)),  # 101.5, and the binary number next to 0.35 is less
    ({"scale": 1.005}, (300, 300)),  # 301.5, and multiplied in binary less
    ({"scale": 0.5}, (257, 301)),  # 128.5, 150.5
    ({"scale": 0.5}, (259, 303)),
    ({"scale": 1.0025}, (600, 1000)),  # 601.5, 1002.5
    ({"scale": 0.001}, (256, 400)),  # 0.256, 0.4: no side is below 1
    ({"output_image_height": 150}, (301, 300)),  # 150.5
    ({"output_image_width": 150}, (300, 303)),  # 151.5
    ({"output_image_height": 1}, (256, 1000)),
    ({"output_image_width": 1}, (1000, 256)),
)


@rule("REQ-16")
@pytest.mark.parametrize(("given", "size"), TIES)
def test_a_computed_side_is_rounded_half_up(
    run: Run, given: dict[str, float], size: tuple[int, int]
) -> None:
    run.check_any_model(upscaling_request(given, image(13, *size)))


@rule("REQ-6", "REQ-7", "REQ-16")
@given(sent=draw.small_images, size=draw.size_fields)
@few(0.5)
def test_the_image_has_the_requested_size(run: Run, sent: SampleImage, size: draw.Fields) -> None:
    # In a square image a mistaken width for height would not show.
    target(float(abs(sent.width - sent.height)), label="far from a square")
    run.check_any_model(upscaling_request(size, sent))


@rule("REQ-8")
@pytest.mark.parametrize("model", [pytest.param(m, marks=pytest.mark.model(m)) for m in MODELS])
def test_each_model_upscales(run: Run, model: str) -> None:
    run.check(upscaling_request({"model": model, "scale": 2}, image(14)))


@rule("REQ-16", "REQ-8")
@pytest.mark.parametrize("model", [pytest.param(m, marks=pytest.mark.model(m)) for m in MODELS])
def test_a_scale_may_exceed_the_one_of_the_model(run: Run, model: str) -> None:
    run.check(upscaling_request({"model": model, "scale": 4.5}, image(28)))


@rule("REQ-8")
@pytest.mark.model(MODELS[0])
def test_the_default_model_is_x4_plus(run: Run) -> None:
    run.check(upscaling_request({"scale": 2}, image(15)))


@rule("REQ-9")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sent", COMMON_KINDS[::2], ids="-".join)
def test_the_image_has_the_requested_encoding(
    run: Run, encoding: str, sent: tuple[str, str]
) -> None:
    fields = {"scale": 1, "output_image_encoding": encoding}
    run.check_any_model(upscaling_request(fields, SampleImage(256, 300, sent[0], 16, sent[1])))


@rule("REQ-10")
@pytest.mark.parametrize("value", [True, False])
def test_face_enhance_is_accepted_or_refused_as_missing(run: Run, value: bool) -> None:
    run.check_any_model(upscaling_request({"scale": 1, "face_enhance": value}, image(17)))


TOLERATED = (
    *({"scale": "2"}, {"scale": " 0.5\n"}, {"scale": True}, {"scale": "1e0"}),
    *({"output_image_height": "300"}, {"output_image_width": 300.0}),
    *({"output_image_width": "300.0"}, {"scale": 1, "face_enhance": "false"}),
    *({"scale": 1, "face_enhance": 0},),
)


@rule("REQ-12")
@pytest.mark.strict
@pytest.mark.parametrize("given", TOLERATED, ids=repr)
def test_values_are_parsed_as_pydantic_does(run: Run, given: draw.Fields) -> None:
    run.check_any_model(upscaling_request(given, image(18)))


@rule("REQ-6")
@pytest.mark.parametrize("scale", [1, 0.75])
def test_a_scale_may_keep_or_reduce_the_size(run: Run, scale: float) -> None:
    run.check_any_model(upscaling_request({"scale": scale}, image(19, 300, 256)))


@rule("REQ-4", "REQ-5")
@pytest.mark.parametrize("name", ["init_image_url", *SIZE_FIELDS])
def test_null_means_absent(run: Run, name: str) -> None:
    size = {"output_image_height": 300} if name == "scale" else {"scale": 1}
    run.check_any_model(upscaling_request({name: None, **size}, image(20)))


@rule("REQ-17")
@pytest.mark.strict
@given(sent=draw.tolerated_base64)
@few(0.25)
def test_a_prefix_and_line_breaks_are_accepted(run: Run, sent: tuple[SampleImage, str]) -> None:
    run.check_any_model(upscaling_request({"scale": 1, "init_image": sent[1]}, sent[0]))


KINDS = tuple(
    SampleImage(256, 300, name, 27, mode, number % 8 + 1)
    for number, (name, mode) in enumerate(draw.KINDS)
)


@rule("REQ-13", "RES-2")
@pytest.mark.strict
@pytest.mark.parametrize("sent", KINDS, ids=str)
def test_every_kind_of_image_keeps_its_content(run: Run, sent: SampleImage) -> None:
    run.check_any_model(upscaling_request({"scale": 1}, sent))


@rule("REQ-13", "RES-2")
@pytest.mark.strict
@given(sent=draw.unusual_images, encoding=draw.VALID["output_image_encoding"])
@few(0.5)
def test_any_image_keeps_its_content(run: Run, sent: SampleImage, encoding: str) -> None:
    run.check_any_model(upscaling_request({"scale": 1, "output_image_encoding": encoding}, sent))


@rule("RES-2")
@pytest.mark.strict
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_transparency_is_kept_in_png_and_put_on_white_in_jpeg(run: Run, encoding: str) -> None:
    sent = SampleImage(256, 300, "png", 21, "alpha")
    run.check_any_model(upscaling_request({"scale": 2, "output_image_encoding": encoding}, sent))


NOISE = (
    ({"scale": 1}, (2048, 1024)),  # 6.6 MB in base64 or more, in the request and in the response
    ({"scale": 2}, (1024, 1024)),
)


@rule("REQ-13", "REQ-17", "RES-1")
@pytest.mark.parametrize(("given", "size"), NOISE)
def test_a_large_file_is_accepted_and_returned(
    run: Run, given: dict[str, float], size: tuple[int, int]
) -> None:
    """Gateways and platforms have limits of their own, which pixels alone would not reach."""
    sent = SampleImage(*size, "png", 30, "noise")
    run.check_any_model(upscaling_request({**given, "output_image_encoding": "png"}, sent))


@rule("REQ-18")
def test_unknown_headers_are_ignored(run: Run) -> None:
    request = upscaling_request({"scale": 1}, image(22))
    run.check_any_model(request.with_headers(("X-OctoAI-Queue-Dispatch", "x"), ("X-Unknown", "1")))


@rule("REQ-3")
@pytest.mark.parametrize(
    "declared",
    [
        *draw.VALID_CONTENT_TYPES[:-1],
        pytest.param(draw.VALID_CONTENT_TYPES[-1], marks=pytest.mark.strict),
    ],
)
def test_parameters_of_the_content_type_are_ignored(run: Run, declared: str) -> None:
    run.check_any_model(
        upscaling_request({"scale": 1}, image(23)).with_headers(("Content-Type", declared))
    )


@rule("RES-8")
@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/*"])
def test_json_is_returned_if_it_is_accepted(run: Run, accept: str) -> None:
    run.check_any_model(upscaling_request({"scale": 1}, image(24)).with_headers(("Accept", accept)))


@rule("RES-8")
@pytest.mark.strict
@pytest.mark.parametrize("accept", ["", ",", "nonsense"])
def test_json_is_returned_without_a_valid_accept_header(run: Run, accept: str) -> None:
    run.check_any_model(upscaling_request({"scale": 1}, image(24)).with_headers(("Accept", accept)))


FILES = (
    *("image/png", "image/jpeg", "image/*", "image/jpeg;q=0.5, image/png;q=0.4"),
    *("text/html, image/jpeg", "application/json;q=0.1, image/png"),
    "image/webp, image/png, */*;q=0.1",
)


@rule("RES-8")
@pytest.mark.strict
@pytest.mark.parametrize("accept", FILES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_image_file_is_returned_if_it_is_accepted(run: Run, accept: str, encoding: str) -> None:
    request = upscaling_request({"scale": 1, "output_image_encoding": encoding}, image(25))
    run.check_any_model(request.with_headers(("Accept", accept)))


@rule("REQ-19", "RES-2")
def test_a_repeated_request_gets_an_image_of_the_same_size(run: Run) -> None:
    for _ in range(2):
        run.check_any_model(upscaling_request({"scale": 1.5}, image(26)))


@rule("RES-2")
@pytest.mark.together
def test_images_of_concurrent_requests_are_not_mixed_up(run: Run) -> None:
    requests: Iterable[Request] = [
        upscaling_request({"scale": 1}, image(seed, 256 + seed)) for seed in range(30, 42)
    ]
    with ThreadPoolExecutor(run.concurrency) as pool:
        list(pool.map(run.check_any_model, requests))


@rule("REQ-4")
@pytest.mark.image_url
def test_an_image_is_downloaded_from_its_url(run: Run) -> None:
    assert run.image_url, "this test is left out without --image"
    response = run.check_any_model(
        upscaling_request({"scale": 1, "init_image_url": run.image_url[0]})
    )
    run.require(
        response is None or response.status == 200, "REQ-4", "the image at the URL was not accepted"
    )
