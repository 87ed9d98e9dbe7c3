"""`upscaler serve`, as a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.serving import GOOD, decoded, upscale
from upscaler import cli

FAST = {**GOOD, "model": "real-esrgan-animevideo-v3"}
UPSCALER = str(Path(sys.executable).parent / "upscaler")


class Served(NamedTuple):
    """A running server, where it is, and what it has written to standard error so far."""

    process: "subprocess.Popen[str]"
    url: str
    said: list[str]


@contextmanager
def served(folder: Path, token: str) -> Iterator[Served]:
    """`upscaler serve` on a free port; it must end well once it is told to."""
    process = subprocess.Popen(
        [UPSCALER, "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "UPSCALER_TOKEN": token},
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"running on (http://[^ ]+)", line):
                yield Served(process, found[1], said)
                break
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=60)[1].splitlines()
        assert process.returncode == 0, said
    finally:
        process.kill()


def test_serve_upscales_with_the_token_from_the_environment(tmp_path: Path) -> None:
    with served(tmp_path, "one, two") as (_, url, said):
        assert url.startswith("http://127.0.0.1:")
        assert "two" not in "".join(said)
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer two"}) as api:
            answer = upscale(api, **FAST)
        assert decoded(answer).size == (608, 512)
        assert httpx.post(f"{url}/upscaling").status_code == 401


def test_serve_without_a_token_makes_one_and_prints_it(tmp_path: Path) -> None:
    with served(tmp_path, "") as (_, url, said):
        token = said[said.index(next(line for line in said if "UPSCALER_TOKEN" in line)) + 1]
        assert len(token.strip()) >= 22, "128 bits, as nobody can guess"
        headers = {"Authorization": f"Bearer {token.strip()}"}
        assert httpx.post(f"{url}/upscaling", headers=headers).status_code == 422
        assert httpx.post(f"{url}/upscaling").status_code == 401


def test_a_service_that_is_told_to_stop_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with served(tmp_path, "one") as (process, url, _):
        headers = {"Authorization": "Bearer one"}
        with httpx.Client(base_url=url, headers=headers) as api, ThreadPoolExecutor(9) as pool:
            answers = [pool.submit(upscale, api, **FAST) for _ in range(9)]
            while "upscaler_queue_depth 0.0" in api.get("/metrics", timeout=60).text:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert all(decoded(answer.result()).size == (608, 512) for answer in answers)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/livez")


def test_every_line_of_a_service_is_a_json_object(tmp_path: Path) -> None:
    with served(tmp_path, "one") as (_, url, said):
        httpx.get(f"{url}/livez?secret=confidential", headers={"X-User-Request-ID": "mine"})
    lines = [json.loads(line) for line in said]
    assert {"timestamp", "level", "logger", "message", "request_id"} <= set(lines[0])
    (request,) = (line for line in lines if line["request_id"] is not None)
    found = request["request_id"], request["message"], request["status"]
    assert found == ("mine", "GET /livez", 200)
    assert "confidential" not in "".join(said)


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
