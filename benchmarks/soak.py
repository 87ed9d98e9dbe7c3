"""Twice the load that a service can bear, for long, from good, bad and hung clients (Linux only).

    python -m benchmarks.soak [--minutes 20] [--model NAME] [--side PX]

`upscaler serve` runs in a process of its own, with the trained weights that are installed. Its
capacity is measured with two clients that always wait for an answer, before and after the load, for
a quarter of the time each, but no more than a minute. In between, pictures are asked for at
twice that rate, whether those before were answered or not: of four, two clients wait for the
answer, one watches the events of a job, and one is told by a webhook. As many requests come that
are refused for what they say; and now and then there are clients that stop in the middle of a head,
a body or an answer, or hang up. The jobs that still wait then are all made before the capacity is
measured again.

Each answer with a picture is compared, by its SHA-256, with what `upscaler image` made of the same
picture before. It ends with an error unless every request that was taken on came to its picture,
all others were refused with when to come back, throughput came to `--at-least` of the capacity, and
the memory kept to its bound: what the service holds with its model loaded and nothing to do, what
UPSCALER_QUEUE_MEMORY and UPSCALER_MEMORY allow, and MARGIN.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import http.server
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

import httpx
from PIL import Image

from upscaler.bench.machine import describe
from upscaler.bench.runner import photograph
from upscaler.models import UpscalingModel

MIB: Final = 2**20
TOKEN: Final = "soak-token"  # noqa: S105  of a service of our own, on this machine alone
QUEUE: Final = 8
QUEUE_MEMORY: Final = 320 * MIB
PICTURE_MEMORY: Final = 256 * MIB
MARGIN: Final = 128 * MIB
"""For bodies that are being taken apart, one on each core, and what the allocator keeps."""
OVERLOAD: Final = 2
SERVED: Final = "good: 200"
CLIENTS: Final = 2
"""As many as keep a service busy that makes one picture at a time."""
HUNG_EVERY_S: Final = 4.0
HUNG_FOR_S: Final = 30.0
"""Longer than the service waits for a head; those that hang up do so after a second."""
PATIENCE_S: Final = 300.0
MEASURING_S: Final = 60.0
JOB_PATIENCE_S: Final = 1800.0
"""Jobs are not refused while others wait: those of half the load wait for the rest of it."""
UPSCALER: Final = str(Path(sys.executable).parent / "upscaler")


@dataclass(frozen=True)
class Picture:
    """A request's body, and the SHA-256 of the file that must come of it."""

    body: bytes
    sha256: str


@dataclass
class Found:
    """What a run found. `faults` are what must not be."""

    capacity: list[float] = field(default_factory=list)
    throughput: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    resting_bytes: int = 0
    peak_bytes: int = 0
    descriptors: tuple[int, int] = (0, 0)

    @property
    def share(self) -> float:
        """Throughput under load as a share of the capacity."""
        return self.throughput / (sum(self.capacity) / len(self.capacity))

    @property
    def bound_bytes(self) -> int:
        return self.resting_bytes + QUEUE_MEMORY + PICTURE_MEMORY + MARGIN


