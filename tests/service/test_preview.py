"""The rows of a result in the events, while it is being made (EXT-4)."""

import base64
import gc
import io
import json
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.image_files import noise
from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, Stepwise, serving
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.service import preview as module
from upscaler.service.events import BEAT_S
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.jobs.memory import MemoryJobStore
from upscaler.service.jobs.store import JobStore
from upscaler.service.preview import MOST_PX, Preview

EVENTS = {"Accept": "text/event-stream, image/png"}


def gradient(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = (255 * rows / height, 255 * columns / width, 127 + 0 * rows)
    return np.stack(planes, 2).astype(np.uint8)


def whole(preview: Preview) -> Pixels:
    return np.concatenate([np.asarray(Image.open(io.BytesIO(s.jpeg))) for s in preview.strips])


@pytest.mark.parametrize("size", [(700, 500), (300, 256), (1030, 64), (90, 2000)])
@pytest.mark.parametrize("height", [1, 37, 10_000])
def test_strips_of_any_height_make_the_whole_picture_small(size: Size, height: int) -> None:
    width, rows = size
    pixels = gradient(rows, width)
    preview = Preview(size)
    for top in range(0, rows, height):
        preview.add(top, pixels[top : top + height])
    fraction = -(-max(size) // MOST_PX)
    small = np.asarray(Image.fromarray(pixels).reduce(fraction)).astype(int)
    assert whole(preview).shape == small.shape
    assert abs(whole(preview) - small).max() < 12
    assert [strip.top % fraction for strip in preview.strips] == [0] * len(preview.strips)
    assert sum(strip.rows for strip in preview.strips) == rows


def test_who_asks_late_gets_the_rows_from_there_on() -> None:
    pixels = gradient(1500, 1500)
    preview = Preview((1500, 1500))
    for top in range(500, 1500, 100):
        preview.add(top, pixels[top : top + 100])
    assert preview.strips[0].top == 501, "the first row of three that are all there"
    small = np.asarray(Image.fromarray(pixels).reduce(3)).astype(int)
    assert abs(whole(preview) - small[167:]).max() < 12


def test_transparent_pixels_are_white_and_a_preview_of_noise_is_small() -> None:
    clear = Preview((40, 30))
    clear.add(0, np.zeros((30, 40, 4), np.uint8))
    assert (whole(clear) == 255).all()
    worst = Preview((512, 512))
    worst.add(0, noise(512, 512, 3))
    assert sum(len(strip.jpeg) for strip in worst.strips) < 160_000


Event = dict[str, Any]


def read(lines: Iterable[str]) -> Iterator[Event]:
    event: Event = {}
    beats = 0
    for line in lines:
        beats += line.startswith(":")
        assert beats < PATIENCE_S / BEAT_S, "nothing comes any more"
        name, _, text = line.partition(": ")
        if name == "data":
            event |= json.loads(text)
        elif name in ("event", "id"):
            event[name] = text
        elif not line and event:
            yield event
            event = {}


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    if request.param == "memory":
        return MemoryJobStore(2**30)
    return DiskJobStore(tmp_path, 2**30, spare_bytes=0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[Preview]":
    """The previews that there are."""
    found: weakref.WeakSet[Preview] = weakref.WeakSet()
    begin = Preview.__init__

    def noting(preview: Preview, size: Size) -> None:
        begin(preview, size)
        found.add(preview)

    monkeypatch.setattr(module.Preview, "__init__", noting)
    return found


def rows_until(events: Iterator[Event], end: int) -> list[Event]:
    found = []
    for event in events:
        if event["event"] == "rows":
            found.append(event)
            if event["top"] + event["rows"] == end:
                return found
    raise AssertionError(f"the events end before row {end}")


def test_rows_come_while_they_are_made_and_again_to_others(
    store: JobStore, made: "weakref.WeakSet[Preview]"
) -> None:
    backend = Stepwise()
    with serving(backend, jobs=store) as api, ThreadPoolExecutor(1) as pool:
        api.timeout = PATIENCE_S
        request: dict[str, Any] = {
            "json": GOOD | {"scale": 2},
            "headers": EVENTS,
            "params": {"preview": 1},
        }
        with api.stream("POST", "/upscaling", **request) as first:
            events = read(first.iter_lines())
            backend.ends.put(64)
            seen = rows_until(events, 64)
            url = seen[0]["events_url"]
            with api.stream("GET", url, params={"preview": 1}) as second:
                others = read(second.iter_lines())
                again = rows_until(others, 64)
                backend.ends.put(100)
                more = rows_until(events, 96)
                assert rows_until(others, 96)[-1] == more[-1]
            with api.stream("GET", url, headers={"Last-Event-ID": seen[-1]["id"]}) as plain:
                after = pool.submit(list, read(plain.iter_lines()))
                resumed = {"Last-Event-ID": more[-1]["id"]}
                with api.stream("GET", url, params={"preview": 1}, headers=resumed) as third:
                    backend.ends.put(10_000)
                    rest = list(read(third.iter_lines()))
                assert {e["event"] for e in after.result()} <= {"progress", "completed"}
            last = list(events)[-1]
        assert [(e["top"], e["rows"], e["width"]) for e in seen] == [
            (top, 32, 608) for top in (0, 32)
        ]
        assert [e["jpeg"] for e in again] == [e["jpeg"] for e in seen]
        tops = [e["top"] for e in rest if e["event"] == "rows"]
        assert tops == list(range(96, 512, 32)), "only those that it did not have"
        assert last["event"] == "completed"
        result = Image.open(io.BytesIO(api.get(last["response_url"]).content))
        small = np.asarray(result.convert("RGB").reduce(2)).astype(int)
        assert abs(strip(seen[1]) - small[16:32]).mean() < 8
        gc.collect()
        assert not made, "they are gone with the job and those who watched it"
        with api.stream("GET", url, params={"preview": 1}) as late:
            assert [e["event"] for e in read(late.iter_lines())] == ["completed"]


def strip(event: Event) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(event["jpeg"]))))


def test_nobody_who_did_not_ask_gets_rows_and_none_are_made(
    made: "weakref.WeakSet[Preview]",
) -> None:
    backend = Stepwise()
    backend.ends.put(10_000)
    with serving(backend) as api:
        for params in ({}, {"preview": "0"}):
            answer: httpx.Response = api.post(
                "/upscaling", json=GOOD, headers=EVENTS, params=params, timeout=PATIENCE_S
            )
            assert {e["event"] for e in read(answer.text.split("\n"))} <= {
                "queued", "progress", "completed",
            }  # fmt: skip
            backend.ends.put(10_000)
    assert not made
