"""`upscaler serve`, as a process of its own."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, decoded, logged_without, upscale
from upscaler.cli import main
from upscaler.cli import serve as serve_command
from upscaler.cli.options import parser, settings_from
from upscaler.service.server import addresses
from upscaler.settings import FaceEnhance

FAST = {**GOOD, "model": "real-esrgan-animevideo-v3"}
SERVE = (str(Path(sys.executable).parent / "upscaler"), "serve")


@dataclass
class Served:
    """A running server, and the file that its standard error goes to."""

    process: "subprocess.Popen[str]"
    errors: Path
    told: bool = False

    @property
    def said(self) -> list[str]:
        """The lines it has written so far."""
        return self.errors.read_text().splitlines()

    @property
    def url(self) -> str:
        """Where it is, once it says so."""
        while True:
            ended = self.process.poll() is not None
            if found := re.search(r"running on (http://[^ ]+)", self.errors.read_text()):
                return found[1]
            assert not ended, self.said
            time.sleep(0.02)

    def stop(self) -> None:
        """Tell it to stop, once: a second time would end it at once."""
        if not self.told:
            self.process.send_signal(signal.SIGTERM)
        self.told = True


@contextmanager
def served(folder: Path, token: str, serve: Sequence[str] = SERVE) -> Iterator[Served]:
    """`upscaler serve` on a free port; it must end well once it is told to."""
    command = [*serve, "--port", "0"]
    environment = {**os.environ, "UPSCALER_TOKEN": token}
    errors = folder / "stderr"
    with errors.open("w") as file:
        process = subprocess.Popen(command, stderr=file, text=True, cwd=folder, env=environment)
    try:
        server = Served(process, errors)
        assert server.url
        yield server
        server.stop()
        assert process.wait(timeout=60) == 0, server.said
    finally:
        process.kill()
        process.wait()


def test_serve_upscales_with_the_token_from_the_environment(tmp_path: Path) -> None:
    with served(tmp_path, "one, two") as server:
        url, said = server.url, server.said
        assert url.startswith("http://127.0.0.1:")
        assert "two" not in "".join(said)
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer two"}) as api:
            answer = upscale(api, **FAST)
        assert decoded(answer).size == (608, 512)
        assert httpx.post(f"{url}/upscaling").status_code == 401


@pytest.mark.slow
def test_serve_without_a_token_makes_one_and_prints_it(tmp_path: Path) -> None:
    with served(tmp_path, "") as server:
        url, said = server.url, server.said
        token = said[said.index(next(line for line in said if "UPSCALER_TOKEN" in line)) + 1]
        assert len(token.strip()) >= 22, "128 bits, as nobody can guess"
        headers = {"Authorization": f"Bearer {token.strip()}"}
        assert httpx.post(f"{url}/upscaling", headers=headers).status_code == 422
        assert httpx.post(f"{url}/upscaling").status_code == 401


@pytest.mark.slow
def test_a_service_that_is_told_to_stop_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with served(tmp_path, "one") as server:
        headers = {"Authorization": "Bearer one"}
        with (
            httpx.Client(base_url=server.url, headers=headers) as api,
            ThreadPoolExecutor(4) as pool,
        ):
            answers = [pool.submit(upscale, api, **FAST) for _ in range(4)]
            while "upscaler_queue_depth 0.0" in api.get("/metrics", timeout=60).text:
                time.sleep(0.01)
            server.stop()
            assert all(decoded(answer.result()).size == (608, 512) for answer in answers)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/livez")


@pytest.mark.slow
def test_every_line_of_a_service_is_a_json_object(tmp_path: Path) -> None:
    with served(tmp_path, "one") as server:
        httpx.get(f"{server.url}/livez?secret=confidential", headers={"X-User-Request-ID": "mine"})
    lines = [json.loads(line) for line in server.said]
    assert {"timestamp", "level", "logger", "message", "request_id"} <= set(lines[0])
    (request,) = (line for line in lines if line["request_id"] is not None)
    found = request["request_id"], request["message"], request["status"]
    assert found == ("mine", "GET /livez", 200)
    assert "confidential" not in "".join(server.said)


def test_a_port_in_use_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main.main(["serve", "--port", str(port)]) == 1
    assert capsys.readouterr().err == f"upscaler: 127.0.0.1:{port}: Address already in use\n"


class Terminal(io.StringIO):
    """A standard error that people read."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("token", ["", "secret"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_on_a_terminal_it_says_what_to_open(
    token: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    serve_command._welcome(f"http://{host}:8000", token or None)
    lines = said.getvalue().splitlines()
    assert lines[-1] == "Open http://127.0.0.1:8000/" + ("#token=secret" if token else "")


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
    assert main.main(["serve", "--port", "0"]) == 1
    assert words in capsys.readouterr().err


