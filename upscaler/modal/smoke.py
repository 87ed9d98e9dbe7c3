"""Tries a deployment on Modal, as its clients would, and prints a report in Markdown.

    UPSCALER_TOKEN=... python -m upscaler.modal.smoke https://WORKSPACE--octo-upscaler-web.modal.run

With `--redeploy` it then asks for a `modal deploy` in another terminal, and sends a picture every
two seconds meanwhile.

What depends on Modal itself cannot be tested without an account: cold starts, what its proxy does
with slow answers, and how it treats those who hang up. Ten minutes and less than a dollar show it:
about fifty pictures on an L4, and a few minutes of idle containers. Wait until the service has been
idle for some minutes, so that the first answer is a cold start's.

The exit status is 0 if all checks passed, 1 if one failed, and 2 for a usage error.
"""

import argparse
import base64
import io
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2
import numpy as np
from PIL import Image

from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER
from upscaler.api.limits import MAX_OUTPUT_PX
from upscaler.modal.config import Deployment

TOKEN_ENV: Final = "UPSCALER_TOKEN"  # noqa: S105  the name of a variable
HANG_UP_S: Final = 0.5
"""After how many seconds without a byte a client hangs up."""
PATIENCE_S: Final = 600.0
"""For each part of an answer."""
SILENCE_S: Final = 30.0
"""Beyond which many proxies and clients give up on an answer."""
REFUSED_S: Final = 5.0
"""Beyond which an answer that needs no GPU has probably waited for one, or in line."""
HICCUP_S: Final = 2.0
"""By how much an answer may be late for no reason of the deployment's, such as a busy network."""
POLL_PAUSE_S: Final = 0.5
REDEPLOY_S: Final = 180.0
REDEPLOY_PAUSE_S: Final = 2.0
MAX_POLL_BYTES: Final = 2000
"""A poll has a status and at most two URLs."""
MAX_REDIRECTS: Final = 20


