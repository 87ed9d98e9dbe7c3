"""Measures how fast `upscaler-mock` starts and responds, and prints a Markdown table.

    python -m benchmarks.mock [--starts N] [--requests N]

Each request upscales an image of 1024x1024 pixels, made from the README's photo, by 2. The time of
a stage is from Server-Timing; the rest is HTTP, JSON, base64 and the journal. The processor's time
is the mock's own on all cores, and is the most reliable column on a busy machine.
"""

import argparse
import base64
import http.client
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from PIL import Image

from tests.support.mock_servers import mock_child
from tests.support.processes import Child
from upscaler.bench.machine import describe

PHOTO: Final = Path(__file__).parent.parent / "docs" / "photo.png"
SIDE_PX: Final = 1024
WARM_UP: Final = 5
"""How many requests are not counted: the first ones import modules and allocate memory."""
FILES: Final[dict[str, dict[str, int]]] = {"PNG": {}, "JPEG": {"quality": 90}}
"""The formats that are sent and asked for, by Pillow's names, and Pillow's options."""
STAGES: Final = ("decode", "infer", "encode")

Result = dict[str, float]
"""The times of one request, in milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--requests", type=int, default=100, metavar="N", help="default: 100")
    args = parser.parse_args()
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores, Python {machine.python}\n")
    times = sorted(measure_start() for _ in range(args.starts))
    print(f"Ready after {median(times):.2f} s ({times[0]:.2f} to {times[-1]:.2f})\n")
    with tempfile.TemporaryDirectory() as folder, mock_child(Path(folder)) as mock:
        print("\n".join(table(mock, args.requests)))


def measure_start() -> float:
    """Return the seconds from starting the command to its first response."""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, mock_child(Path(folder)) as mock:
        connection = connect(mock)
        connection.request("GET", "/healthcheck")
        assert connection.getresponse().status == 200
        return time.perf_counter() - began_s


def table(mock: Child, requests: int) -> Iterator[str]:
    """Yield the rows of the table: medians by format, and the range of the total."""
    columns = ("sent", "answered", "milliseconds", "10% to 90%", "processor", *STAGES, "rest")
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for sent in FILES:
        for wanted in FILES:
            results = measure(mock, body(sent, wanted), requests)
            medians = {name: median(each[name] for each in results) for name in results[0]}
            deciles = quantiles((each["total"] for each in results), n=10)
            figures = [f"{medians['total']:.1f}", f"{deciles[0]:.1f} to {deciles[-1]:.1f}"]
            figures += [f"{medians[name]:.1f}" for name in ("processor", *STAGES, "rest")]
            yield f"| {sent} | {wanted} | {' | '.join(figures)} |"


def body(sent: str, wanted: str) -> bytes:
    """Return the body of a request."""
    out = io.BytesIO()
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 256, 256))
    photo.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS).save(out, sent, **FILES[sent])
    fields = {
        "init_image": base64.b64encode(out.getvalue()).decode(),
        "scale": 2,
        "output_image_encoding": wanted.lower(),
    }
    return json.dumps(fields).encode()


def measure(mock: Child, body: bytes, requests: int) -> list[Result]:
    """Return the times of `requests`, one after the other on one connection."""
    connection = connect(mock)
    for _ in range(WARM_UP):
        send(connection, body)
    before_s = mock.processor_seconds()
    results = [send(connection, body) for _ in range(requests)]
    processor = 1000 * (mock.processor_seconds() - before_s) / requests
    return [{**result, "processor": processor} for result in results]


def connect(mock: Child) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(mock.url.removeprefix("http://"), timeout=60)


def send(connection: http.client.HTTPConnection, body: bytes) -> Result:
    """Return the times of one request, from its first byte to the last one of its response."""
    headers = {"Authorization": "Bearer mock-token", "Content-Type": "application/json"}
    began_s = time.perf_counter()
    connection.request("POST", "/upscaling", body, headers)
    response = connection.getresponse()
    response.read()
    total = 1000 * (time.perf_counter() - began_s)
    assert response.status == 200
    timing = response.headers["Server-Timing"].split(", ")
    stages = {name: float(text) for name, _, text in (each.partition(";dur=") for each in timing)}
    return {"total": total, **stages, "rest": total - sum(stages.values())}


if __name__ == "__main__":
    main()
