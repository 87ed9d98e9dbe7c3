"""What the operator of a service sees: health, ids, log lines and metrics."""

import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.raw_http import PATIENCE_S, send
from tests.support.service import (
    GOOD,
    SETTINGS,
    TOKENS,
    Resizer,
    logged_without,
    running,
    serving,
    upscale,
)
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.middleware import CLIENT_CLOSED
from upscaler.settings import KernelUse

SECRET_URL = "http://127.0.0.1/private/cat.png?signature=confidential"


@pytest.fixture
def api() -> Iterator[httpx.Client]:
    with serving(Resizer()) as client:
        yield client


def metrics(api: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def test_requests_are_counted_by_route_status_and_model(api: httpx.Client) -> None:
    upscale(api, **GOOD)
    upscale(api, **GOOD, model="real-esrgan-x2-plus")
    upscale(api, **GOOD)
    upscale(api, **GOOD | {"scale": 99})
    upscale(api, model="no-such-model-\u00e9")
    httpx.post(f"{api.base_url}/upscaling")
    api.get("/nowhere/at/all")
    api.get("/v1/requests/an-id")
    found = metrics(api)

    def count(**labels: str) -> float:
        return found["upscaler_requests_total", labelled(**labels)]

    default, double = "real-esrgan-x4-plus", "real-esrgan-x2-plus"
    assert count(route="/upscaling", status="200", model=default) == 2
    assert count(route="/upscaling", status="200", model=double) == 1
    assert count(route="/upscaling", status="422", model=default) == 1
    assert count(route="/upscaling", status="422", model="") == 1
    assert count(route="/upscaling", status="401", model="") == 1
    assert count(route="other", status="404", model="") == 1
    assert count(route="/v1/requests/{response_id}", status="404", model="") == 1
    assert found["upscaler_request_seconds_count", labelled(route="/upscaling")] == 6


def test_pictures_are_counted_with_their_stages_and_megapixels(api: httpx.Client) -> None:
    upscale(api, **GOOD)
    upscale(api, **GOOD | {"scale": 4})
    found, model = metrics(api), "real-esrgan-x4-plus"
    megapixels = found["upscaler_output_megapixels_total", labelled(model=model)]
    assert megapixels == pytest.approx((608 * 512 + 1216 * 1024) / 1e6)
    for stage in ("fetch", "decode", "load", "queue", "infer", "encode"):
        labels = labelled(stage=stage, model=model)
        assert found["upscaler_stage_seconds_count", labels] == 2
    assert found["upscaler_stage_seconds_sum", labelled(stage="infer", model=model)] > 0


def test_memory_and_the_queue_are_measured(api: httpx.Client) -> None:
    body = json.dumps(GOOD).encode()
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    with connection:
        connection.sendall(
            b"POST /upscaling HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer first-token\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        connection.sendall(body[:-1])
        eventually(api, "upscaler_held_bytes", len(body) - 1)
    eventually(api, "upscaler_held_bytes", 0)
    found = metrics(api)
    assert found["upscaler_queue_depth", ()] == 0
    assert found["process_resident_memory_bytes", ()] > 10e6


def eventually(
    api: httpx.Client, name: str, value: float, labels: tuple[tuple[str, str], ...] = ()
) -> None:
    """Wait for a metric to come to `value`: the service notices a moment after its clients."""
    deadline = time.monotonic() + 60
    while (found := metrics(api).get((name, labels))) != value:
        assert time.monotonic() < deadline, f"{name} stays at {found}"
        time.sleep(0.01)


def test_metrics_are_for_those_with_a_token(api: httpx.Client) -> None:
    answer = httpx.get(f"{api.base_url}/metrics")
    assert answer.status_code == 401
    assert "upscaler_" not in answer.text


def test_two_services_in_one_process_count_apart(api: httpx.Client) -> None:
    with serving(Resizer()) as other:
        upscale(other, **GOOD)
    assert not [name for name, _ in metrics(api) if name == "upscaler_output_megapixels_total"]


@pytest.mark.parametrize("path", ["/livez", "/healthcheck"])
def test_health_needs_no_token(api: httpx.Client, path: str) -> None:
    answer = httpx.get(f"{str(api.base_url).rstrip('/')}{path}")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "given", ["my-request-1", "a", "A.b:c_d-9", "0" * 128, "5f0c6b1e-7d2a-4a55-9c0e-6f3c9ad0b3a1"]
)
def test_the_callers_id_is_kept(api: httpx.Client, given: str) -> None:
    """RES-6."""
    for path in ("/healthcheck", "/nowhere", "/upscaling"):
        answer = api.get(path, headers={"X-User-Request-ID": given})
        assert answer.headers.get_list("X-User-Request-ID") == [given]


@pytest.mark.parametrize(
    "given", ["", "0" * 129, "two words", "<script>", "a,b", "\u00e9", "a\tb", '"', "a;b"]
)
def test_an_id_that_is_not_sane_is_replaced(api: httpx.Client, given: str) -> None:
    answer = api.get("/healthcheck", headers={b"X-User-Request-ID": given.encode("latin-1")})
    (found,) = answer.headers.get_list("X-User-Request-ID")
    assert re.fullmatch(r"[0-9a-f]{32}", found)


def _is_of_a_request(line: dict[str, Any]) -> bool:
    """Those of errors have no status."""
    return "status" in line and (line["message"], line["status"]) != ("GET /metrics", 200)


@contextmanager
def written(capsys: pytest.CaptureFixture[str], requests: int) -> Iterator[list[dict[str, Any]]]:
    """The log lines of what is done meanwhile, as the command line has them written.

    All are there only when each of so many requests has its line, which comes after its answer.
    Those that got metrics are not counted.
    """
    lines = list[dict[str, Any]]()
    with logged_without():
        yield lines
        deadline = time.monotonic() + 60
        while sum(_is_of_a_request(line) for line in lines) < requests:
            assert time.monotonic() < deadline, lines
            lines += [json.loads(line) for line in capsys.readouterr().err.splitlines()]
            time.sleep(0.01)


def test_each_request_is_one_line_with_its_id_and_what_was_done(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with written(capsys, requests=3) as lines:
        api.post("/upscaling", json=GOOD, headers={"X-User-Request-ID": "mine"})
        upscale(api, **GOOD | {"scale": 99})
        api.get("/nowhere?secret=confidential")
    good, bad, lost = (line for line in lines if line["logger"] == "upscaler.service.middleware")
    assert good["request_id"] == "mine"
    assert good["message"] == "POST /upscaling"
    assert (good["status"], good["model"]) == (200, "real-esrgan-x4-plus")
    assert (good["input"], good["output"]) == ("304x256", "608x512")
    assert set(good["stages"]) == {"fetch", "decode", "load", "queue", "infer", "encode"}
    assert 0 < sum(good["stages"].values()) <= good["seconds"] + 0.001
    assert good["sent_bytes"] > 10_000
    assert (bad["status"], bad["input"]) == (422, "304x256")
    assert "output" not in bad
    assert (lost["status"], lost["message"]) == (404, "GET /nowhere")
    assert len({good["request_id"], bad["request_id"], lost["request_id"]}) == 3


def test_warnings_are_lines_too() -> None:
    code = (
        "import warnings; from upscaler.service import logs; logs.to_stderr(); warnings.warn('odd')"
    )
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["logger"]) == ("WARNING", "py.warnings")
    assert "odd" in line["message"]


class Talking(Resizer):
    """A backend that logs from the threads that it works in."""

    def load(self, model: Any) -> str:
        logging.getLogger("backend").info("loading")
        return super().load(model)

    def upscale(self, *args: Any) -> Any:
        logging.getLogger("backend").info("enlarging")
        raise ZeroDivisionError


def test_every_line_that_a_request_causes_has_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Talking()) as api, written(capsys, requests=1) as lines:
        api.post("/upscaling", json=GOOD, headers={"X-User-Request-ID": "mine"})
    of_it = [line for line in lines if not line["logger"].startswith(("uvicorn", "httpx", "httpc"))]
    assert [line["message"] for line in of_it if line["logger"] == "backend"] == [
        "loading",
        "enlarging",
    ]
    assert any("ZeroDivisionError" in line.get("exc_info", "") for line in of_it)
    assert {line["request_id"] for line in of_it} == {"mine"}