@dataclass(frozen=True)
class Sizes:
    """The pictures that are sent: sides in pixels and scales, and how many are sent at once."""

    usual: tuple[int, int] = (512, 4)
    slow: tuple[int, int] = (1024, 4)
    largest: tuple[int, int] = (MAX_OUTPUT_PX // 4, 4)
    crowd: int = 24
    warm: int = 5


@dataclass(frozen=True)
class Answer:
    """A response, and when its parts came, in seconds since the request was sent."""

    status: int
    headers: httpx2.Headers
    body: bytes
    arrived_s: tuple[float, ...]
    redirects: int

    @property
    def seconds(self) -> float:
        return self.arrived_s[-1]

    @property
    def longest_silence_s(self) -> float:
        return max(
            later - sooner
            for sooner, later in zip((0.0, *self.arrived_s), self.arrived_s, strict=False)
        )

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever came
        return json.loads(self.body)

    def require(self, status: int) -> "Answer":
        """Return this; raises Failed unless the response has this status."""
        if self.status != status:
            raise Failed(
                f"{self.status} in place of {status}: {self.body[:300].decode(errors='replace')}"
            )
        return self


class Failed(Exception):
    """A check that did not pass, and why."""


@dataclass
class Smoke:
    """The checks of the deployment at `url`, in the order in which they are run."""

    url: str
    token: str = field(repr=False)
    sizes: Sizes = Sizes()
    containers: int = Deployment.max_containers
    """UPSCALER_MAX_CONTAINERS of the deployment."""
    redeploy_s: float = 0.0
    """For how long pictures are sent during a redeploy."""
    warm_s: float = 0.0
    """What a picture of the usual size takes, once a container is there."""

    def __post_init__(self) -> None:
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.Client(base_url=self.url, timeout=PATIENCE_S, limits=limits)

    def close(self) -> None:
        self._client.close()

    @property
    def checks(self) -> dict[str, Callable[[], str]]:
        """Each returns what was seen, and raises Failed."""
        redeploy = {"a redeploy meanwhile": self.redeploy} if self.redeploy_s else {}
        return {
            "the front starts": self.front_starts,
            "refusals and dry runs need no GPU": self.refusals,
            "a GPU starts, and its first picture comes": self.first_picture,
            "a warm picture": self.warm_pictures,
            "hanging up": self.hanging_up,
            "an asynchronous picture, and its polls": self.asynchronous,
            "more pictures than GPUs": self.crowd,
            "the largest answer": self.largest,
            **redeploy,
        }

    def front_starts(self) -> str:
        first = self._get("/livez").require(200)
        again = self._get("/livez").require(200)
        return f"{first.seconds:.2f} s, then {again.seconds:.3f} s"

    def refusals(self) -> str:
        asked: dict[str, tuple[dict[str, Any], dict[str, str], int]] = {
            "without a token": ({}, {"Authorization": ""}, 401),
            "without a size": ({"init_image": picture(256)}, {}, 422),
            "dry run": ({"init_image": picture(256), "scale": 2}, {DRY_RUN_HEADER: "1"}, 200),
        }
        told = []
        for name, (fields, headers, status) in asked.items():
            seconds = [self._post(fields, headers).require(status).seconds for _ in range(3)]
            told.append(f"{name} {max(seconds):.2f} s")
            if max(seconds) > REFUSED_S:
                raise Failed(f"too slow: {told[-1]}")
        return ", ".join(told)

    def first_picture(self) -> str:
        answer = self._picture(*self.sizes.usual)
        beats = len(answer.arrived_s)
        if answer.longest_silence_s > SILENCE_S:
            raise Failed(
                f"nothing came for {answer.longest_silence_s:.1f} s, of {answer.seconds:.1f} s in "
                f"all, so that clients give up; {answer.redirects} redirects"
            )
        return (
            f"{answer.seconds:.1f} s, first byte after {answer.arrived_s[0]:.1f} s, {beats} parts"
        )

    def warm_pictures(self) -> str:
        answers = [self._picture(*self.sizes.usual) for _ in range(self.sizes.warm)]
        self.warm_s = statistics.median(answer.seconds for answer in answers)
        timing = answers[-1].headers.get("Server-Timing", "no Server-Timing")
        return f"median {self.warm_s:.2f} s ({timing})"

    def hanging_up(self) -> str:
        """Pictures of clients that are gone hold up nobody.

        As many hang up as would keep all containers at work for three pictures' time.
        """
        slow_s = self._picture(*self.sizes.slow).seconds
        fields = {"init_image": picture(self.sizes.slow[0]), "scale": self.sizes.slow[1]}
        gone = 3 * self.containers
        with ThreadPoolExecutor(gone) as threads:
            tuple(threads.map(self._hang_up, [fields] * gone))
        after = self._picture(*self.sizes.usual)
        told = (
            f"{gone} hung up, on pictures of {slow_s:.1f} s; the next one took "
            f"{after.seconds:.1f} s, {self.warm_s:.1f} s before"
        )
        if after.seconds > self.warm_s + 2 * slow_s + HICCUP_S:
            raise Failed(told)
        return told

    def _hang_up(self, fields: dict[str, Any]) -> None:
        with suppress(httpx2.ReadTimeout):
            self._post(fields, {}, httpx2.Timeout(PATIENCE_S, read=HANG_UP_S))

    def asynchronous(self) -> str:
        side, scale = self.sizes.usual
        fields = {"init_image": picture(side), "scale": scale}
        started = self._post(fields, {ASYNC_HEADER: "1"}).require(200).json
        if urlsplit(started["poll_url"])[:2] != urlsplit(self.url)[:2]:
            raise Failed(f"the poll_url leads elsewhere: {started['poll_url']}")
        seen: list[str] = []
        polls: list[Answer] = []
        while not seen or seen[-1] != "completed":
            polls.append(self._get(started["poll_url"]).require(200))
            status = polls[-1].json["status"]
            seen += [] if seen[-1:] == [status] else [status]
            if len(polls) * POLL_PAUSE_S > PATIENCE_S:
                raise Failed(f"not completed after {len(polls)} polls: {', '.join(seen)}")
            time.sleep(POLL_PAUSE_S)
        check_picture(self._get(polls[-1].json["response_url"]).require(200), scale * side)
        if max(len(poll.body) for poll in polls) > MAX_POLL_BYTES:
            raise Failed("a poll is as large as a result")
        median_s = statistics.median(poll.seconds for poll in polls)
        return f"{', '.join(seen)}; {len(polls)} polls, median {median_s:.2f} s"

    def crowd(self) -> str:
        """Whoever waits is told so in time: by the beginning of an answer, or by a 503."""
        fields = {"init_image": picture(self.sizes.slow[0]), "scale": self.sizes.slow[1]}
        with ThreadPoolExecutor(self.sizes.crowd + 1) as threads:
            waiting = [threads.submit(self._post, fields, {}) for _ in range(self.sizes.crowd)]
            alive = [self._get("/livez").require(200).seconds for _ in range(10)]
            answers = [each.result() for each in waiting]
        busy = [answer for answer in answers if answer.status == 503]
        if missing := [answer for answer in busy if "Retry-After" not in answer.headers]:
            raise Failed(f"{len(missing)} 503 without Retry-After")
        made = [answer for answer in answers if answer not in busy]
        for answer in made:
            check_picture(answer.require(200), self.sizes.slow[0] * self.sizes.slow[1])
        silence_s = max(answer.longest_silence_s for answer in answers)
        redirects = sum(answer.redirects for answer in answers)
        told = (
            f"{len(made)} made, {len(busy)} told to come again, the last after "
            f"{max(answer.seconds for answer in answers):.1f} s, longest silence "
            f"{silence_s:.1f} s, {redirects} redirects, /livez {max(alive):.2f} s at most"
        )
        if silence_s > SILENCE_S:
            raise Failed(f"clients give up: {told}")
        if max(alive) > REFUSED_S:
            raise Failed(f"the front does not answer: {told}")
        return told

    def largest(self) -> str:
        answer = self._picture(*self.sizes.largest)
        return f"{len(answer.body) / 1e6:.0f} MB of JSON in {answer.seconds:.1f} s"

    def redeploy(self) -> str:
        sys.stderr.write(f"Run `modal deploy modal_app.py` now, within {self.redeploy_s:g} s.\n")
        began = self._started()
        seconds: list[float] = []
        ends_s = time.monotonic() + self.redeploy_s
        while time.monotonic() < ends_s:
            seconds.append(self._picture(*self.sizes.usual).seconds)
            time.sleep(REDEPLOY_PAUSE_S)
        told = f"{len(seconds)} pictures, the slowest after {max(seconds):.1f} s"
        if self._started() == began:
            raise Failed(f"nothing was redeployed: {told}, from the process that was there before")
        return told

    def _started(self) -> str:
        """When the process that answers was started."""
        said = self._get("/metrics").require(200).body.decode()
        found = re.search(r"^process_start_time_seconds (.+)$", said, re.MULTILINE)
        if not found:
            raise Failed("the metrics do not say when their process was started")
        return found[1]

    def _picture(self, side: int, scale: int) -> Answer:
        fields = {"init_image": picture(side), "scale": scale}
        answer = self._post(fields, {}).require(200)
        check_picture(answer, side * scale)
        return answer

    def _post(
        self, fields: dict[str, Any], headers: dict[str, str], timeout: httpx2.Timeout | None = None
    ) -> Answer:
        return self._send("POST", "/upscaling", fields, headers, timeout)

    def _get(self, url: str) -> Answer:
        return self._send("GET", url, None, {}, None)

    def _send(
        self,
        method: str,
        url: str,
        fields: dict[str, Any] | None,
        headers: dict[str, str],
        timeout: httpx2.Timeout | None,
    ) -> Answer:
        """A response behind all redirects, of which Modal's proxy sends one each 150 seconds."""
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        began_s = time.monotonic()
        arrived_s: list[float] = []
        for redirects in range(MAX_REDIRECTS):
            with self._client.stream(
                method, url, json=fields, headers=headers, timeout=timeout or PATIENCE_S
            ) as response:
                body = bytearray()
                for part in response.iter_raw():
                    arrived_s.append(time.monotonic() - began_s)
                    body += part
                arrived_s.append(time.monotonic() - began_s)
                if not response.is_redirect:
                    return Answer(
                        response.status_code,
                        response.headers,
                        bytes(body),
                        tuple(arrived_s),
                        redirects,
                    )
            method, fields = "GET", None
            url = urljoin(str(response.url), response.headers["Location"])
            if urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                raise Failed(f"a redirect leads elsewhere, where the token is not sent: {url}")
        raise Failed(f"{MAX_REDIRECTS} redirects, and no answer")


def picture(side: int) -> str:
    """A square PNG of noise that no filter makes small, in base64."""
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def check_picture(answer: Answer, side: int) -> None:
    """Raises Failed unless the response has a picture of this size."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(answer.json["image_b64"], validate=True)))
        image.load()
    except (ValueError, KeyError, OSError) as error:
        raise Failed(f"no picture came: {error!r}") from error
    if image.size != (side, side):
        raise Failed(f"the picture has {image.width}x{image.height} pixels, not {side}x{side}")


def report(smoke: Smoke, say: Callable[[str], None]) -> bool:
    """Run all checks and say their table, line by line; return whether all passed."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    say(f"octo-upscaler {version('octo-upscaler')} on Modal, {now}\n")
    say("| check | result | what was seen |\n|---|---|---|")
    passed = True
    for name, check in smoke.checks.items():
        try:
            result, seen = "passed", check()
        except (Failed, httpx2.HTTPError, KeyError, ValueError) as error:
            result, seen = "**failed**", str(error) if isinstance(error, Failed) else repr(error)
            passed = False
        cell = seen.replace(smoke.token, "$TOKEN").replace("|", r"\|").replace("\n", " ")
        say(f"| {name} | {result} | {cell} |")
    return passed


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report on the deployment that `argv` names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m upscaler.modal.smoke", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("url", help="the deployment's URL, as `modal deploy` has printed it")
    parser.add_argument("--containers", type=int, default=Deployment.max_containers,
        help="UPSCALER_MAX_CONTAINERS of the deployment (default %(default)s)")  # fmt: skip
    parser.add_argument("--redeploy", action="store_true", help="ask for a redeploy at the end")
    args = parser.parse_args(argv)
    url = args.url.rstrip("/")
    token = os.environ.get(TOKEN_ENV, "").partition(",")[0].strip()
    if urlsplit(url).scheme not in ("http", "https"):
        parser.error(f"{url} is not a URL such as https://WORKSPACE--octo-upscaler-web.modal.run")
    if not token:
        parser.error(f"the deployment's token is expected in the variable {TOKEN_ENV}")
    redeploy_s = REDEPLOY_S if args.redeploy else 0.0
    smoke = Smoke(url, token, containers=args.containers, redeploy_s=redeploy_s)
    try:
        return 0 if report(smoke, lambda line: print(line, flush=True)) else 1  # noqa: T201
    finally:
        smoke.close()


if __name__ == "__main__":
    sys.exit(main())
