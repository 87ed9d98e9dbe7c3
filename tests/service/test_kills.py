"""A service that is killed at any moment loses no job that it has accepted, and no result."""

import base64
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from tests.support.image_files import saved
from tests.support.killed_servers import Server, servers
from tests.support.processes import HEADERS
from tests.support.raw_http import PATIENCE_S
from upscaler.imaging import decode
from upscaler.imaging.resize import resize

SIDE_PX: Final = 256


class Sender:
    """A client that sends pictures, one after another, and comes back if its server is killed.

    Each request has a key of its own, and is sent again until there is a response. `accepted` are
    the ids by the number of the picture, and `results` what came of those that were polled for.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.urls: list[str] = []
        self.accepted: dict[int, str] = {}
        self.results: dict[int, bytes] = {}
        self.over = threading.Event()

    def send(self) -> None:
        number = 0
        with httpx.Client(headers=HEADERS, timeout=10) as client:
            while not self.over.is_set():
                number += 1
                picture = saved(pixels(self.seed, number), "PNG")
                fields = {"init_image": base64.b64encode(picture).decode(), "scale": 1}
                headers = {"X-OctoAI-Async": "1", "Idempotency-Key": f"{self.seed}-{number}"}
                while not self.over.is_set():
                    answer = self.ask(client, "POST", "/upscaling", json=fields, headers=headers)
                    if answer is not None and answer.status_code == 200:
                        told = answer.json()["response_id"]
                        assert self.accepted.setdefault(number, told) == told
                        # Once more, as a client does that lost the response.
                        if self.random.random() < 0.7:
                            break
                self.look(client)

    def look(self, client: httpx.Client) -> None:
        """Ask for one of the results, which is there or not, and never another."""
        number, job_id = self.random.choice(list(self.accepted.items()) or [(0, "none")])
        answer = self.ask(client, "GET", f"/v1/responses/{job_id}")
        if answer is None or number == 0:
            return
        assert answer.status_code in (200, 404), answer.text
        if answer.status_code == 200:
            assert self.results.setdefault(number, answer.content) == answer.content
        else:
            assert number not in self.results, "it was there"
            assert "not completed" in answer.text

    def ask(
        self, client: httpx.Client, method: str, path: str, **more: object
    ) -> httpx.Response | None:
        try:
            return client.request(method, self.random.choice(self.urls) + path, **more)  # type: ignore[arg-type]
        except httpx.TransportError:
            time.sleep(0.01)
            return None


def pixels(seed: int, number: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """A picture that no other is."""
    tile = np.random.default_rng([seed, number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.tile(tile, (SIDE_PX // 8, SIDE_PX // 8, 1))


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_that_was_accepted_is_lost_or_made_twice(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    senders = [Sender(seed) for seed in range(2)]
    with servers(tmp_path) as folder, ThreadPoolExecutor(len(senders)) as pool:
        alive: list[Server] = [folder.start()]

        def tell() -> None:
            for sender in senders:
                sender.urls = [each.url for each in alive]

        tell()
        sending = [pool.submit(sender.send) for sender in senders]
        try:
            for _ in range(kills):
                if len(alive) < 2 and chance.random() < 0.5:
                    alive.append(folder.start())  # two share the folder
                    tell()
                time.sleep(chance.uniform(0.02, 0.4))
                await_more(senders)
                victim = alive.pop(chance.randrange(len(alive)))
                victim.kill()
                if not alive:
                    alive.append(folder.start())
                tell()
        finally:
            for sender in senders:
                sender.over.set()
        for each in sending:
            each.result()
        count = 0
        with httpx.Client(base_url=alive[0].url, headers=HEADERS) as client:
            for sender in senders:
                for number, job_id in sender.accepted.items():
                    count += 1
                    check(client, sender, number, job_id)
            assert count >= kills
            last = unanswered(client, senders)
            known = {each for sender in senders for each in sender.accepted.values()}
            assert listed(client) == known | last


def await_more(senders: list[Sender]) -> None:
    """Until another job is accepted, on a machine that is slow at it."""
    before, deadline_s = accepted(senders), time.monotonic() + PATIENCE_S
    while accepted(senders) == before:
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def accepted(senders: list[Sender]) -> int:
    return sum(len(sender.accepted) for sender in senders)


def check(client: httpx.Client, sender: Sender, number: int, job_id: str) -> None:
    """A job that was accepted is completed, and its result is that of its picture."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (state := client.get(f"/v1/requests/{job_id}").json())["status"] != "completed":
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    answer = client.get(state["response_url"])
    assert answer.status_code == 200, answer.text
    assert sender.results.get(number, answer.content) == answer.content
    file = base64.b64decode(answer.json()["image_b64"])
    given = pixels(sender.seed, number)
    expected = resize(given, (SIDE_PX, SIDE_PX))
    assert np.array_equal(decode.read_header(file).pixels(), expected)


def listed(client: httpx.Client) -> set[str]:
    """The ids of all jobs, each once."""
    found: list[str] = []
    before: str | None = ""
    while before is not None:
        page = client.get(
            "/v1/requests", params={"limit": 100} | ({"before": before} if before else {})
        )
        found += [each["response_id"] for each in page.json()["requests"]]
        before = page.json().get("next_before")
    assert len(set(found)) == len(found)
    return set(found)


def unanswered(client: httpx.Client, senders: list[Sender]) -> set[str]:
    """The jobs whose request was accepted, but had no response yet when all was over."""
    last = set()
    for sender in senders:
        number = max(sender.accepted, default=0) + 1
        picture = base64.b64encode(saved(pixels(sender.seed, number), "PNG")).decode()
        headers = {"X-OctoAI-Async": "1", "Idempotency-Key": f"{sender.seed}-{number}"}
        fields = {"init_image": picture, "scale": 1}
        last.add(client.post("/upscaling", json=fields, headers=headers).json()["response_id"])
    return last
