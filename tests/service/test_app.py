"""The service over real sockets, with a backend that needs no torch."""

import base64
import io
import json
import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.paths import PHOTO
from tests.support.service import (
    GOOD,
    PHOTO_B64,
    TOKENS,
    Moody,
    Resizer,
    decoded,
    only_error,
    png,
    serving,
    upscale,
)
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.api.sizes import Size
from upscaler.errors import WeightsUnavailable
from upscaler.imaging.parallel import THREAD_NAME
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, Progress
from upscaler.settings import Settings


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with serving(Resizer()) as client:
        yield client


@pytest.fixture(scope="module")
def failing_api() -> Iterator[httpx.Client]:
    with serving(Moody()) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"scale": 2}, (608, 512)),
        ({"scale": "1.5"}, (456, 384)),
        ({"scale": 0.5}, (152, 128)),
        ({"output_image_width": 500}, (500, 421)),
        ({"output_image_height": 777}, (923, 777)),
        ({"scale": 2, "output_image_width": None, "init_image_url": None}, (608, 512)),
    ],
)
def test_the_answer_is_a_picture_of_the_exact_size(
    api: httpx.Client, fields: dict[str, object], size: tuple[int, int]
) -> None:
    """RES-1, RES-2, RES-3, REQ-16."""
    image = decoded(upscale(api, init_image=PHOTO_B64, **fields))
    assert image.size == size
    assert image.format == "PNG"


def test_the_picture_is_the_one_that_was_sent(api: httpx.Client, photo: Pixels) -> None:
    image = decoded(upscale(api, init_image=PHOTO_B64, scale=1))
    assert np.array_equal(np.array(image), photo)


def test_jpeg_is_answered_when_asked_for(api: httpx.Client) -> None:
    """REQ-9."""
    assert decoded(upscale(api, **GOOD, output_image_encoding="jpeg")).format == "JPEG"


