"""A service that is told to stop does not wait for those who only watch."""

import base64
import threading
from pathlib import Path

import httpx
import pytest

from tests.service.test_inferences import bearer
from tests.service.test_overload import Gate
from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, PHOTO_B64, SETTINGS, TOKENS, running
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.jobs.disk import DiskJobStore


def test_watchers_are_disconnected_and_their_jobs_begin_again(tmp_path: Path) -> None:
    gate = Gate()
    app = create_app(LocalBackend(gate), SETTINGS, DiskJobStore(tmp_path, 2**32))
    # If it waits for them, let it end at some time all the same.
    too_late = threading.Timer(PATIENCE_S, gate.opened.set)
    ended: list[str] = []

    def watch(url: str, begun: threading.Event) -> None:
        headers = bearer(TOKENS[0])
        with pytest.raises(httpx.TransportError):
            read(url, headers, begun)
        ended.append(url)

    def read(url: str, headers: dict[str, str], begun: threading.Event) -> None:
        with httpx.stream("GET", url, headers=headers, timeout=None) as answer:
            begun.set()
            for _ in answer.iter_raw():
                pass

    def wait(url: str, begun: threading.Event) -> None:
        headers = bearer(TOKENS[0]) | {"Idempotency-Key": "mine"}
        begun.set()
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/upscaling", json=GOOD, headers=headers, timeout=None)
        ended.append(url)

    with running(app) as url, httpx.Client(base_url=url, headers=bearer(TOKENS[0])) as api:
        picture = base64.b64decode(PHOTO_B64)
        files = [("f", ("a.png", picture))]
        batch = api.post("/v1/batches", data={"scale": "1"}, files=files).json()
        one = batch["members"][0]["response_id"]
        watched = [f"{url}/v1/requests/{one}/events", batch["events_url"], batch["zip_url"]]
        threads = []
        for work, target in (*((watch, each) for each in watched), (wait, url)):
            begun = threading.Event()
            threads.append(threading.Thread(target=work, args=(target, begun)))
            threads[-1].start()
            assert begun.wait(PATIENCE_S)
        while len(api.get("/v1/requests").json()["requests"]) < 2:
            pass
        too_late.start()
    for thread in threads:
        thread.join()
    too_late.cancel()
    assert not gate.opened.is_set()
    assert len(ended) == 4
