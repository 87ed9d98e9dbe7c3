"""The command `upscaler-mock`."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn

import httpx
import pytest

from mock_server.serving import cli
from tests.support.hostile_requests import stay_here
from tests.support.mock_servers import MOCK, mock_child, mocking
from tests.support.service import GOOD, upscale
from upscaler.models import UpscalingModel

REPEATED: Final = ("X-Upscaler-Model", "X-Upscaler-Weights-SHA256", "X-Upscaler-Output-Size")


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with mocking() as client:
        yield client


def posted(url: str, token: str, **fields: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{url}/upscaling", json=GOOD | fields, headers=headers, timeout=60)


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing torch or safetensors ends the process."""
    folder = tmp_path / "no-torch"
    folder.mkdir()
    for name in ("torch", "safetensors"):
        (folder / f"{name}.py").write_text("import os\nos._exit(3)\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_without_torch_until_a_signal(
    tmp_path: Path, no_torch: dict[str, str], api: httpx.Client, stop: signal.Signals
) -> None:
    """Its responses equal those of a mock in this process, and the port file is removed."""
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


def test_it_starts_without_what_is_not_needed_yet() -> None:
    """The garbage collector runs again then, and new models of pydantic are built at once."""
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


def test_the_command_has_the_openapi_description_of_the_app(
    api: httpx.Client, tmp_path: Path
) -> None:
    """Its models are built only for this request."""
    with mock_child(tmp_path) as child:
        told = httpx.get(f"{child.url}/openapi.json").raise_for_status().json()
    assert told == api.get("/openapi.json").json()


def test_tokens_are_of_the_options_or_the_environment(tmp_path: Path) -> None:
    environment = {"UPSCALER_TOKEN": "three, four"}
    for options, right, wrong in (
        (("--token", "one", "--token", "two,2"), ("one", "two,2"), ("two", "three", "mock-token")),
        ((), ("three", "four"), ("one", "mock-token")),
    ):
        with mock_child(tmp_path, *options, environment=environment) as child:
            assert [posted(child.url, token).status_code for token in right] == [200, 200]
            assert {posted(child.url, token).status_code for token in wrong} == {401}


def test_the_url_has_the_path_that_the_service_is_below(tmp_path: Path) -> None:
    with mock_child(tmp_path, environment={"UPSCALER_ROOT_PATH": "/images"}) as child:
        assert child.url.endswith("/images")
        assert posted(child.url, "mock-token").status_code == 200


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], serves_nothing: None) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"upscaler-mock {version('octo-upscaler')}\n"


def test_an_address_in_use_is_status_1(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [MOCK, "--port", str(port), "--port-file", str(port_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"upscaler-mock: 127.0.0.1:{port}: Address already in use\n"
    assert not port_file.exists()


def test_an_old_port_file_is_gone_if_the_mock_does_not_start(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    port_file.write_text("1\n")
    missing = str(tmp_path / "missing.toml")
    assert cli.main(["--port-file", str(port_file), "--scenario", missing]) == 1
    assert not port_file.exists()


def test_the_port_of_a_mock_that_came_later_is_left(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with cli._port_file(port_file, 1):
        port_file.write_text("2\n")
    assert port_file.read_text() == "2\n"


@pytest.fixture
def serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the command would otherwise serve in this process for ever."""

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
def test_a_wrong_option_is_status_2(
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
def test_a_host_of_another_machine_is_status_1(
    host: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    serves_nothing: None,
) -> None:
    if host == "nowhere.invalid":
        stay_here(monkeypatch)
    assert cli.main(["--host", host]) == 1
    assert re.fullmatch(rf"upscaler-mock: {host}:0: [^:]+\n", capsys.readouterr().err)


def test_an_unwritable_port_file_is_status_1(
    tmp_path: Path,
) -> None:
    command = [MOCK, "--port-file", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    told = f"upscaler-mock: {tmp_path}: Is a directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_an_invalid_setting_is_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, serves_nothing: None
) -> None:
    monkeypatch.setenv("UPSCALER_QUEUE", "many")
    assert cli.main([]) == 1
    said = capsys.readouterr().err
    assert said == "upscaler-mock: UPSCALER_QUEUE: must be a whole number from 0 to 9999\n"
