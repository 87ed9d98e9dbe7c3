"""What can go wrong on purpose, in words: faults, and sequences of them.

    fault     part+part...      latency=0.2+429
    sequence  step,step...      429x2,ok
    step      fault, faultxN for N requests, or fault x* for all that come

Each text has one meaning and each fault one text, so that what is read can be told again.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, NamedTuple

HEADER: Final = "X-Mock-Fault"
"""The fault of this one request."""
STATUSES: Final = (401, 404, 408, 413, 429, 500, 502, 503, 504)
"""What can be answered instead: the API's refusals that are no fault of the request itself, and
what proxies say when they reach nobody."""
RETRY_AFTER_S: Final = {429: 1, 503: 1}
"""The answers that say when to come again, and when they do unless they are told."""
WORDS: Final = {
    "timeout": "nothing is answered until the client hangs up",
    "303": "a redirect to where the answer is, as from Modal's proxy after 150 s",
    "reset": "the connection is reset in the middle of the body",
    "truncated": "the connection ends in the middle of the body",
    "malformed": "the body cannot be read as JSON, or as a picture if it is a file",
    "bad-base64": "image_b64 has a character that base64 has not",
    "wrong-size": "the picture is one pixel narrower than it should be",
    "wrong-encoding": "the picture is a JPEG instead of a PNG, or the other way round",
    "removed-for-safety": "removed_for_safety is true and image_b64 is null",
}
"""The faults without a value, in the order in which they are written, and what they do."""
INSTEAD: Final = ("timeout", "303")
"""Those that stand in place of an answer, as a status does."""
ENDS: Final = ("reset", "truncated")
OF_RESULTS: Final = ("bad-base64", "removed-for-safety")
"""Those that an asynchronous inference has when its result is fetched."""
DISTRIBUTIONS: Final = {"fixed": 1, "uniform": 2, "normal": 2}
"""How a latency is drawn, and of how many numbers of seconds."""
MAX_LATENCY_S: Final = 3600
MAX_TIMES: Final = 999_999
POSSIBLE: Final = (
    f"ok, {', '.join(map(str, STATUSES))}, 429:retry-after=7, {', '.join(WORDS)}, latency=0.2, "
    "latency=uniform:0.1:0.5, latency=normal:0.2:0.05, drip=1000"
)

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_STATUS: Final = re.compile(r"([0-9]{3})(?::retry-after=([0-9]{1,5}))?", re.ASCII)
_STEP: Final = re.compile(r"(.+?)(?:x([1-9][0-9]{0,5}|\*))?", re.ASCII)


class FaultError(ValueError):
    """A text is no fault, no sequence or no probability; the message says what would be one."""


@dataclass(frozen=True)
class Latency:
    """How long an answer is held back: `distribution` of `numbers` of seconds."""

    distribution: str
    numbers: tuple[float, ...]

    def __str__(self) -> str:
        numbers = ":".join(map(_shown, self.numbers))
        return numbers if self.distribution == "fixed" else f"{self.distribution}:{numbers}"

    def drawn(self, random: Random) -> float:
        """The seconds for one request."""
        first, *rest = self.numbers
        if self.distribution == "uniform":
            return random.uniform(first, rest[0])
        if self.distribution == "normal":
            return min(max(0.0, random.gauss(first, rest[0])), float(MAX_LATENCY_S))
        return first


@dataclass(frozen=True)
class Fault:
    """All that goes wrong with one request; without anything it is `ok`.

    `status` is answered instead, with `retry_after_s` if it is one that says so; `drip` is how many
    bytes of the body come in a second; and `words` are of `WORDS`.
    """

    latency: Latency | None = None
    status: int | None = None
    retry_after_s: int | None = None
    drip: float | None = None
    words: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = [word for word in WORDS if word in self.words]
        if self.latency:
            parts.insert(0, f"latency={self.latency}")
        if self.status:
            usual = self.retry_after_s == RETRY_AFTER_S.get(self.status)
            parts.append(
                f"{self.status}" if usual else f"{self.status}:retry-after={self.retry_after_s}"
            )
        if self.drip:
            parts.append(f"drip={_shown(self.drip)}")
        return "+".join(parts) or "ok"

    @property
    def of_result(self) -> "Fault":
        """What of it an asynchronous inference has when its result is fetched."""
        return Fault(words=self.words.intersection(OF_RESULTS))


OK: Final = Fault()
current: Final[ContextVar[Fault]] = ContextVar("fault", default=OK)
"""The fault of the request that is being answered, in all tasks that work for it."""


class Step(NamedTuple):
    """A fault for so many requests in a row, or for all that come if `times` is None."""

    fault: Fault
    times: int | None

    def __str__(self) -> str:
        behind = {None: "x*", 1: ""}.get(self.times, f"x{self.times}")
        return f"{self.fault}{behind}"


def parse_fault(text: str) -> Fault:
    """The fault in `text`; raises FaultError with what is possible."""
    fault = OK
    for part in text.split("+"):
        fault = _with(fault, part.strip())
    instead: list[str] = [word for word in INSTEAD if word in fault.words]
    if fault.status:
        instead.append(str(fault.status))
    for names in (instead, [word for word in ENDS if word in fault.words]):
        if len(names) > 1:
            raise FaultError(f"{' and '.join(names)} exclude each other")
    return fault


def parse_sequence(text: str) -> tuple[Step, ...]:
    """The steps in `text`; raises FaultError."""
    steps = tuple(_step(step.strip()) for step in text.split(","))
    if any(step.times is None for step in steps[:-1]):
        raise FaultError("what comes behind x* would never come")
    return steps


def in_words(steps: tuple[Step, ...]) -> str:
    """The text of a sequence."""
    return ",".join(map(str, steps))


def _step(text: str) -> Step:
    match = _STEP.fullmatch(text)
    if not match:
        raise _unknown(text)
    fault, times = match.groups(default="1")
    return Step(parse_fault(fault), None if times == "*" else int(times))


def _with(fault: Fault, part: str) -> Fault:
    """`fault` and what `part` says."""
    name, _, value = part.partition("=")
    if part == "ok":
        return fault
    if part in WORDS:
        if part in fault.words:
            raise FaultError(f"{part} is there twice")
        return replace(fault, words=fault.words | {part})
    if match := _STATUS.fullmatch(part):
        return _once(fault, part, **_status(int(match[1]), match[2]))
    if name in VALUES:
        return _once(fault, name, **{name: VALUES[name](value)})
    raise _unknown(part)


def _once(fault: Fault, name: str, **parts: Any) -> Fault:  # noqa: ANN401  of any field
    if any(value is not None and getattr(fault, field) for field, value in parts.items()):
        raise FaultError(f"{name} cannot stand beside {fault}")
    return replace(fault, **parts)


def _status(code: int, retry_after: str | None) -> dict[str, int | None]:
    if code not in STATUSES:
        raise FaultError(f"{code} cannot be answered; what can: {', '.join(map(str, STATUSES))}")
    wait_s = RETRY_AFTER_S.get(code) if retry_after is None else int(retry_after)
    return {"status": code, "retry_after_s": wait_s}


def _latency(value: str) -> Latency:
    first, *rest = value.split(":")
    name, texts = (first, rest) if first in DISTRIBUTIONS else ("fixed", [first, *rest])
    numbers = tuple(map(_number, texts))
    if len(numbers) != DISTRIBUTIONS[name] or max(numbers) > MAX_LATENCY_S:
        raise FaultError(
            f"latency is seconds, up to {MAX_LATENCY_S}: latency=0.2, latency=uniform:0.1:0.5 "
            "(from, to) or latency=normal:0.2:0.05 (mean, deviation)"
        )
    if name == "uniform" and numbers[0] > numbers[1]:
        raise FaultError("latency=uniform:FROM:TO goes from the lower number to the higher")
    return Latency(name, numbers)


def _drip(value: str) -> float:
    rate = _number(value)
    if rate < 1:
        raise FaultError("drip is one byte a second or more: drip=1000")
    return rate


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise FaultError("a number here is like 20 or 0.25")
    return float(text)


VALUES: Final[dict[str, Callable[[str], Any]]] = {"latency": _latency, "drip": _drip}
"""The faults with a value, and how it is read."""


def _shown(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _unknown(text: str) -> FaultError:
    return FaultError(f"there is no fault {text[:40]!r}; what there is: {POSSIBLE}")
