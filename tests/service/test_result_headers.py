"""What an answer says of itself: its stages, sizes, model, weights and cost; and dry runs."""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal

import httpx
import pytest
from PIL import Image

from tests.support.service import GOOD, SETTINGS, Resizer, only_error, png, serving, upscale
from upscaler.api.request import validate_request
from upscaler.api.sizes import Size, output_size
from upscaler.formats import ImageEncoding
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel, flop
from upscaler.service.backend import FIRST_GUESS_FLOPS, STAGES, WORK_STAGES, Progress, UpscaleResult
from upscaler.service.responses import cost_usd

PRICE = Decimal("0.000222")
DRY = {"X-Upscaler-Dry-Run": "1"}


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with serving(Resizer(), replace(SETTINGS, price_per_second=PRICE)) as client:
        yield client


def stages(answer: httpx.Response) -> dict[str, float]:
    """Seconds by stage, from a header that browsers can read."""
    header = answer.headers["Server-Timing"]
    assert re.fullmatch(r"[a-z]+;dur=[0-9.]+(, [a-z]+;dur=[0-9.]+)*", header)
    parts = (part.split(";dur=") for part in header.split(", "))
    return {name: float(milliseconds) / 1000 for name, milliseconds in parts}


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
@pytest.mark.parametrize("model", ["real-esrgan-x4-plus", "real-esrgan-animevideo-v3"])
def test_an_answer_says_what_was_done(api: httpx.Client, accept: str, model: str) -> None:
    fields = {**GOOD, "model": model}
    answer = api.post("/upscaling", json=fields, headers={"Accept": accept})
    assert answer.headers["X-Upscaler-Input-Size"] == "304x256"
    assert answer.headers["X-Upscaler-Output-Size"] == "608x512"
    assert answer.headers["X-Upscaler-Model"] == model
    assert answer.headers["X-Upscaler-Weights-SHA256"] == hashlib.sha256(model.encode()).hexdigest()
    assert tuple(stages(answer)) == STAGES
    assert sum(stages(answer).values()) <= answer.elapsed.total_seconds()


def test_sizes_are_those_of_the_upright_picture(api: httpx.Client) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (300, 400)).save(file, "JPEG", exif=exif)
    image = base64.b64encode(file.getvalue()).decode()
    answer = upscale(api, init_image=image, output_image_width=800)
    assert answer.headers["X-Upscaler-Input-Size"] == "400x300"
    assert answer.headers["X-Upscaler-Output-Size"] == "800x600"


def test_the_cost_is_that_of_the_seconds_of_work(api: httpx.Client) -> None:
    answer = upscale(api, **GOOD)
    cost = answer.headers["X-Upscaler-Cost-USD"]
    assert re.fullmatch(r"0\.[0-9]{8}", cost), "a plain decimal, whatever its size"
    seconds = sum(stages(answer)[stage] for stage in WORK_STAGES)
    assert seconds > 0
    assert float(cost) == pytest.approx(seconds * float(PRICE), abs=1e-3 * float(PRICE))


def test_waiting_and_downloading_cost_nothing() -> None:
    seconds = dict(zip(STAGES, (1000.0, 1.0, 2.0, 2000.0, 4.0, 8.0), strict=True))
    made = UpscaleResult(
        [], ImageEncoding.PNG, False, UpscalingModel.X4_PLUS, "", (1, 1), (1, 1), seconds
    )
    assert cost_usd(made, Decimal("0.1")) == Decimal("1.5")


def test_without_a_price_there_is_no_cost() -> None:
    with serving(Resizer()) as client:
        assert "X-Upscaler-Cost-USD" not in upscale(client, **GOOD).headers


def test_errors_say_nothing_of_the_sort(api: httpx.Client) -> None:
    answer = upscale(api, **GOOD | {"scale": 99})
    assert answer.status_code == 422
    assert "Server-Timing" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("x-upscaler")]