@pytest.mark.parametrize("model", UpscalingModel)
def test_every_model_is_known(api: httpx.Client, model: str) -> None:
    """REQ-8."""
    assert decoded(upscale(api, **GOOD, model=model)).size == (608, 512)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "first-token",
        "Basic first-token",
        "Bearer first-token2",
        "Bearer zweites-schluesselwort",
    ],
)
def test_without_a_valid_token_it_is_a_401(api: httpx.Client, header: str | None) -> None:
    """REQ-2, RES-7; and before the body is looked at (REQ-19)."""
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.post(f"{api.base_url}/upscaling", content=b"no json", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json().keys() == {"detail"}
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("token", TOKENS)
def test_every_configured_token_is_valid(api: httpx.Client, token: str, scheme: str) -> None:
    headers = {b"Authorization": f"{scheme} {token}".encode()}
    assert api.post("/upscaling", json=GOOD, headers=headers).status_code == 200


def test_a_service_without_a_token_does_not_start() -> None:
    with pytest.raises(ValueError, match="token"):
        create_app(LocalBackend(Resizer()), Settings())


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json ;charset=utf-8",
        "Application/JSON;charset=UTF-8",
    ],
)
def test_json_may_be_named_with_parameters(api: httpx.Client, content_type: str) -> None:
    """REQ-3."""
    content, headers = json.dumps(GOOD), {"Content-Type": content_type}
    assert api.post("/upscaling", content=content, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/jsonp", "multipart/form-data"]
)
def test_other_content_types_are_refused(api: httpx.Client, content_type: str | None) -> None:
    """REQ-3."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = api.post("/upscaling", content=json.dumps(GOOD), headers=headers)
    assert only_error(answer)["loc"] == ["header", "Content-Type"]


@pytest.mark.parametrize(
    ("fields", "loc", "kind"),
    [
        ({"scale": 2}, ["body", "init_image"], "missing"),
        ({"init_image": PHOTO_B64}, ["body", "scale"], "missing"),
        ({**GOOD, "colour": 1}, ["body", "colour"], "extra_forbidden"),
        ({**GOOD, "model": "esrgan"}, ["body", "model"], "enum"),
        ({**GOOD, "init_image": "#"}, ["body", "init_image"], "base64_invalid"),
        ({**GOOD, "init_image": "aGVsbG8="}, ["body", "init_image"], "image_unreadable"),
        ({**GOOD, "init_image": png(255, 300)}, ["body", "init_image"], "image_too_small"),
        ({**GOOD, "init_image": png(300, 2049)}, ["body", "init_image"], "image_too_large"),
        ({**GOOD, "scale": 27}, ["body", "scale"], "output_too_large"),
        (
            {"init_image": PHOTO_B64, "output_image_height": 8000},
            ["body", "output_image_height"],
            "output_too_large",
        ),
        ({**GOOD, "face_enhance": True}, ["body", "face_enhance"], "face_enhance_unavailable"),
        (
            {"init_image_url": "http://127.0.0.1/a.png", "scale": 2},
            ["body", "init_image_url"],
            "url_refused",
        ),
    ],
)
def test_a_broken_rule_is_a_422_on_its_field(
    api: httpx.Client, fields: dict[str, object], loc: list[str], kind: str
) -> None:
    """RES-4, REQ-4 to REQ-17."""
    error = only_error(upscale(api, **fields))
    assert error["loc"] == loc
    assert error["type"] == kind


def test_a_truncated_picture_is_a_422(api: httpx.Client) -> None:
    half = base64.b64encode(PHOTO.read_bytes()[:50_000]).decode()
    assert only_error(upscale(api, init_image=half, scale=2))["type"] == "image_damaged"


def test_the_output_size_is_told_before_the_pixels_are_read(api: httpx.Client) -> None:
    """REQ-15: both are wrong, and only the header had to be read to know of one."""
    half = base64.b64encode(PHOTO.read_bytes()[:50_000]).decode()
    assert only_error(upscale(api, init_image=half, scale=99))["type"] == "output_too_large"


def test_errors_come_in_the_order_of_the_contract(api: httpx.Client) -> None:
    """REQ-19: with everything wrong, each repair brings the next error to light."""
    url, token = f"{api.base_url}/upscaling", {"Authorization": f"Bearer {TOKENS[0]}"}
    json_type = {"Content-Type": "application/json"}
    huge = b"{" + b" " * MAX_BODY_BYTES
    small, large = png(200, 200), png(256, 256)

    assert httpx.get(url + "x").status_code == 404
    assert httpx.get(url).status_code == 405
    assert httpx.post(url, content=huge).status_code == 401
    assert httpx.post(url, content=huge, headers=token).status_code == 413
    bodies = (
        "{",
        f'{{"scale": 99, "init_image": "{small}", "model": ""}}',
        '{"scale": 99, "init_image": "aGVsbG8="}',
        f'{{"scale": 99, "init_image": "{small}"}}',
        f'{{"scale": 99, "init_image": "{large}"}}',
    )
    errors = [only_error(httpx.post(url, content=b, headers=token | json_type)) for b in bodies]
    assert [error["type"] for error in errors] == [
        "json_invalid",
        "enum",
        "image_unreadable",
        "image_too_small",
        "output_too_large",
    ]


def test_a_body_that_lies_about_its_length_is_cut_off(api: httpx.Client) -> None:
    """RES-7: chunked, so that no Content-Length warns of it; and whatever it is (REQ-19)."""
    chunks = (b" " * 2**20 for _ in range(40))
    answer = api.post("/upscaling", content=chunks)
    assert answer.status_code == 413
    assert isinstance(answer.json()["detail"], str)


def test_a_body_that_says_it_is_too_long_is_not_waited_for(api: httpx.Client) -> None:
    """RES-7: nothing of it has been sent when the answer comes."""
    url = api.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(
            b"POST /upscaling HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer first-token\r\n"
            b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_largest_input_fits_into_a_body(api: httpx.Client) -> None:
    """The limit of RES-7 must not get in the way of REQ-13: noise does not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG", compress_level=1)
    image = base64.b64encode(out.getvalue()).decode()
    answer = upscale(api, init_image=image, scale=0.125, output_image_encoding="jpeg")
    assert decoded(answer).size == (256, 256)


def test_only_a_1_asks_for_asynchronous_inference(api: httpx.Client) -> None:
    """ASY-1."""
    answer = api.post("/upscaling", json=GOOD, headers={"X-OctoAI-Async": "0"})
    assert answer.status_code == 200


def test_unknown_headers_are_ignored(api: httpx.Client) -> None:
    """REQ-18."""
    headers = {"X-OctoAI-Queue-Dispatch": "true", "X-Something-Else": "1"}
    assert api.post("/upscaling", json=GOOD, headers=headers).status_code == 200