def test_an_option_overrides_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALER_FACE_ENHANCE", "refuse")
    args = parser().parse_args(["serve", "--face-enhance", "ignore"])
    assert settings_from(args).face_enhance is FaceEnhance.IGNORE
    assert settings_from(parser().parse_args(["serve"])).face_enhance is FaceEnhance.REFUSE
    args = parser().parse_args(["serve", "--root-path", "/images/"])
    assert settings_from(args).root_path == "/images"


def test_a_wrong_root_path_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["serve", "--root-path", "images"])
    assert ended.value.code == 2
    assert "argument --root-path: must be a path, such as /images" in capsys.readouterr().err


@pytest.mark.parametrize("on_gpu", [True, False])
def test_on_gpus_models_are_tried_before_anybody_can_connect(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    listen = addresses.listen

    def listening(host: str, port: int) -> list[socket.socket]:
        done.append("listening")
        return listen(host, port)

    monkeypatch.setattr("upscaler.engine.pool.EnginePool.on_gpu", on_gpu)
    monkeypatch.setattr("upscaler.engine.pool.EnginePool.warm_up", lambda _: done.append("tried"))
    monkeypatch.setattr(addresses, "listen", listening)
    monkeypatch.setattr(
        "upscaler.service.server.connection.server",
        lambda *_: SimpleNamespace(run=lambda **_: done.append("served")),
    )
    with logged_without():
        assert main.main(["serve", "--device", "cpu", "--port", "0"]) == 0
    assert done == ["tried"] * on_gpu + ["listening", "served"]


IDLE = """
import signal
from upscaler.cli import workers
from upscaler.settings import Settings

def idle(settings, listeners):
    print("ready", flush=True)
    signal.pause()

if __name__ == "__main__":
    workers.run(idle, Settings(), [], 2)
"""


def test_several_workers_need_a_folder_that_they_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPSCALER_DATA", ":memory:")
    assert main.main(["serve", "--workers", "2"]) == 1
    assert "a folder that they share" in capsys.readouterr().err


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """If that is killed; else nobody could start the service again at its address."""
    script = tmp_path / "idle.py"
    script.write_text(IDLE)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.kill()
        assert process.communicate(timeout=PATIENCE_S)[0] == "", "when all have closed it"


@pytest.mark.slow
def test_several_workers_are_one_service_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    """Whichever is asked knows every job."""
    serve = (*SERVE, "--workers", "2")
    with served(tmp_path, "token", serve) as service, httpx.Client(base_url=service.url) as api:
        api.headers["Authorization"] = "Bearer token"

        def children() -> list[int]:
            tasks = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
            commands = {
                int(pid): Path(f"/proc/{pid}/cmdline").read_text()
                for pid in tasks.read_text().split()
            }
            return [pid for pid, command in commands.items() if "spawn_main" in command]

        def finished(ids: list[str]) -> None:
            for each in ids:
                while True:
                    # A connection of its own, so that now one worker answers and now the other.
                    url = f"{service.url}/v1/requests/{each}"
                    try:
                        answer = httpx.get(url, headers=api.headers, timeout=60)
                    except httpx.TransportError:  # one that was killed
                        continue
                    assert answer.status_code == 200
                    if answer.json()["status"] == "completed":
                        break
                    time.sleep(0.05)
                url = url.replace("requests", "responses")
                assert httpx.get(url, headers=api.headers, timeout=60).status_code == 200

        def start() -> str:
            url = f"{service.url}/upscaling"
            headers = {**api.headers, "X-OctoAI-Async": "1"}
            answer = httpx.post(url, json=FAST, headers=headers, timeout=60)
            return str(answer.json()["response_id"])

        finished([start() for _ in range(6)])
        while len(children()) < 2:
            time.sleep(0.05)
        ids = [start() for _ in range(4)]
        os.kill(children()[0], signal.SIGKILL)
        finished(ids)