class Never(Resizer):
    """A backend that may be asked anything but to enlarge."""

    def __init__(self) -> None:
        self.asked: list[tuple[UpscalingModel, Size, int]] = []

    def load(self, model: UpscalingModel) -> str:
        raise AssertionError("a dry run loads nothing")

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        self.asked.append((model, size, channels))
        return 7

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        raise AssertionError("a dry run makes nothing")


@pytest.mark.first(4)
@pytest.mark.parametrize("model", UpscalingModel)
@pytest.mark.parametrize("asked", [{"scale": 1.37}, {"output_image_height": 999}])
def test_a_dry_run_says_what_would_come_of_it_and_makes_nothing(
    model: UpscalingModel, asked: dict[str, float]
) -> None:
    backend = Never()
    with serving(backend) as client:
        fields = {"init_image": GOOD["init_image"], "model": model, **asked}
        answer = client.post("/upscaling", json=fields, headers=DRY)
        metrics = client.get("/metrics").text
    width, height = output_size(validate_request(fields), (304, 256))
    assert answer.status_code == 200
    estimate = flop(MODELS[model], 304, 256) / FIRST_GUESS_FLOPS
    assert answer.json() == {
        "output_width": width,
        "output_height": height,
        "model": model,
        "native_scale": 2 if model is UpscalingModel.X2_PLUS else 4,
        "tiles": 7,
        "estimated_seconds": pytest.approx(estimate, abs=0.001),
    }
    assert answer.headers["X-Upscaler-Input-Size"] == "304x256"
    assert backend.asked == [(model, (304, 256), 3)]
    assert "upscaler_output_megapixels_total{" not in metrics


def test_a_dry_run_of_a_transparent_picture_counts_its_alpha() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (300, 400), (1, 2, 3, 4)).save(file, "PNG")
    backend = Never()
    with serving(backend) as client:
        fields = {"init_image": base64.b64encode(file.getvalue()).decode(), "scale": 1}
        assert client.post("/upscaling", json=fields, headers=DRY).json()["tiles"] == 7
    assert backend.asked == [(UpscalingModel.X4_PLUS, (300, 400), 4)]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({**GOOD, "colour": 1}, "extra_forbidden"),
        ({**GOOD, "init_image": "aGVsbG8="}, "image_unreadable"),
        ({**GOOD, "init_image": png(255, 300)}, "image_too_small"),
        ({**GOOD, "scale": 27}, "output_too_large"),
        ({**GOOD, "face_enhance": True}, "face_enhance_unavailable"),
    ],
)
def test_a_dry_run_tells_of_everything_that_is_wrong(
    api: httpx.Client, fields: dict[str, object], kind: str
) -> None:
    assert only_error(api.post("/upscaling", json=fields, headers=DRY))["type"] == kind


def test_a_dry_run_wants_a_token_too(api: httpx.Client) -> None:
    assert httpx.post(f"{api.base_url}/upscaling", json=GOOD, headers=DRY).status_code == 401


def test_only_a_1_asks_for_a_dry_run(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={"X-Upscaler-Dry-Run": "0"})
    assert answer.json().keys() == {"image_b64", "removed_for_safety"}


def test_a_dry_run_goes_before_asynchronous_inference(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers=DRY | {"X-OctoAI-Async": "1"})
    assert "estimated_seconds" in answer.json()


def test_estimates_are_learnt_from_what_was_made(api: httpx.Client) -> None:
    answer = upscale(api, **GOOD)
    seconds = stages(answer)["infer"] + stages(answer)["encode"]
    with serving(Resizer()) as client:
        before = client.post("/upscaling", json=GOOD, headers=DRY).json()["estimated_seconds"]
        upscale(client, **GOOD)
        after = client.post("/upscaling", json=GOOD, headers=DRY).json()["estimated_seconds"]
    assert before > 1 > after
    assert after < 100 * seconds
