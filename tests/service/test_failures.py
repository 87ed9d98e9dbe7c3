"""What breaks while the service runs: a clear error, nothing lost, and well again by itself."""

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.engine.test_weights_download import serving as releasing
from tests.support.checkpoints import (
    NAME,
    STEM,
    Answer,
    answer,
    cached,
    in_cache,
    pickled,
    published,
    tensors,
)
from tests.support.failing_service import NETWORK
from tests.support.processes import HEADERS, Child, child, needs_proc
from tests.support.scripts import ENGINE
from tests.support.service import GOOD
from upscaler.engine.weights import cache_folder

pytestmark = [pytest.mark.torch, needs_proc]

FETCHED: Final = {**GOOD, "model": NAME.value}
"""Needs weights that must be fetched."""
INSTALLED: Final = {**GOOD, "model": "real-esrgan-animevideo-v3"}
PATIENCE_S: Final = 60
RELEASED: Final = pickled({"params": tensors(0, NETWORK)})
OFFICIAL: Final = published(f"v9.9/{STEM}.pth", RELEASED)

whole = answer(RELEASED)
broken = answer(RELEASED[:100_000], size=len(RELEASED))
"""Promises all and closes the connection in the middle."""


def service(
    folder: Path, releases: str, weights: Path | None = None
) -> AbstractContextManager[Child]:
    arguments = [releases, OFFICIAL.path, str(OFFICIAL.size_bytes), OFFICIAL.sha256]
    if weights:
        arguments.append(str(weights))
    module = "tests.support.failing_service"
    return child(folder, *arguments, module=module, forks=ENGINE, must_end_well=False)


def ask(service: Child, fields: dict[str, object] = FETCHED) -> httpx.Response:
    return httpx.post(f"{service.url}/upscaling", json=fields, headers=HEADERS, timeout=PATIENCE_S)


def assert_unavailable(service: Child, *words: str) -> None:
    """The client is told that it is not its fault, and the log what is."""
    refused = ask(service)
    assert refused.status_code == 503
    assert refused.json() == {"detail": "the service cannot do this at present; its log says why"}
    said = service.said.read_text()
    for word in words:
        assert word in said
    assert ask(service, INSTALLED).status_code == 200, "the other models are none the worse"


def assert_well_again(service: Child) -> None:
    """Without a restart, and before long."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := ask(service)).status_code != 200:
        assert found.status_code == 503
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@contextmanager
def release(*answers: Answer) -> Iterator[str]:
    with releasing(*answers) as server:
        yield server.url


@pytest.mark.slow
def test_a_network_that_breaks_in_the_middle_of_a_download(tmp_path: Path) -> None:
    """Twice in a row: once is made up for at once."""
    with release(broken, broken, whole) as url, service(tmp_path, url) as running:
        assert_unavailable(running, url, "UPSCALER_WEIGHTS")
        assert in_cache() == []
        assert_well_again(running)
        assert in_cache() == [f"{STEM}.pth"]


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """No file may have more than so many bytes, which ends a write as a full disk does."""
    with release(whole) as url, service(tmp_path, url) as running:
        _, most = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (len(RELEASED) // 2, most))
        assert_unavailable(running, "File too large", "UPSCALER_WEIGHTS")
        assert in_cache() == []
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (most, most))
        assert_well_again(running)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [RELEASED[:-1], b"garbage", RELEASED[:-1] + b"x"])
def test_weights_in_the_cache_that_are_damaged(tmp_path: Path, damaged: bytes) -> None:
    path = cached(damaged)
    down = answer(status=500)
    with release(down, down, whole) as url, service(tmp_path, url) as running:
        assert_unavailable(running, f"{path} is damaged", url)
        assert_well_again(running)
    assert path.read_bytes() == RELEASED


@pytest.mark.slow
def test_weights_of_the_operators_own_that_are_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    file = folder / f"{STEM}.pth"
    file.write_bytes(RELEASED[:-1000])
    with service(tmp_path, "http://127.0.0.1:9", folder) as running:
        assert_unavailable(running, f"{file} does not hold the weights of {NAME}")
        file.write_bytes(RELEASED)
        assert_well_again(running)


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_of_a_download(tmp_path: Path) -> None:
    halfway, done = threading.Event(), threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        halfway.set()
        done.wait(PATIENCE_S)

    with release(stall, whole) as url:
        with service(tmp_path, url) as running:
            threading.Thread(target=ask_in_vain, args=(running,)).start()
            assert halfway.wait(PATIENCE_S)
            while not in_cache():
                time.sleep(0.01)
            kill(running)
        done.set()
        (left,) = in_cache()
        assert left.endswith(".part"), "half a file has no file's name"
        with service(tmp_path, url) as running:
            assert ask(running).status_code == 200
    assert (cache_folder() / f"{STEM}.pth").read_bytes() == RELEASED


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_of_a_picture(tmp_path: Path) -> None:
    with release(whole) as url:
        with service(tmp_path, url) as running:
            expected = ask(running).json()
            waiting = threading.Thread(target=ask_in_vain, args=(running,))
            waiting.start()
            while not at_work(running):
                time.sleep(0.01)
            kill(running)
            waiting.join()
        with service(tmp_path, url) as running:
            assert ask(running).json() == expected


def at_work(service: Child) -> bool:
    """Whether some request holds memory, as one does whose picture is made."""
    text = httpx.get(f"{service.url}/metrics", headers=HEADERS, timeout=PATIENCE_S).text
    return "upscaler_held_bytes 0.0" not in text


def ask_in_vain(service: Child) -> None:
    """Ask, and be hung up on."""
    with pytest.raises(httpx.TransportError):
        ask(service, {**FETCHED, "scale": 20})


def kill(service: Child) -> None:
    os.kill(service.pid, signal.SIGKILL)