def test_every_answer_has_an_id_of_its_own(api: httpx.Client, failing_api: httpx.Client) -> None:
    """RES-6."""
    answers = [
        api.get("/healthcheck"),
        api.get("/nowhere"),
        api.get("/upscaling"),
        httpx.post(f"{api.base_url}/upscaling"),
        upscale(api, **GOOD),
        upscale(api),
        upscale(failing_api, **GOOD, model="real-esrgan-x4-v3"),
        upscale(failing_api, **GOOD, model="real-esrgan-x2-plus"),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 401, 200, 422, 503, 500]
    ids = [answer.headers.get_list("X-User-Request-ID") for answer in answers]
    assert all(len(found) == 1 and found[0] for found in ids)
    assert len({found[0] for found in ids}) == len(ids)


def test_a_failure_of_ours_is_told_without_its_insides(
    failing_api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """RES-7: the client learns that it is not at fault, the operator's log says why."""
    with caplog.at_level(logging.ERROR):
        missing = upscale(failing_api, **GOOD, model="real-esrgan-x4-v3")
        fault = upscale(failing_api, **GOOD, model="real-esrgan-x2-plus")
    assert (missing.status_code, fault.status_code) == (503, 500)
    for answer in (missing, fault):
        assert isinstance(answer.json()["detail"], str)
        assert "secret" not in answer.text
        assert "ZeroDivision" not in answer.text
    assert "/home/operator/secret/path is damaged" in caplog.text
    assert f"request {missing.headers['X-User-Request-ID']} failed" in caplog.text
    assert f"request {fault.headers['X-User-Request-ID']} failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_connection_outlives_a_failure(failing_api: httpx.Client) -> None:
    """A client that keeps its connection must not lose the next request on it."""
    statuses = [
        upscale(failing_api, **GOOD, model="real-esrgan-x2-plus").status_code for _ in range(20)
    ]
    assert statuses == [500] * 20


@pytest.mark.parametrize("path", ["/upscaling/", "/healthcheck/", "//upscaling"])
def test_a_path_that_is_nearly_right_is_a_404(api: httpx.Client, path: str) -> None:
    """RES-7: and no redirect to wherever the request's Host header says."""
    answer = httpx.post(f"{api.base_url}".rstrip("/") + path, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert answer.json().keys() == {"detail"}


def test_health_needs_no_token(api: httpx.Client) -> None:
    """RES-9."""
    assert httpx.get(f"{api.base_url}/healthcheck").status_code == 200


def test_the_api_describes_itself(api: httpx.Client) -> None:
    document = httpx.get(f"{api.base_url}/openapi.json").json()
    paths, schemas = document["paths"], document["components"]["schemas"]
    post = paths["/upscaling"]["post"]
    request = post["requestBody"]["content"]["application/json"]["schema"]
    assert request == {"$ref": "#/components/schemas/UpscalingRequest"}
    assert post["requestBody"]["required"] is True
    errors = {"401", "406", "408", "413", "415", "422", "503"}
    assert set(post["responses"]) == {"200"} | errors
    assert set(post["responses"]["200"]["content"]) == {
        "application/json",
        "image/png",
        "image/jpeg",
    }
    schema = post["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {
        "anyOf": [
            {"$ref": f"#/components/schemas/{name}"}
            for name in ("ImageResponse", "DryRunResponse", "AsyncResponse")
        ]
    }
    assert {parameter["name"] for parameter in post["parameters"]} == {
        "Accept",
        "Idempotency-Key",
        "X-OctoAI-Async",
        "X-Upscaler-Dry-Run",
        "X-Upscaler-Webhook",
        "X-User-Request-ID",
        "preview",
    }
    assert {path: set(methods) for path, methods in paths.items()} == {
        "/upscaling": {"post"},
        "/v1/requests": {"get"},
        "/v1/requests/{response_id}": {"get", "delete"},
        "/v1/requests/{response_id}/events": {"get"},
        "/v1/responses/{response_id}": {"get"},
        "/v1/batches": {"post"},
        "/v1/batches/{batch_id}": {"get", "delete"},
        "/v1/batches/{batch_id}/events": {"get"},
        "/v1/batches/{batch_id}/zip": {"get"},
        "/v1/webhooks/secret": {"get"},
        "/v1/webhooks/test": {"post"},
        "/healthcheck": {"get"},
        "/livez": {"get"},
        "/metrics": {"get"},
    }
    assert set(schemas) == {
        "AsyncResponse",
        "Batch",
        "BatchMember",
        "DryRunResponse",
        "ErrorResponse",
        "HTTPValidationError",
        "ImageEncoding",
        "ImageResponse",
        "JobList",
        "JobStatus",
        "JobSummary",
        "PollResponse",
        "UpscalingModel",
        "UpscalingRequest",
        "ValidationError",
        "WebhookSecret",
        "WebhookTest",
    }
    assert "swagger" in httpx.get(f"{api.base_url}/docs").text


def test_all_that_needs_a_token_says_so_in_the_description(api: httpx.Client) -> None:
    paths = httpx.get(f"{api.base_url}/openapi.json").json()["paths"]
    guarded = {path for path, item in paths.items() for each in item.values() if "security" in each}
    assert guarded == set(paths) - {"/healthcheck", "/livez"}


def test_every_reference_in_the_description_leads_somewhere(api: httpx.Client) -> None:
    text = httpx.get(f"{api.base_url}/openapi.json").text
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names
    assert names <= set(json.loads(text)["components"]["schemas"])


class Gate(Resizer):
    """A backend that counts who is inside, and waits until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.inside = 0
        self.most_inside = 0

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        assert self.opened.wait(30)
        self.inside -= 1
        return super().upscale(pixels, model, size, progress)


class Downloading(Resizer):
    """A backend one of whose models takes long to be had."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.arrived = threading.Event()

    def load(self, model: UpscalingModel) -> str:
        if model is UpscalingModel.X2_PLUS:
            self.asked.set()
            assert self.arrived.wait(30)
        return super().load(model)


def test_while_a_model_is_fetched_pictures_are_made_with_others() -> None:
    backend = Downloading()
    with serving(backend) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(upscale, client, **GOOD, model="real-esrgan-x2-plus")
        assert backend.asked.wait(30)
        assert decoded(upscale(client, **GOOD)).size == (608, 512)
        backend.arrived.set()
        assert decoded(waiting.result()).size == (608, 512)


def test_while_one_picture_is_made_others_wait_and_health_answers() -> None:
    gate = Gate()
    with serving(gate) as client, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(upscale, client, **GOOD) for _ in range(4)]
        assert gate.entered.wait(30)
        assert client.get("/healthcheck", timeout=30).status_code == 200
        assert client.post("/upscaling", json={}, timeout=30).status_code == 422
        gate.opened.set()
        assert all(decoded(answer.result()).size == (608, 512) for answer in answers)
    assert gate.most_inside == 1


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_an_answer_says_how_long_it_is(api: httpx.Client, scale: int, encoding: str) -> None:
    answer = upscale(api, init_image=PHOTO_B64, scale=scale, output_image_encoding=encoding)
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["Content-Type"] == "application/json"
    assert decoded(answer).size == (304 * scale, 256 * scale)


class Slow(Resizer):
    """A backend that gives out a picture in strips, and fails at the end if it is to."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.threads: list[int] = []

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        for strip in np.array_split(resize(pixels, size), 20):
            yield strip
            self.threads.append(sum(THREAD_NAME in t.name for t in threading.enumerate()))
        if self.fails:
            raise WeightsUnavailable("they were deleted meanwhile")


def test_a_picture_is_encoded_while_it_is_being_made() -> None:
    backend = Slow(fails=False)
    with serving(backend) as client:
        assert decoded(upscale(client, init_image=PHOTO_B64, scale=8)).size == (2432, 2048)
    assert max(backend.threads) > 0


def test_a_failure_at_the_last_row_is_told_all_the_same() -> None:
    with serving(Slow(fails=True)) as client:
        answer = upscale(client, init_image=PHOTO_B64, scale=8)
        assert answer.status_code == 503
        assert isinstance(answer.json()["detail"], str)


class Flat(Resizer):
    """A backend that gives back what is no picture, however large."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        return [np.zeros((size[1], size[0]), np.uint8)]


@pytest.mark.parametrize("scale", [1, 20])
def test_what_is_no_picture_is_a_500_and_no_broken_answer(scale: int) -> None:
    with serving(Flat()) as client:
        assert upscale(client, init_image=PHOTO_B64, scale=scale).status_code == 500


def test_a_client_that_hangs_up_on_a_long_answer_does_no_harm(
    api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"init_image": PHOTO_B64, "scale": 26}
    with api.stream("POST", "/upscaling", json=fields, timeout=60) as answer:
        assert next(answer.iter_raw())
    assert upscale(api, **GOOD).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_client_that_hangs_up_does_no_harm(
    api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    url = api.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(
            b"POST /upscaling HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer first-token\r\nContent-Length: 1000\r\n\r\n{"
        )
    assert upscale(api, **GOOD).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
