"""The mock: what it makes of pictures, and the command that it is started with."""

import base64
import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mock_server.backend.nearest import NearestUpscaler
from mock_server.serving import cli
from tests.support.hostile_requests import SHARED, completed, stay_here
from tests.support.mock_servers import MOCK, mock_child, mocking
from tests.support.request_literals import half_up
from tests.support.service import GOOD, decoded, upscale
from upscaler.api.request import DRY_RUN_HEADER, Size
from upscaler.formats import ImageEncoding
from upscaler.imaging.decode import Pixels, flatten
from upscaler.imaging.encode import SMALL, encode_strips
from upscaler.models import MODELS, UpscalingModel

MAX_SIDE: Final = 1200
"""Of what is made here: enough for many strips of rows, and no longer than a test may take."""
REPEATED: Final = ("X-Upscaler-Model", "X-Upscaler-Weights-SHA256", "X-Upscaler-Output-Size")


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with mocking() as client:
        yield client


def file(pixels: Pixels) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def nearest(pixels: Pixels, size: Size) -> Pixels:
    """What must come of `pixels`, by the definition: the pixel that a centre lies in.

    Of as many pixels as 512x512 and more, the middle one of the square that it lies in.
    """
    height, width, _ = pixels.shape
    square = next(side for side in range(1, 99) if width * height < (256 * (side + 1)) ** 2)

    def lies_in(index: int, after: int, before: int) -> int:
        pixel = int((index + Fraction(1, 2)) * before / after)
        return min(pixel - pixel % square + square // 2, before - 1)

    columns = [lies_in(x, size[0], width) for x in range(size[0])]
    rows = [lies_in(y, size[1], height) for y in range(size[1])]
    return pixels[rows][:, columns]


def made(pixels: Pixels, size: Size) -> Pixels:
    told: list[tuple[int, int]] = []
    model = UpscalingModel.X4_PLUS
    strips = NearestUpscaler().upscale(pixels, model, size, lambda *rows: told.append(rows))
    result = np.concatenate(list(strips))
    assert told[-1] == (size[1], size[1])
    return result


sides = st.integers(1, 200)
sizes = st.tuples(sides, sides)


@given(sizes, sizes, st.sampled_from([3, 4]))
@example((1, 1), (200, 200), 3)
@example((200, 200), (1, 1), 4)
def test_each_pixel_is_the_inputs_that_its_centre_lies_in(
    before: Size, after: Size, channels: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (before[1], before[0], channels), np.uint8)
    np.testing.assert_array_equal(made(pixels, after), nearest(pixels, after))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Size, dict[str, Any], Size]:
    """The size of an input, how large it shall become in a request's words, and in pixels."""
    before = width, height = draw(st.integers(256, 400)), draw(st.integers(256, 400))
    field = draw(st.sampled_from(["scale", "output_image_width", "output_image_height"]))
    if field == "scale":
        scale = draw(st.decimals("0.01", "3", places=2))
        return before, {field: float(scale)}, (half_up(width * scale), half_up(height * scale))
    side = draw(st.integers(1, MAX_SIDE))
    if field == "output_image_width":
        size = side, half_up(Decimal(height) * side / width)
    else:
        size = half_up(Decimal(width) * side / height), side
    assume(max(size) <= 2 * MAX_SIDE)
    return before, {field: side}, size


