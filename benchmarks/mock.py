"""How fast `upscaler-mock` is there, and how fast it answers: a table in Markdown.

    python -m benchmarks.mock [--starts N] [--requests N]

Each request is of 1024x1024 pixels, the photo of the README enlarged, to be made twice as large.
What a stage took is what Server-Timing says; the rest is HTTP, JSON, base64 and the journal. The
processor's time is the mock's own on all cores, and tells most where others are busy, too.
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
"""So many requests before those that count: the first ones find nothing loaded and no memory."""
FILES: Final[dict[str, dict[str, int]]] = {"PNG": {}, "JPEG": {"quality": 90}}
"""What is sent, by Pillow's names and options, and what is asked for."""
STAGES: Final = ("decode", "infer", "encode")

Result = dict[str, float]
"""What was measured of one request, in milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--requests", type=int, default=100, metavar="N", help="default: 100")
    args = parser.parse_args()
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores, Python {machine.python}\n")
    times = sorted(until_ready() for _ in range(args.starts))
    print(f"Ready after {median(times):.2f} s ({times[0]:.2f} to {times[-1]:.2f})\n")
    with tempfile.TemporaryDirectory() as folder, mock_child(Path(folder)) as mock:
        print("\n".join(table(mock, args.requests)))


def until_ready() -> float:
    """How many seconds pass from the command to its first answer."""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, mock_child(Path(folder)) as mock:
        connection = connected(mock)
        connection.request("GET", "/healthcheck")
        assert connection.getresponse().status == 200
        return time.perf_counter() - began_s


def table(mock: Child, requests: int) -> Iterator[str]:
    """What each kind of file and answer takes: medians, and how far the whole is from its own."""
    columns = ("sent", "answered", "milliseconds", "10% to 90%", "processor", *STAGES, "rest")
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for sent in FILES:
        for wanted in FILES:
            results = measured(mock, body(sent, wanted), requests)
            middle = {name: median(each[name] for each in results) for name in results[0]}
            tenths = quantiles((each["total"] for each in results), n=10)
            figures = [f"{middle['total']:.1f}", f"{tenths[0]:.1f} to {tenths[-1]:.1f}"]
            figures += [f"{middle[name]:.1f}" for name in ("processor", *STAGES, "rest")]
            yield f"| {sent} | {wanted} | {' | '.join(figures)} |"


def body(sent: str, wanted: str) -> bytes:
    """A request's body."""
    out = io.BytesIO()
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 256, 256))
    photo.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS).save(out, sent, **FILES[sent])
    fields = {
        "init_image": base64.b64encode(out.getvalue()).decode(),
        "scale": 2,
        "output_image_encoding": wanted.lower(),
    }
    return json.dumps(fields).encode()


def measured(mock: Child, body: bytes, requests: int) -> list[Result]:
    """What so many requests took, one after the other on one connection."""
    connection = connected(mock)
    for _ in range(WARM_UP):
        asked(connection, body)
    before_s = mock.processor_seconds()
    results = [asked(connection, body) for _ in range(requests)]
    processor = 1000 * (mock.processor_seconds() - before_s) / requests
    return [{**result, "processor": processor} for result in results]


def connected(mock: Child) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(mock.url.removeprefix("http://"), timeout=60)


def asked(connection: http.client.HTTPConnection, body: bytes) -> Result:
    """What one request took, from its first byte to the last of its answer."""
    headers = {"Authorization": "Bearer mock-token", "Content-Type": "application/json"}
    began_s = time.perf_counter()
    connection.request("POST", "/upscaling", body, headers)
    answer = connection.getresponse()
    answer.read()
    total = 1000 * (time.perf_counter() - began_s)
    assert answer.status == 200
    timing = answer.headers["Server-Timing"].split(", ")
    stages = {name: float(text) for name, _, text in (each.partition(";dur=") for each in timing)}
    return {"total": total, **stages, "rest": total - sum(stages.values())}


if __name__ == "__main__":
    main()