def test_no_line_has_a_token_a_picture_or_the_query_of_a_url(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with written(capsys, requests=5) as lines:
        upscale(api, **GOOD)
        upscale(api, init_image_url=SECRET_URL, scale=2)
        upscale(api, init_image=GOOD["init_image"], scale="confidential")
        api.get(f"/v1/requests/confidential?token={TOKENS[0]}")
        httpx.get(f"{api.base_url}/metrics", headers={"Authorization": "Bearer confidential"})
    text = json.dumps([line for line in lines if not line["logger"].startswith("httpx")])
    assert text.count("POST /upscaling") == 3
    for secret in (*TOKENS, "confidential", "signature", "private", str(GOOD["init_image"])[:40]):
        assert secret not in text


def test_a_client_that_hangs_up_is_counted_and_logged_as_such(
    capsys: pytest.CaptureFixture[str],
) -> None:
    started, stopped = threading.Event(), threading.Event()

    class Endless(Resizer):
        def upscale(self, pixels: Any, model: Any, size: Any, progress: Any) -> Any:
            started.set()
            try:
                while True:
                    progress(0, 1)
                    time.sleep(0.001)
            finally:
                stopped.set()

    with serving(Endless()) as api, written(capsys, requests=1) as lines:
        with send(api):
            assert started.wait(PATIENCE_S)
        assert stopped.wait(PATIENCE_S), "its inference is given up"
        eventually(api, "upscaler_held_bytes", 0)
        labels = labelled(
            route="/upscaling", status=str(CLIENT_CLOSED), model="real-esrgan-x4-plus"
        )
        eventually(api, "upscaler_requests_total", 1, labels)
    assert [line["status"] for line in lines if line["message"] == "POST /upscaling"] == [499]
    assert not [line for line in lines if line["level"] == "ERROR"]


def test_the_kernels_of_each_device_and_those_refused_are_counted() -> None:
    class Loaded(Resizer):
        def __init__(self, device: str, *own: bool) -> None:
            self.found = [KernelUse(device, "some", each, refused=not each) for each in own]

        def kernels(self) -> Iterable[KernelUse]:
            return self.found

    first, second = Loaded("cuda:0", True, True, False), Loaded("cuda:1", True)
    app = create_app(LocalBackend(first, second), SETTINGS)
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    with running(app) as url, httpx.Client(base_url=url, headers=headers) as api:
        found = metrics(api)
    for device, own, library in (("cuda:0", 2, 1), ("cuda:1", 1, 0)):
        assert found["upscaler_models", labelled(device=device, kernels="own")] == own
        assert found["upscaler_models", labelled(device=device, kernels="library")] == library
        assert found["upscaler_kernels_refused", labelled(device=device)] == library