@settings(SHARED, max_examples=40)
@given(requests(), st.sampled_from(["png", "jpeg"]), st.booleans())
def test_the_answer_has_exactly_the_size_and_encoding(
    api: httpx.Client,
    photo: Pixels,
    request_: tuple[Size, dict[str, Any], Size],
    encoding: str,
    as_file: bool,
) -> None:
    before, fields, size = request_
    pixels = np.tile(photo, (2, 2, 1))[: before[1], : before[0]]
    answer = api.post(
        "/upscaling",
        json={"init_image": file(pixels), "output_image_encoding": encoding, **fields},
        headers={"Accept": "image/*" if as_file else "application/json"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content)) if as_file else decoded(answer)
    assert image.format == encoding.upper()
    assert image.size == size
    assert answer.headers["X-Upscaler-Output-Size"] == f"{size[0]}x{size[1]}"
    if encoding == "png":
        np.testing.assert_array_equal(np.array(image), nearest(pixels, size))


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ((511, 512), (511, 512)),
        ((512, 512), (256, 256)),
        ((1024, 768), (342, 256)),
        ((2048, 256), (1024, 128)),
        ((256, 1100), (128, 550)),
        ((2048, 2048), (256, 256)),
    ],
)
@pytest.mark.parametrize("scale", [Fraction(1, 2), 1, Fraction(17, 10), 2])
def test_of_a_large_picture_as_many_pixels_are_shown_as_a_small_one_has(
    before: Size, shown: Size, scale: Fraction
) -> None:
    number = np.arange(before[0] * before[1]).reshape(before[1], before[0])
    pixels = np.stack([number % 256, number // 256 % 256, number >> 16], 2).astype(np.uint8)
    size = (round(before[0] * scale), round(before[1] * scale))
    result = made(pixels, size)
    np.testing.assert_array_equal(result, nearest(pixels, size))
    there = (len(np.unique(line, axis=0)) for line in (result[0], result[:, 0]))
    assert tuple(there) == tuple(map(min, shown, size))


def likeness(one: Pixels, other: Image.Image) -> float:
    """The correlation of two pictures at the size of the first: 1 for the same."""
    there = other.convert("RGB").resize(one.shape[1::-1], Image.Resampling.BOX)
    return float(np.corrcoef(one.ravel(), np.array(there).ravel())[0, 1])


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("scale", [0.25, 0.7, 1, 1.5, 2, 4])
def test_one_can_see_what_was_sent(
    api: httpx.Client, photo: Pixels, scale: float, encoding: str
) -> None:
    image = decoded(upscale(api, **GOOD | {"scale": scale, "output_image_encoding": encoding}))
    assert likeness(photo, image) > 0.9
    assert likeness(photo[:, ::-1], image) < 0.5, "and not just any picture is like it"


@pytest.fixture(scope="module")
def cut_out() -> Pixels:
    """Green of every opacity from none to all, and red where nothing of it may be seen."""
    pixels = np.zeros((256, 300, 4), np.uint8)
    pixels[:, :, 3] = np.arange(256)[:, None]
    pixels[:, :, 1] = 200
    pixels[0, :, :2] = 255, 0
    return pixels


@pytest.mark.parametrize("scale", [0.5, 1, 2.3])
def test_alpha_is_kept_in_png_and_on_white_in_jpeg(
    api: httpx.Client, cut_out: Pixels, scale: float
) -> None:
    fields = {"init_image": file(cut_out), "scale": scale}
    kept = decoded(upscale(api, **fields))
    assert kept.mode == "RGBA"
    np.testing.assert_array_equal(np.array(kept), nearest(cut_out, kept.size))
    seen = np.array(kept)
    assert (seen[seen[:, :, 3] > 0][:, :3] == (0, 200, 0)).all(), "no red comes into the green"
    flat = decoded(upscale(api, **fields, output_image_encoding="jpeg"))
    assert flat.mode == "RGB"
    differences = np.array(flatten(kept)).astype(int) - np.array(flat)
    assert abs(differences).max() <= 6, "but for what a JPEG loses"


def test_its_jpegs_are_small_ones(api: httpx.Client, photo: Pixels) -> None:
    fields = GOOD | {"scale": 2, "output_image_encoding": "jpeg"}
    data = base64.b64decode(upscale(api, **fields).json()["image_b64"])
    enlarged = nearest(photo, (608, 512))
    assert data == b"".join(encode_strips([enlarged], 512, ImageEncoding.JPEG, SMALL))


def test_without_alpha_there_is_none(api: httpx.Client) -> None:
    assert decoded(upscale(api, **GOOD)).mode == "RGB"


def test_models_are_told_apart_and_none_is_taken_for_a_real_one(api: httpx.Client) -> None:
    digests = {}
    for model in UpscalingModel:
        answer = upscale(api, **GOOD | {"model": model})
        assert decoded(answer).size == (608, 512)
        assert answer.headers["X-Upscaler-Model"] == model
        digests[model] = answer.headers["X-Upscaler-Weights-SHA256"]
        text = f"upscaler-mock has no weights of {model}"
        assert digests[model] == hashlib.sha256(text.encode()).hexdigest()
    assert len(set(digests.values())) == len(UpscalingModel) == 6
    files = [file for model in MODELS.values() for file in (model.official, model.ncnn) if file]
    assert {file.sha256 for file in files}.isdisjoint(digests.values())


def test_an_asynchronous_inference_comes_to_the_same(api: httpx.Client) -> None:
    _, response_path = completed(api, {})
    told = api.get(response_path)
    again = api.get(response_path)
    assert decoded(told).size == (30, 26)
    assert told.content == again.content


def test_a_dry_run_tells_of_one_piece_and_makes_nothing(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={DRY_RUN_HEADER: "1"})
    told = answer.json()
    assert (told["output_width"], told["output_height"], told["tiles"]) == (608, 512, 1)


def test_faces_are_taken_for_enhanced(api: httpx.Client) -> None:
    """REQ-10: the mock of a service that has a face model."""
    assert decoded(upscale(api, **GOOD, face_enhance=True)).size == (608, 512)


# The command


def posted(url: str, token: str, **fields: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{url}/upscaling", json=GOOD | fields, headers=headers, timeout=60)


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which whoever imports torch, or what reads weights, ends at once."""
    folder = tmp_path / "no-torch"
    folder.mkdir()
    for name in ("torch", "safetensors"):
        (folder / f"{name}.py").write_text("import os\nos._exit(3)\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_without_torch_until_it_is_told_to_stop(
    tmp_path: Path, no_torch: dict[str, str], api: httpx.Client, stop: signal.Signals
) -> None:
    """Its answers are those of any other mock, bit by bit, and the port's file is not left."""
    port_file = tmp_path / "new" / "port"
    options = ("--port-file", str(port_file))
    with mock_child(tmp_path, *options, stop=stop, environment=no_torch) as child:
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", child.url)
        assert port_file.read_text() == f"{httpx.URL(child.url).port}\n"
        assert [path.name for path in port_file.parent.iterdir()] == ["port"]
        for model in UpscalingModel:
            answer, other = (
                posted(child.url, "mock-token", model=model),
                upscale(api, **GOOD | {"model": model}),
            )
            assert answer.status_code == 200
            assert answer.content == other.content
            for name in REPEATED:
                assert answer.headers[name] == other.headers[name]
    assert not port_file.exists()


def test_it_is_there_without_what_is_not_needed_yet() -> None:
    """And what rests until all is loaded, is at work again: the collector, and models of ours."""
    code = """
import gc, sys
from unittest import mock
import uvicorn
from mock_server.serving import fast_start

def run(*_, **__):
    import pydantic
    from fastapi.openapi import models
    assert not models.Info.__pydantic_complete__
    assert pydantic.create_model("Later", text=str).__pydantic_complete__
    assert not {"httpx", "tomllib"} & set(sys.modules)
    assert gc.isenabled()
    sys.exit(9)

with mock.patch.object(uvicorn.Server, "run", run):
    sys.exit(fast_start.main())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


def test_the_command_says_the_same_of_itself_as_the_app(api: httpx.Client, tmp_path: Path) -> None:
    """By models that are built only then."""
    with mock_child(tmp_path) as child:
        told = httpx.get(f"{child.url}/openapi.json").raise_for_status().json()
    assert told == api.get("/openapi.json").json()


def test_the_tokens_are_those_of_the_options_or_else_of_the_environment(tmp_path: Path) -> None:
    environment = {"UPSCALER_TOKEN": "three, four"}
    for options, right, wrong in (
        (("--token", "one", "--token", "two,2"), ("one", "two,2"), ("two", "three", "mock-token")),
        ((), ("three", "four"), ("one", "mock-token")),
    ):
        with mock_child(tmp_path, *options, environment=environment) as child:
            assert [posted(child.url, token).status_code for token in right] == [200, 200]
            assert {posted(child.url, token).status_code for token in wrong} == {401}


def test_an_address_in_use_is_told_in_a_line_and_is_status_1(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [MOCK, "--port", str(port), "--port-file", str(port_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"upscaler-mock: 127.0.0.1:{port}: Address already in use\n"
    assert not port_file.exists()


@pytest.fixture
def serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command fail where else it would serve, in this very process and without end."""

    def fail() -> NoReturn:
        raise AssertionError("it should have refused")

    monkeypatch.setattr(cli, "keep_freed_memory", fail)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", "80a"), "argument --port: a port is a number from 0 to 65535"),
        (("--port", "65536"), "argument --port: a port is a number from 0 to 65535"),
        (("--port-file", ""), "argument --port-file: expected the name of a file"),
        (("--token", ""), "argument --token: a token has at least one character, and no spaces"),
        (("--token", "a b"), "argument --token: a token has at least one character, and no spaces"),
        (("8000",), "unrecognized arguments: 8000"),
    ],
)
def test_a_wrong_command_is_told_in_a_line_and_is_status_2(
    options: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    serves_nothing: None,
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(options)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"upscaler-mock: {words}\n"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70, "203.0.113.7", ""])
def test_a_host_that_is_none_of_this_machines_is_told_in_a_line_and_is_status_1(
    host: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    serves_nothing: None,
) -> None:
    if host == "nowhere.invalid":
        stay_here(monkeypatch)
    assert cli.main(["--host", host]) == 1
    assert re.fullmatch(rf"upscaler-mock: {host}:0: [^:]+\n", capsys.readouterr().err)


def test_a_port_file_that_cannot_be_written_is_told_in_a_line_and_is_status_1(
    tmp_path: Path,
) -> None:
    command = [MOCK, "--port-file", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    told = f"upscaler-mock: {tmp_path}: Is a directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_a_setting_that_cannot_be_met_is_told_in_a_line_and_is_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, serves_nothing: None
) -> None:
    monkeypatch.setenv("UPSCALER_QUEUE", "many")
    assert cli.main([]) == 1
    said = capsys.readouterr().err
    assert said == "upscaler-mock: UPSCALER_QUEUE: must be a whole number from 0 to 9999\n"


def test_an_address_of_ipv6_is_written_as_urls_have_it() -> None:
    try:
        listener = cli._listen("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert cli._url(listener) == f"http://[::1]:{listener.getsockname()[1]}"
