"""Ten thousand requests of all kinds leave nothing behind: no memory, file, thread or task."""

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.processes import HEADERS, Child, child, needs_proc
from tests.support.raw_http import HEAD, connected, exchange, request, rest
from tests.support.service import GOOD, PHOTO_B64, png

pytestmark = pytest.mark.dev

REQUESTS: Final = 10_000
WARM_UP: Final = 1_000
"""After so many, whatever is made once is there: threads, caches, the allocator's arenas."""
CLIENTS: Final = 4
ROOM_BYTES: Final = 16 * 2**20
"""By how much the memory differs from one moment to the next, with requests under way
shortly before. A leak of 2 kB a request would be more."""
SMALL: Final = {"init_image": png(256, 256), "scale": 0.1}
LARGE: Final = {**GOOD, "scale": 1}
"""Comes to more than a connection takes at once."""
HALF: Final = len(request(GOOD)) // 2


def whole(api: httpx.Client) -> None:
    assert api.post("/upscaling", json=SMALL).status_code == 200


def as_a_file(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=SMALL, headers={"Accept": "image/jpeg"})
    assert answer.headers["Content-Type"] == "image/jpeg"


def dry(api: httpx.Client) -> None:
    headers = {"X-Upscaler-Dry-Run": "1"}
    assert api.post("/upscaling", json=SMALL, headers=headers).json()["output_width"] == 26


def asynchronous(api: httpx.Client) -> None:
    promised = api.post("/upscaling", json=SMALL, headers={"X-OctoAI-Async": "1"}).json()
    while (poll := api.get(promised["poll_url"]).json())["status"] != "completed":
        time.sleep(0.005)
    assert api.get(poll["response_url"]).status_code == 200


def without_a_token(api: httpx.Client) -> None:
    headers = {"Authorization": "Bearer no"}
    assert api.post("/upscaling", json=SMALL, headers=headers).status_code == 401


def with_wrong_fields(api: httpx.Client) -> None:
    fields = {"init_image": "?", "scale": "x", "model": 1, "more": []}
    assert api.post("/upscaling", json=fields).status_code == 422


def with_a_damaged_image(api: httpx.Client) -> None:
    fields = {**GOOD, "init_image": PHOTO_B64[:40_000]}
    assert api.post("/upscaling", json=fields).status_code == 422


def with_a_url_to_nowhere(api: httpx.Client) -> None:
    fields = {"init_image_url": "http://127.0.0.1/", "scale": 1}
    assert api.post("/upscaling", json=fields).status_code == 422


def to_nowhere(api: httpx.Client) -> None:
    assert api.get(f"/{random.random()}").status_code == 404


def no_request(api: httpx.Client) -> None:
    assert exchange(api, b"no request\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def in_a_row(api: httpx.Client) -> None:
    data = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 5
    with connected(api) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        rest(connection)


def hung_up_while_sending(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(request(GOOD)[:HALF])
        reset(connection)


def hung_up_while_waiting(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(request(LARGE))
        reset(connection)


def hung_up_while_receiving(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(request(LARGE))
        assert connection.recv(12) == b"HTTP/1.1 200"
        reset(connection)


def in_broken_chunks(api: httpx.Client) -> None:
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"
    assert exchange(api, chunks).startswith(b"HTTP/1.1 400 ")


def reset(connection: socket.socket) -> None:
    """Hang up in the rudest way: with a reset, and nothing more is taken."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


KINDS: Final[tuple[Callable[[httpx.Client], None], ...]] = (
    *(whole, as_a_file, dry, asynchronous, without_a_token, with_wrong_fields),
    *(with_a_damaged_image, with_a_url_to_nowhere, to_nowhere, no_request, in_a_row),
    *(hung_up_while_sending, hung_up_while_waiting, hung_up_while_receiving, in_broken_chunks),
)


def send(url: str, count: int) -> None:
    """So many requests, of each kind as many, from a few clients at once."""

    def client(number: int) -> None:
        with httpx.Client(base_url=url, headers=HEADERS, timeout=60) as api:
            for index in range(number, count, CLIENTS):
                KINDS[index % len(KINDS)](api)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, number) for number in range(CLIENTS)]:
            done.result()


def left(service: Child) -> tuple[int, int, int]:
    """How many descriptors, threads and tasks there are when all connections have ended."""
    time.sleep(0.5)
    return service.descriptors(), service.threads(), service.tasks()


@pytest.mark.slow
@needs_proc
def test_ten_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    with child(tmp_path) as service:
        send(service.url, WARM_UP)
        before, grown_bytes = left(service), ROOM_BYTES
        # Twice at most: what leaks grows each time, and the allocator's arenas do not.
        for _ in range(2):
            if grown_bytes >= ROOM_BYTES:
                memory_bytes = service.memory_bytes()
                send(service.url, REQUESTS)
                grown_bytes = service.memory_bytes() - memory_bytes
        after = left(service)
    assert after[0] <= before[0], "files and sockets"
    assert after[1] <= before[1] + CLIENTS, "threads"
    assert after[2] <= before[2], "tasks"
    assert grown_bytes < ROOM_BYTES
    assert "Traceback" not in (said := service.said.read_text()), said[:2000]
    assert json.dumps("ERROR")[1:-1] not in said
