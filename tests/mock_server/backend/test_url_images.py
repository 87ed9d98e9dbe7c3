"""Images of URLs: generated without a network, or really downloaded."""

import io
import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, NoReturn

import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mock_server import Mock
from mock_server.backend.url_images import DEFAULT_SIZE, generate_file, generate_pixels, size_in
from tests.support.http_hosts import answer as answer_with
from tests.support.http_hosts import serving as hosting
from tests.support.mock_servers import mocked
from tests.support.paths import PHOTO
from tests.support.service import SETTINGS, decoded, only_error

AT = "https://pictures.example"


def enlarged(api: httpx.Client, url: str, **fields: Any) -> httpx.Response:
    return api.post("/upscaling", json={"init_image_url": url, "scale": 1} | fields)


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/512x768.png", (512, 768)),
        ("/a/b/cat-300x256.jpg?width=9x9", (300, 256)),
        ("/256x2048.webp", (256, 2048)),
        ("/600x300", (600, 300)),
        ("/1x2-400x500.png", (400, 500)),
        ("/512%78768.png", (512, 768)),
        ("/cat.png", DEFAULT_SIZE),
        ("/300x400/cat.png", DEFAULT_SIZE),
        ("/", DEFAULT_SIZE),
        ("", DEFAULT_SIZE),
        ("?size=300x400", DEFAULT_SIZE),
        ("/cat.png#300x400", DEFAULT_SIZE),
    ],
)
def test_an_image_has_the_size_in_its_url(
    api: httpx.Client, path: str, size: tuple[int, int]
) -> None:
    answer = enlarged(api, AT + path)
    assert decoded(answer).size == size
    assert answer.headers["X-Upscaler-Input-Size"] == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize(
    ("end", "kind"),
    [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP"), (".gif", "PNG"),
     ("", "PNG")],
)  # fmt: skip
def test_an_image_has_the_format_of_its_url(end: str, kind: str) -> None:
    file = generate_file(f"{AT}/300x400{end}", (300, 400))
    image = Image.open(io.BytesIO(file))
    assert (image.format, image.size, image.mode) == (kind, (300, 400), "RGB")
    assert file == generate_file(f"{AT}/300x400{end}", (300, 400)), "the same every time"


@given(st.text(max_size=40), st.text(max_size=40))
def test_each_url_has_its_own_image(one: str, other: str) -> None:
    size = (64, 48)
    same = np.array_equal(generate_pixels(one, size), generate_pixels(other, size))
    assert same == (one == other)


@given(st.text(max_size=30))
@example("/" + "9" * 9 + "x1")
@example("/[")
def test_any_path_has_a_size(text: str) -> None:
    try:
        httpx.URL(f"{AT}/{text}")
    except httpx.InvalidURL:
        return
    width, height = size_in(f"{AT}/{text}")
    assert 0 <= min(width, height) <= max(width, height) <= 99_999


@pytest.mark.parametrize(
    ("size", "kind"),
    [("255x300", "image_too_small"), ("300x2049", "image_too_large"),
     ("99999x99999", "image_too_large"), ("0x0", "image_too_small")],
)  # fmt: skip
def test_a_size_out_of_range_is_the_contracts_error(
    api: httpx.Client, size: str, kind: str
) -> None:
    error = only_error(enlarged(api, f"{AT}/{size}.png"))
    assert error["type"] == kind
    assert error["loc"] == ["body", "init_image_url"]
    assert size.lstrip("0") in error["msg"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("ftp://pictures.example/512x512.png", "url_invalid"),
        ("/512x512.png", "url_invalid"),
        ("https:///512x512.png", "url_invalid"),
        ("https://me:secret@pictures.example/a.png", "url_invalid"),
        ("https://pictures.example:8080/a.png", "url_invalid"),
        ("https://under score/a.png", "url_invalid"),
        ("https://" + "a" * 9000, "url_invalid"),
        ("http://127.0.0.1/a.png", "url_refused"),
        ("http://0x7f.1/a.png", "url_refused"),
        ("http://2130706433/a.png", "url_refused"),
        ("http://[::1]/a.png", "url_refused"),
        ("http://10.1.2.3/a.png", "url_refused"),
        ("http://169.254.169.254/latest", "url_refused"),
        ("http://localhost/a.png", "url_refused"),
        ("http://a.LOCALHOST./a.png", "url_refused"),
    ],
)
def test_urls_that_the_service_refuses_are_refused(api: httpx.Client, url: str, kind: str) -> None:
    error = only_error(enlarged(api, url))
    assert (error["type"], error["loc"]) == (kind, ["body", "init_image_url"])


def test_the_settings_allow_ports_and_networks() -> None:
    settings = replace(SETTINGS, fetch_ports=(8080,), fetch_networks=(ip_network("10.0.0.0/8"),))
    with mocked(Mock(settings=settings)) as api:
        assert decoded(enlarged(api, "http://10.1.2.3:8080/300x256.png")).size == (300, 256)
        assert only_error(enlarged(api, "http://10.1.2.3/a.png"))["type"] == "url_invalid"


def test_nothing_is_resolved_or_connected_to(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        numeric = kwargs.get("flags") == socket.AI_NUMERICHOST
        if numeric or host == "127.0.0.1":
            return find(host, *args, **kwargs)
        raise AssertionError(f"{host} is looked for")

    def no_connection(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise AssertionError("somebody is connected to")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", no_connection)
    for url in (f"{AT}/a.png", "http://1.1.1.1/a.png", "http://nowhere.invalid/"):
        assert enlarged(api, url).status_code == 200


def test_what_is_made_is_counted_as_a_download_is(api: httpx.Client) -> None:
    answer = enlarged(api, f"{AT}/2048x2048.png", scale=0.1)
    assert answer.status_code == 200
    stages = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert float(stages["fetch"]) > 0


def test_asynchronous_and_dry_requests_have_them_as_well(api: httpx.Client) -> None:
    headers = {"X-Upscaler-Dry-Run": "1"}
    fields = {"init_image_url": f"{AT}/300x400.jpg", "scale": 2}
    told = api.post("/upscaling", json=fields, headers=headers).json()
    assert (told["output_width"], told["output_height"]) == (600, 800)
    job = api.post("/upscaling", json=fields, headers={"X-OctoAI-Async": "1"}).json()
    assert decoded(api.get(job["poll_url"].replace("requests", "responses"))).size == (600, 800)


def test_real_images_are_downloaded_as_the_service_does() -> None:
    with hosting(answer_with(PHOTO.read_bytes()), address="127.0.0.1") as host:
        settings = replace(
            SETTINGS, fetch_ports=(host.port,), fetch_networks=(ip_network("127.0.0.0/8"),)
        )
        with mocked(Mock(settings=settings, fetch="real")) as api:
            answer = enlarged(api, f"http://127.0.0.1:{host.port}/512x768.png")
            assert decoded(answer).size == (304, 256)
        with mocked(Mock(settings=replace(settings, fetch_networks=()), fetch="real")) as api:
            error = only_error(enlarged(api, f"http://127.0.0.1:{host.port}/512x768.png"))
            assert error["type"] == "url_refused"


def test_fetch_is_made_or_real() -> None:
    with pytest.raises(ValueError, match="fetch must be one of made, real"):
        Mock(fetch="maybe")