@dataclass(frozen=True)
class Service:
    """A running service; `pid` is its process."""

    url: str
    pid: int

    def status_bytes(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition(f"{name}:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class Receiver:
    """Where webhooks go: how often each job was told of, by its id."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.wrong = 0
        self.secret = b""
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}."
                digest = hmac.digest(receiver.secret, signed.encode() + body, "sha256")
                if self.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}":
                    receiver.told[json.loads(body)["response_id"]] += 1
                else:
                    receiver.wrong += 1
                self.send_response_only(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def environment() -> dict[str, str]:
    """That of the service, and of what makes the pictures that it must come to."""
    return {
        **os.environ,
        "UPSCALER_TOKEN": TOKEN,
        "UPSCALER_QUEUE": str(QUEUE),
        "UPSCALER_QUEUE_MEMORY": str(QUEUE_MEMORY),
        "UPSCALER_MEMORY": str(PICTURE_MEMORY),
    }


def pictures(model: UpscalingModel, side: int, folder: Path) -> list[Picture]:
    """Four pictures, each with what `upscaler image` makes of it."""
    photo = Image.open(photograph()).convert("RGB").resize((side, side))
    flips = (None, *list(Image.Transpose)[:3])
    paths = []
    for number, flip in enumerate(flips):
        paths.append(folder / f"{number}.png")
        (photo if flip is None else photo.transpose(flip)).save(paths[-1])
    command = [
        UPSCALER,
        "image",
        *map(str, paths),
        "-o",
        str(folder / "made"),
        "--model",
        model,
        "--quiet",
    ]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    found = []
    for path in paths:
        fields = {
            "init_image": base64.b64encode(path.read_bytes()).decode(),
            "model": model,
            "scale": 4,
        }
        made = (folder / "made" / path.name).read_bytes()
        found.append(Picture(json.dumps(fields).encode(), hashlib.sha256(made).hexdigest()))
    return found


@contextmanager
def served(folder: Path, receiver: Receiver) -> Iterator[Service]:
    """`upscaler serve` on a free port, which may tell `receiver`."""
    variables = environment() | {
        "UPSCALER_DATA": str(folder / "data"),
        "UPSCALER_FETCH_NETWORKS": "127.0.0.0/8",
        "UPSCALER_FETCH_PORTS": str(receiver.port),
    }
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([UPSCALER, "serve", "--port", "0"], stderr=file, env=variables)
    try:
        while not (told := re.search(r"running on (http://[^ \"]+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.05)
        yield Service(told[1], process.pid)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


class Load:
    """Clients of one service; what comes to them is noted in `found`."""

    def __init__(
        self, service: Service, choice: list[Picture], found: Found, receiver: Receiver
    ) -> None:
        self.service = service
        self.receiver = receiver
        self.found = found
        self._pictures = itertools.cycle(choice)
        self._host, _, port = service.url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._hung: list[asyncio.Task[None]] = []
        self._api = httpx.AsyncClient(
            base_url=service.url,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_connections=None),
        )

    async def secret(self) -> bytes:
        """What webhooks are signed with."""
        told = (await self._api.get("/v1/webhooks/secret")).json()["secret"]
        return base64.b64decode(told.removeprefix("whsec_"))

    async def made(self) -> float:
        """How many pictures the service has made."""
        text = (await self._api.get("/metrics")).text
        counts = re.findall(r'upscaler_stage_seconds_count{.*stage="infer"} (.*)', text)
        return sum(map(float, counts))

    @asynccontextmanager
    async def rate(self) -> AsyncIterator[list[float]]:
        """How many pictures a second were made meanwhile, in the list that it gives."""
        told: list[float] = []
        before, began_s = await self.made(), time.monotonic()
        yield told
        told.append((await self.made() - before) / (time.monotonic() - began_s))

    async def closed(self, seconds: float) -> None:
        """Measure the capacity, with clients that wait for each answer before the next."""
        end_s = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end_s:
                await self.good()

        async with self.rate() as told:
            await asyncio.gather(*(client() for _ in range(CLIENTS)))
        self.found.capacity += told

    async def open(self, seconds: float) -> None:
        """Ask for twice as many pictures as can be made, and send as much that is wrong.

        As can be made by what was measured before or, where the machine has become faster since,
        by what is being made.
        """
        before, began_s = self.found.answers[SERVED], time.monotonic()
        turns, hung_s = itertools.count(), began_s
        asking: list[asyncio.Task[None]] = []
        async with self.rate() as told:
            for number in itertools.count():
                elapsed_s = time.monotonic() - began_s
                if elapsed_s > seconds:
                    break
                good = (self.good, self.watched, self.good, self.told)[number % 4]
                asking += map(asyncio.create_task, (good(), self.bad(number)))
                if began_s + elapsed_s > hung_s:
                    hung_s += HUNG_EVERY_S
                    self._hung.append(asyncio.create_task(self.hung(next(turns))))
                served = (self.found.answers[SERVED] - before) / max(1, elapsed_s)
                await asyncio.sleep(1 / (OVERLOAD * max(self.found.capacity[0], served)))
        self.found.throughput = told[0]
        await asyncio.gather(*asking)

    async def good(self) -> None:
        """Ask for a picture, which must come, or when to ask again."""
        picture = next(self._pictures)
        try:
            answer = await self._api.post("/upscaling", content=picture.body)
        except httpx.HTTPError as error:
            self.found.faults.append(f"a picture was lost: {error!r}")
            return
        self.found.answers[f"good: {answer.status_code}"] += 1
        if answer.status_code == 200:
            file = base64.b64decode(answer.json()["image_b64"])
            if hashlib.sha256(file).hexdigest() != picture.sha256:
                self.found.faults.append("a picture was wrong")
        elif answer.status_code not in (429, 503) or "Retry-After" not in answer.headers:
            self.found.faults.append(f"a picture was refused with {answer.status_code}")

    async def watched(self) -> None:
        """Watch a job until its picture is there."""
        picture = next(self._pictures)
        headers = {"Accept": "text/event-stream", "Idempotency-Key": uuid4().hex}
        last = "{}"
        try:
            async with self._api.stream(
                "POST", "/upscaling", content=picture.body, headers=headers
            ) as answer:
                if answer.status_code != 200:
                    self.found.answers[f"watched: {answer.status_code}"] += 1
                    return
                async for line in answer.aiter_lines():
                    last = line.removeprefix("data: ") if line.startswith("data: ") else last
        except httpx.HTTPError as error:
            self.found.faults.append(f"the events of a job were lost: {error!r}")
            return
        await self.fetch(picture, json.loads(last), "watched")

    async def told(self) -> None:
        """Start a job, and wait until the webhook tells that its picture is there."""
        picture = next(self._pictures)
        headers = {"X-OctoAI-Async": "1", "X-Upscaler-Webhook": self.receiver.url}
        answer = await self._api.post("/upscaling", content=picture.body, headers=headers)
        if answer.status_code != 200:
            self.found.answers[f"told: {answer.status_code}"] += 1
            return
        job_id = answer.json()["response_id"]
        deadline_s = time.monotonic() + JOB_PATIENCE_S
        while not self.receiver.told[job_id]:
            if time.monotonic() > deadline_s:
                self.found.faults.append("a webhook was lost")
                return
            await asyncio.sleep(0.2)
        await self.fetch(picture, {"response_url": f"/v1/responses/{job_id}"}, "told")

    async def fetch(self, picture: Picture, told: dict[str, str], how: str) -> None:
        """Fetch the result of a job, which must be right, and remove it."""
        if "response_url" not in told:
            self.found.faults.append(f"a job was lost: {told}")
            return
        answer = await self._api.get(told["response_url"])
        self.found.answers[f"{how}: {answer.status_code}"] += 1
        if answer.status_code != 200:
            self.found.faults.append(f"a job ended with {answer.status_code}")
            return
        file = base64.b64decode(answer.json()["image_b64"])
        if hashlib.sha256(file).hexdigest() != picture.sha256:
            self.found.faults.append("the picture of a job was wrong")
        await self._api.delete(told["response_url"].replace("responses", "requests"))

    async def bad(self, number: int) -> None:
        """Send what is wrong, by turns in different ways, and be told so."""
        requests = (
            (422, {"content": b'{"scale": 0}'}),
            (401, {"content": b"{}", "headers": {"Authorization": "Bearer wrong"}}),
            (422, {"content": b'{"scale": 2, "init_image": "aGVsbG8="}'}),
            (422, {"content": b"not JSON"}),
        )
        expected, request = requests[number % len(requests)]
        answer = await self._api.post("/upscaling", **request)
        self.found.answers[f"bad: {answer.status_code}"] += 1
        if answer.status_code != expected:
            self.found.faults.append(f"{expected} was due, and {answer.status_code} came")

    async def hung(self, turn: int) -> None:
        """Stop in the middle, by turns of a head, a body and an answer; half of them hang up."""
        picture = next(self._pictures)
        head = (
            f"POST /upscaling HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(picture.body)}\r\n\r\n"
        ).encode()
        whole = head + picture.body
        kinds = (("head", head[:50]), ("body", whole[: len(whole) // 2]), ("answer", whole))
        kind, data = kinds[turn % len(kinds)]
        self.found.answers[f"hung: {kind}"] += 1
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(self._host, self._port)
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(HUNG_FOR_S if turn % 2 else 1)
            writer.transport.abort()
            await reader.read()

    async def end(self) -> None:
        """See that nothing is left of it all, when those that hang have gone, too."""
        await asyncio.gather(*self._hung)
        if left := (await self._api.get("/v1/requests")).json()["requests"]:
            self.found.faults.append(f"{len(left)} jobs are left that nobody knows")
        if twice := [count for count in self.receiver.told.values() if count > 1]:
            self.found.faults.append(f"{len(twice)} webhooks came more than once")
        if self.receiver.wrong:
            self.found.faults.append(f"{self.receiver.wrong} webhooks had a wrong signature")
        deadline_s = time.monotonic() + PATIENCE_S
        idle = re.compile(r"^upscaler_(?:held_bytes|queue_depth) 0\.0$", re.MULTILINE)
        while len(idle.findall((await self._api.get("/metrics")).text)) < 2:
            if time.monotonic() > deadline_s:
                self.found.faults.append("memory or places in line are not given back")
                break
            await asyncio.sleep(0.2)
        await self._api.aclose()


async def loaded(
    service: Service, choice: list[Picture], seconds: float, receiver: Receiver
) -> Found:
    """Put the load on `service` for so many seconds in all, and say what was found."""
    found = Found()
    load = Load(service, choice, found, receiver)
    receiver.secret = await load.secret()
    for _ in choice:
        await load.good()
    found.resting_bytes = service.status_bytes("VmRSS")
    before = service.descriptors()
    service.forget_peak()
    measuring_s = min(seconds / 4, MEASURING_S)
    await load.closed(measuring_s)
    await load.open(seconds - 2 * measuring_s)
    await load.closed(measuring_s)
    await load.end()
    found.peak_bytes = service.status_bytes("VmHWM")
    await asyncio.sleep(1)
    found.descriptors = before, service.descriptors()
    return found


def soak(seconds: float, model: UpscalingModel, side: int) -> Found:
    """Start a service, put it under load for so many seconds in all, and stop it."""
    with tempfile.TemporaryDirectory() as name:
        choice = pictures(model, side, Path(name))
        with Receiver() as receiver, served(Path(name), receiver) as service:
            return asyncio.run(loaded(service, choice, seconds, receiver))


def judged(found: Found, at_least: float) -> list[str]:
    """What is wrong with it, if anything is."""
    faults = [f"{count} times: {fault}" for fault, count in Counter(found.faults).items()]
    if found.share < at_least:
        faults.append(f"throughput fell to {found.share:.0%} of the capacity")
    if found.peak_bytes > found.bound_bytes:
        faults.append("it took more memory than it may")
    if found.descriptors[1] > found.descriptors[0]:
        faults.append("files or sockets stay open")
    if not found.answers["good: 503"]:
        faults.append("nothing was refused: it was no overload")
    return faults


def report(found: Found) -> str:
    """The figures, as a table in Markdown."""
    mib = [round(size / MIB) for size in (found.resting_bytes, found.peak_bytes, found.bound_bytes)]
    rows = {
        "capacity, before and after": ", ".join(f"{rate:.2f}/s" for rate in found.capacity),
        "throughput at twice that": f"{found.throughput:.2f}/s, {found.share:.0%}",
        **{name: str(count) for name, count in sorted(found.answers.items())},
        "memory at rest, at most, bound": ", ".join(f"{size} MiB" for size in mib),
        "open files before and after": "{} and {}".format(*found.descriptors),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, help="in all")
    parser.add_argument("--model", type=UpscalingModel, default=UpscalingModel.ANIMEVIDEO_V3)
    parser.add_argument("--side", type=int, default=384, metavar="PX")
    parser.add_argument("--at-least", type=float, default=0.9, metavar="SHARE")
    args = parser.parse_args()
    machine = describe()
    found = soak(60 * args.minutes, args.model, args.side)
    print(f"{machine.processor}, {machine.cores} cores, {args.model}, {args.minutes:g} minutes\n")
    print(report(found))
    if faults := judged(found, args.at_least):
        raise SystemExit("\n".join(["", *faults]))


if __name__ == "__main__":
    main()
