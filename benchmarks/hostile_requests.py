"""What requests and clients that mean harm take of the service: tables in Markdown (Linux only).

    python -m benchmarks.hostile_requests [--runs N]

The requests and their expected outcomes are those of tests/service/test_hostile_bodies.py, and the
ten thousand are those of tests/service/test_leaks.py; a row is printed only if all came out as
expected. The service upscales without a network, in a process of its own, so that all its time
and memory goes into reading a request. Clients that wait are cut off after up to two minutes, so
this takes some minutes.
"""

import argparse
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final

import httpx

from tests.service.test_leaks import REQUESTS, WARM_UP, left
from tests.service.test_leaks import send as send_all
from tests.support.body_cases import CASES, MIB, Case, check, send, told, warmed
from tests.support.processes import HEADERS, Child, child
from tests.support.raw_http import HEAD, connected, request
from tests.support.service import GOOD
from upscaler.bench.machine import describe

PATIENCE_S: Final = 600
REFUSED: Final = HEAD.replace(b"first-token", b"wrong-token") + b"Content-Length: 1000000\r\n\r\n"
WAITING: Final = (
    ("nothing", b"", b""),
    ("a head, a byte every second", b"GET /livez HTTP/1.1\r\nX: ", b"x"),
    ("a body, a byte every second", HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    ("the rest of a refused body, a byte every second", REFUSED, b" "),
)
"""What a client sends that is waited for: its name, and what it sends at first and every second."""
LARGE: Final = request({**GOOD, "scale": 26})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="how often each request is sent")
    args = parser.parse_args()
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores, Python {machine.python}\n")
    print(table("request", "MiB", "answer", "seconds", "MiB at most"), flush=True)
    for case in CASES:
        print(row(*measured(case, args.runs)), flush=True)
    print(f"\n{table('client that sends', 'cut off after')}", flush=True)
    with tempfile.TemporaryDirectory() as folder, child(Path(folder)) as service:
        warmed(service)
        with ThreadPoolExecutor(len(WAITING)) as pool:
            for name, seconds in pool.map(lambda each: waited(service, *each), WAITING):
                print(row(name, f"{seconds:.0f} s"), flush=True)
        print(row("a request, and takes nothing of its answer", f"{untaken(service):.0f} s"))
    print(f"\n{table('of the service', f'before {REQUESTS:,} requests', 'after')}", flush=True)
    for cells in leaks():
        print(row(*cells))


def measured(case: Case, runs: int) -> tuple[str, ...]:
    """A row of the table of requests."""
    with tempfile.TemporaryDirectory() as folder, child(Path(folder)) as service:
        resting = warmed(service)
        sent = [send(case, service, resting) for _ in range(runs)]
    for each in sent:
        check(case, each)
    return (
        case.name,
        f"{sent[0].sent_bytes / MIB:.1f}",
        told(sent[0]),
        f"{median(each.seconds for each in sent):.2f}",
        f"{median(each.memory for each in sent) / MIB:.0f}",
    )


def waited(service: Child, name: str, first: bytes, drop: bytes) -> tuple[str, float]:
    """How long a client can do this, which looks every second whether its connection has ended."""
    began_s = time.monotonic()
    with httpx.Client(base_url=service.url) as api, connected(api) as connection:
        connection.sendall(first)
        connection.settimeout(0.01)
        while not ended(connection, drop):
            time.sleep(1)
        return name, passed(began_s)


def ended(connection: socket.socket, drop: bytes) -> bool:
    try:
        connection.sendall(drop)
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def untaken(service: Child) -> float:
    """How long the service holds an answer that nobody takes."""
    began_s = time.monotonic()
    with httpx.Client(base_url=service.url, headers=HEADERS) as api, connected(api) as connection:
        connection.sendall(LARGE)
        connection.recv(1)
        while "upscaler_held_bytes 0.0" not in api.get("/metrics").text:
            time.sleep(1)
            passed(began_s)
    return passed(began_s)


def passed(began_s: float) -> float:
    """How long ago that was, in seconds, if it was not far too long ago."""
    seconds = time.monotonic() - began_s
    if seconds > PATIENCE_S:
        raise SystemExit("a client that is waited for is not cut off")
    return seconds


def leaks() -> list[tuple[str, ...]]:
    """The rows of what ten thousand requests leave behind."""
    with tempfile.TemporaryDirectory() as folder, child(Path(folder)) as service:
        send_all(service.url, WARM_UP)
        before, memory = left(service), service.memory_bytes()
        send_all(service.url, REQUESTS)
        after, later = left(service), service.memory_bytes()
    names = ("open files and sockets", "threads", "tasks")
    rows = [(n, str(b), str(a)) for n, b, a in zip(names, before, after, strict=True)]
    return [*rows, ("memory", f"{memory / MIB:.0f} MiB", f"{later / MIB:.0f} MiB")]


def table(*headings: str) -> str:
    return f"{row(*headings)}\n{row(*['---'] * len(headings))}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
