"""A service with several devices, here of several workers on the CPU."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, SETTINGS, TOKENS, decoded, running, serving, upscale
from upscaler.cli import main
from upscaler.engine import pool as module
from upscaler.engine.pool import EnginePool, engine_pools
from upscaler.models import UpscalingModel
from upscaler.planning import MIB
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Precision, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3
TWO = Settings(device="cpu,cpu", precision=Precision.FP32)
REQUEST = GOOD | {"model": FAST, "scale": None, "output_image_width": 200}


@pytest.fixture
def two() -> Iterator[list[EnginePool]]:
    threads = torch.get_num_threads()
    pools = engine_pools(TWO)
    yield pools
    for each in pools:
        each.close()
    torch.set_num_threads(threads)


@contextmanager
def serving_both(pools: list[EnginePool]) -> Iterator[httpx.Client]:
    with (
        running(create_app(LocalBackend(*pools), SETTINGS)) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKENS[0]}"}) as client,
    ):
        yield client


def test_two_images_are_upscaled_at_once_and_a_third_waits(
    two: list[EnginePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[EnginePool] = []
    most: list[int] = []
    both, go_on = threading.Barrier(2), threading.Event()
    upscale_it = EnginePool.upscale

    def noting(self: EnginePool, *args: Any) -> Iterator[Any]:
        busy.append(self)
        most.append(len(busy))
        try:
            for number, strip in enumerate(upscale_it(self, *args)):
                if not number and not go_on.is_set():
                    # Nobody gets beyond its first strip unless another has come as far.
                    both.wait(PATIENCE_S)
                    assert go_on.wait(PATIENCE_S)
                yield strip
        finally:
            busy.remove(self)

    with serving(EnginePool(Settings(device="cpu", precision=Precision.FP32))) as api:
        expected = np.asarray(decoded(upscale(api, **REQUEST)))
    monkeypatch.setattr(EnginePool, "upscale", noting)
    with serving_both(two) as api, ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(upscale, api, **REQUEST) for _ in range(3)]
        while "upscaler_queue_depth 1.0" not in api.get("/metrics").text or len(busy) < 2:
            assert not any(answer.done() for answer in answers)
            time.sleep(0.01)
        assert {*busy} == {*two}
        go_on.set()
        for answer in answers:
            assert np.array_equal(np.asarray(decoded(answer.result())), expected)
    assert len(most) == 3
    assert max(most) == 2


def test_workers_on_a_cpu_divide_its_threads_and_memory(
    two: list[EnginePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        engine_pools(TWO)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        engine_pools(TWO)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    for where in ("upscaler.engine.pool", "upscaler.engine.engine"):
        monkeypatch.setattr(f"{where}.free_bytes", lambda _device: 1024 * MIB)
    for each in two:
        assert each.plan(FAST, (2048, 2048), 3).bytes <= 256 * MIB
        assert each._ready(FAST)[0].plan(2048, 2048).bytes <= 256 * MIB
    alone = EnginePool(Settings(device="cpu", precision=Precision.FP32))
    assert alone.plan(FAST, (2048, 2048), 3).bytes > 256 * MIB


def test_each_card_has_a_worker_and_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[torch.device, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        module,
        "EnginePool",
        lambda _settings, *, device, share: made.append((device, share)),
    )
    threads = torch.get_num_threads()
    engine_pools(Settings(device="cuda"))
    assert made == [(torch.device("cuda:0"), 1), (torch.device("cuda:1"), 1)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("command", "devices", "status", "words"),
    [
        ("serve", "cuda:0,cuda:0", 2, "argument --device: several devices are different cards"),
        ("serve", "cpu,cuda:x", 2, "argument --device: must be one of auto"),
        ("serve", "cuda:9", 1, "cuda"),
        ("image", "cpu,cpu", 1, "cpu,cpu: only upscaler serve takes several devices: name one"),
    ],
)
def test_a_wrong_list_is_told_in_a_sentence(
    command: str, devices: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, *(["a.png"] if command == "image" else []), "--device", devices]
    try:
        ended: object = main.main(arguments)
    except SystemExit as end:
        ended = end.code
    assert ended == status
    assert words in capsys.readouterr().err.splitlines()[-1]
