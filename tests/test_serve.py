"""`upscaler serve`, as a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving import GOOD, decoded, upscale
from upscaler import cli

UPSCALER = str(Path(sys.executable).parent / "upscaler")


def serve(tmp_path: Path, token: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [UPSCALER, "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "UPSCALER_TOKEN": token},
    )


def url_of(server: "subprocess.Popen[str]") -> tuple[str, list[str]]:
    """The address a server says it runs on, and what it said before."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1], said
    raise AssertionError("".join(said))


def stop(server: "subprocess.Popen[str]") -> int:
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)
    return server.returncode


def test_serve_upscales_with_the_token_from_the_environment(tmp_path: Path) -> None:
    server = serve(tmp_path, "one, two")
    try:
        url, said = url_of(server)
        assert url.startswith("http://127.0.0.1:")
        assert "two" not in "".join(said)
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer two"}) as api:
            answer = upscale(api, **GOOD, model="real-esrgan-animevideo-v3")
        assert decoded(answer).size == (608, 512)
        assert httpx.post(f"{url}/upscaling").status_code == 401
    finally:
        status = stop(server)
    assert status == 0


def test_serve_without_a_token_makes_one_and_prints_it(tmp_path: Path) -> None:
    server = serve(tmp_path, "")
    try:
        url, said = url_of(server)
        token = said[said.index(next(line for line in said if "UPSCALER_TOKEN" in line)) + 1]
        assert len(token.strip()) >= 22, "128 bits, as nobody can guess"
        headers = {"Authorization": f"Bearer {token.strip()}"}
        assert httpx.post(f"{url}/upscaling", headers=headers).status_code == 422
        assert httpx.post(f"{url}/upscaling").status_code == 401
    finally:
        stop(server)


def test_a_port_that_is_taken_is_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [UPSCALER, "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "no server could be started" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("UPSCALER_WEIGHTS", "gone", "UPSCALER_WEIGHTS is gone, which is not a folder"),
        ("UPSCALER_DEVICE", "tpu", "UPSCALER_DEVICE: must be one of auto, cpu, cuda, mps"),
        ("UPSCALER_MEMORY", "large", "UPSCALER_MEMORY: memory is a number of bytes"),
    ],
)
def test_a_setting_that_cannot_be_met_is_told_at_the_start(
    name: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.main(["serve", "--port", "0"]) == 1
    assert words in capsys.readouterr().err


def test_a_service_that_is_told_to_stop_finishes_what_it_has_begun(tmp_path: Path) -> None:
    server = serve(tmp_path, "one")
    try:
        url, _ = url_of(server)
        headers = {"Authorization": "Bearer one"}
        with httpx.Client(base_url=url, headers=headers) as api, ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(upscale, api, **GOOD) for _ in range(2)]
            while "upscaler_queue_depth 1.0" not in api.get("/metrics").text:
                time.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            assert all(decoded(answer.result()).size == (608, 512) for answer in answers)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/livez")
    finally:
        status = stop(server)
    assert status == 0


def test_every_line_of_a_service_is_a_json_object(tmp_path: Path) -> None:
    server = serve(tmp_path, "one")
    try:
        url, said = url_of(server)
        httpx.get(f"{url}/livez?secret=confidential", headers={"X-User-Request-ID": "mine"})
        server.send_signal(signal.SIGTERM)
        said += server.communicate(timeout=30)[1].splitlines()
    finally:
        server.kill()
    lines = [json.loads(line) for line in said]
    assert {"timestamp", "level", "logger", "message", "request_id"} <= set(lines[0])
    (request,) = (line for line in lines if line["request_id"] is not None)
    assert (request["request_id"], request["message"], request["status"]) == (
        "mine",
        "GET /livez",
        200,
    )
    assert "confidential" not in "".join(said)
