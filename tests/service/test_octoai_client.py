"""OctoAI's own client, as its users have it, drives the service with a trained network.

`infer` and `health_check` of octoai 1.11.0 go past the part of the client that knows the token:
they send no Authorization header, to any endpoint. Their users had to give the client an
`httpx.Client` that carries it, which is what its own constructor offers, and so do these tests.
"""

import base64
import io
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.paths import PHOTO, ROOT
from tests.support.service import Resizer, Slow, running
from upscaler.engine.pool import EnginePool
from upscaler.service import responses
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

pytestmark = pytest.mark.torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the client is of 2024
    from octoai.client import InferenceFuture, OctoAI

TOKEN = "token-of-the-test"
PHOTO_B64 = base64.b64encode(PHOTO.read_bytes()).decode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = Settings(tokens=(TOKEN,))
    with running(create_app(LocalBackend(EnginePool(settings)), settings)) as url:
        yield url


@pytest.fixture
def client() -> Iterator[OctoAI]:
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as carrier:
        yield OctoAI(api_key=TOKEN, httpx_client=carrier)


@pytest.mark.parametrize(
    ("asked", "size"),
    [({"scale": 2.5}, (760, 640)), ({"output_image_width": 1000}, (1000, 842))],
    ids=["scale", "width"],
)
def test_infer_gets_a_png_of_the_exact_size(
    client: OctoAI, url: str, asked: dict[str, object], size: tuple[int, int]
) -> None:
    inputs = {"init_image": PHOTO_B64, "model": "real-esrgan-animevideo-v3", **asked}
    answer = client.infer(endpoint_url=f"{url}/upscaling", inputs=inputs)
    assert answer["removed_for_safety"] is False
    image = Image.open(io.BytesIO(base64.b64decode(answer["image_b64"])))
    assert (image.format, image.size) == ("PNG", size)


@pytest.mark.slow
def test_infer_gets_a_picture_that_takes_longer_than_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default it waits 60 seconds for each part of an answer; here four."""
    monkeypatch.setattr(responses, "BEAT_S", 0.2)
    hurried = Settings(tokens=(TOKEN,), first_byte_s=0.2)
    inputs = {"init_image": PHOTO_B64, "scale": 2}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        running(create_app(LocalBackend(Slow(8)), hurried)) as url,
        httpx.Client(headers=headers, timeout=4) as carrier,
    ):
        client = OctoAI(api_key=TOKEN, httpx_client=carrier)
        answer = client.infer(endpoint_url=f"{url}/upscaling", inputs=inputs)
    image = Image.open(io.BytesIO(base64.b64decode(answer["image_b64"])))
    assert image.size == (608, 512)


def test_infer_async_is_polled_until_its_result_is_there(client: OctoAI, url: str) -> None:
    """ASY-1 to ASY-3, as its users wrote it."""
    inputs = {"init_image": PHOTO_B64, "model": "real-esrgan-animevideo-v3", "scale": 3}
    future = client.infer_async(endpoint_url=f"{url}/upscaling", inputs=inputs)
    deadline = time.monotonic() + 120
    while not client.is_future_ready(future):
        assert client.get_future_result(future) is None or client.is_future_ready(future)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = client.get_future_result(future)
    assert answer is not None
    assert answer["removed_for_safety"] is False
    image = Image.open(io.BytesIO(base64.b64decode(answer["image_b64"])))
    assert (image.format, image.size) == ("PNG", (912, 768))


def test_a_fault_of_the_client_is_told_when_it_asks_asynchronously(
    client: OctoAI, url: str
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        client.infer_async(f"{url}/upscaling", inputs={"init_image": PHOTO_B64, "scale": 99})
    assert error.value.response.status_code == 422


def test_a_future_that_is_not_known_is_an_error(client: OctoAI, url: str) -> None:
    future = InferenceFuture(response_id="unknown", poll_url=f"{url}/v1/requests/unknown")
    with pytest.raises(httpx.HTTPStatusError) as error:
        client.is_future_ready(future)
    assert error.value.response.status_code == 404


def test_health_check_sees_a_service_that_is_ready(client: OctoAI, url: str) -> None:
    assert client.health_check(endpoint_url=f"{url}/healthcheck") == 200


def test_a_fault_of_the_client_is_told_at_once(client: OctoAI, url: str) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        client.infer(endpoint_url=f"{url}/upscaling", inputs={"scale": 2})
    assert error.value.response.status_code == 422
    assert error.value.response.json()["detail"][0]["loc"] == ["body", "init_image"]


def test_without_such_a_carrier_the_client_sends_no_token(url: str) -> None:
    """Should a later client send it, this fails, and docs/API.md has a line too many."""
    with httpx.Client() as carrier, pytest.raises(httpx.HTTPStatusError) as error:
        OctoAI(api_key=TOKEN, httpx_client=carrier).infer(f"{url}/upscaling", inputs={})
    assert error.value.response.status_code == 401


def test_the_example_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "API.md").read_text()
    example = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("docs").symlink_to(ROOT / "docs")
    settings = Settings(tokens=("secret",))
    with running(create_app(LocalBackend(Resizer()), settings)) as url:
        names: dict[str, httpx.Client] = {}
        exec(example.replace("http://127.0.0.1:8000", url), names)
        names["carrier"].close()
    with Image.open("photo-x2.png") as image:
        assert image.size == (608, 512)
