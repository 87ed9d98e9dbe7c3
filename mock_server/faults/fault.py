"""Faults and sequences of faults, and the text that they are written as.

    fault     part+part...      latency=0.2+429
    sequence  step,step...      429x2,ok
    step      fault, faultxN for N requests, or faultx* for all that follow

Each text has one meaning and each fault one text, so a parsed text can be printed again.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, NamedTuple

HEADER: Final = "X-Mock-Fault"
"""The header with the fault of its own request."""
STATUSES: Final = (401, 404, 408, 413, 429, 500, 502, 503, 504)
"""The statuses that a fault can respond with: the API's errors that do not depend on the request,
and those of a proxy whose upstream does not respond."""
RETRY_AFTER_S: Final = {429: 1, 503: 1}
"""The statuses that have a Retry-After by default, and its value."""
FLAGS: Final = {
    "timeout": "there is no response until the client disconnects",
    "303": "a redirect to the response, as Modal's proxy sends after 150 s",
    "reset": "the connection is reset in the middle of the body",
    "truncated": "the connection is closed in the middle of the body",
    "malformed": "the body is not valid JSON, or not an image if the client accepts one",
    "bad-base64": "image_b64 contains a character that is not in base64",
    "wrong-size": "the image is one pixel narrower than it should be",
    "wrong-encoding": "the image is a JPEG, or a PNG in place of a JPEG",
    "removed-for-safety": "removed_for_safety is true and image_b64 is null",
}
"""The faults without a value, in the order in which they are printed, and what they do."""
REPLACING: Final = ("timeout", "303")
"""The flags that replace the response, as a status does: only one of those can be set."""
BREAKING: Final = ("reset", "truncated")
"""The flags that break the connection: only one of them can be set."""
RESULT_FLAGS: Final = ("bad-base64", "removed-for-safety")
"""The flags that an asynchronous inference keeps until its result is fetched."""
DISTRIBUTIONS: Final = {"fixed": 1, "uniform": 2, "normal": 2}
"""The distributions of a latency, and how many numbers of seconds each needs."""
MAX_LATENCY_S: Final = 3600
SYNTAX: Final = (
    f"ok, {', '.join(map(str, STATUSES))}, 429:retry-after=7, {', '.join(FLAGS)}, latency=0.2, "
    "latency=uniform:0.1:0.5, latency=normal:0.2:0.05, drip=1000"
)
"""All that a fault can be, for error messages."""

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_STATUS: Final = re.compile(r"([0-9]{3})(?::retry-after=([0-9]{1,5}))?", re.ASCII)
_STEP: Final = re.compile(r"(.+?)(?:x([1-9][0-9]{0,5}|\*))?", re.ASCII)


class FaultError(ValueError):
    """A text is not a fault, a sequence or a probability; the message says what is expected."""


@dataclass(frozen=True)
class Latency:
    """How long a response is delayed: `distribution` of `numbers` of seconds."""

    distribution: str
    numbers: tuple[float, ...]

    def __str__(self) -> str:
        numbers = ":".join(map(_format_number, self.numbers))
        return numbers if self.distribution == "fixed" else f"{self.distribution}:{numbers}"

    def draw(self, random: Random) -> float:
        """Return the seconds for one request."""
        first, *rest = self.numbers
        if self.distribution == "uniform":
            return random.uniform(first, rest[0])
        if self.distribution == "normal":
            return min(max(0.0, random.gauss(first, rest[0])), float(MAX_LATENCY_S))
        return first


@dataclass(frozen=True)
class Fault:
    """Everything that goes wrong with one request; a fault without any part is `ok`.

    `status` replaces the response, with the header Retry-After if `retry_after_s` is set. `drip` is
    how many bytes of the body are sent a second, and `flags` are of `FLAGS`.
    """

    latency: Latency | None = None
    status: int | None = None
    retry_after_s: int | None = None
    drip: float | None = None
    flags: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = [flag for flag in FLAGS if flag in self.flags]
        if self.latency:
            parts.insert(0, f"latency={self.latency}")
        if self.status:
            is_default = self.retry_after_s == RETRY_AFTER_S.get(self.status)
            retry_after = "" if is_default else f":retry-after={self.retry_after_s}"
            parts.append(f"{self.status}{retry_after}")
        if self.drip:
            parts.append(f"drip={_format_number(self.drip)}")
        return "+".join(parts) or "ok"

    @property
    def of_result(self) -> "Fault":
        """The part of it that an asynchronous inference keeps until its result is fetched."""
        return Fault(flags=self.flags.intersection(RESULT_FLAGS))


OK: Final = Fault()
current: Final[ContextVar[Fault]] = ContextVar("fault", default=OK)
"""The fault of the request that is being answered, in every task that works for it."""


class Step(NamedTuple):
    """A fault for `times` requests in a row, or for all that follow if that is None."""

    fault: Fault
    times: int | None

    def __str__(self) -> str:
        suffix = {None: "x*", 1: ""}.get(self.times, f"x{self.times}")
        return f"{self.fault}{suffix}"


def parse_fault(text: str) -> Fault:
    """Return the fault that `text` is; raises FaultError."""
    fault = OK
    for part in text.split("+"):
        fault = _add_part(fault, part.strip())
    replacing: list[str] = [flag for flag in REPLACING if flag in fault.flags]
    if fault.status:
        replacing.append(str(fault.status))
    for names in (replacing, [flag for flag in BREAKING if flag in fault.flags]):
        if len(names) > 1:
            raise FaultError(f"{' and '.join(names)} cannot be combined")
    return fault


def parse_sequence(text: str) -> tuple[Step, ...]:
    """Return the steps that `text` is; raises FaultError."""
    steps = []
    for step in map(str.strip, text.split(",")):
        match = _STEP.fullmatch(step)
        if not match:
            raise _unknown(step)
        fault, times = match.groups(default="1")
        steps.append(Step(parse_fault(fault), None if times == "*" else int(times)))
    if any(step.times is None for step in steps[:-1]):
        raise FaultError("steps after x* are never reached")
    return tuple(steps)


def format_sequence(steps: tuple[Step, ...]) -> str:
    """Return the text of a sequence, which `parse_sequence` reads."""
    return ",".join(map(str, steps))


def _add_part(fault: Fault, part: str) -> Fault:
    """Return `fault` with what `part` adds to it."""
    name, _, value = part.partition("=")
    if part == "ok":
        return fault
    if part in FLAGS:
        if part in fault.flags:
            raise FaultError(f"{part} is given twice")
        return replace(fault, flags=fault.flags | {part})
    if match := _STATUS.fullmatch(part):
        status = int(match[1])
        if status not in STATUSES:
            supported = ", ".join(map(str, STATUSES))
            raise FaultError(f"the status {status} is not supported; use one of {supported}")
        retry_after_s = RETRY_AFTER_S.get(status) if match[2] is None else int(match[2])
        return _set_once(fault, part, status=status, retry_after_s=retry_after_s)
    if name in VALUES:
        return _set_once(fault, name, **{name: VALUES[name](value)})
    raise _unknown(part)


def _set_once(fault: Fault, name: str, **values: Any) -> Fault:  # noqa: ANN401  of any field
    if any(value is not None and getattr(fault, field) for field, value in values.items()):
        raise FaultError(f"{name} cannot be combined with {fault}")
    return replace(fault, **values)


def _parse_latency(value: str) -> Latency:
    first, *rest = value.split(":")
    name, texts = (first, rest) if first in DISTRIBUTIONS else ("fixed", [first, *rest])
    numbers = tuple(map(_parse_number, texts))
    if len(numbers) != DISTRIBUTIONS[name] or max(numbers) > MAX_LATENCY_S:
        raise FaultError(
            f"latency is in seconds, up to {MAX_LATENCY_S}: latency=0.2, latency=uniform:0.1:0.5 "
            "(from, to) or latency=normal:0.2:0.05 (mean, standard deviation)"
        )
    if name == "uniform" and numbers[0] > numbers[1]:
        raise FaultError("the first number of latency=uniform:FROM:TO must not be the larger one")
    return Latency(name, numbers)


def _parse_drip(value: str) -> float:
    rate = _parse_number(value)
    if rate < 1:
        raise FaultError("drip must be at least 1 byte per second, such as drip=1000")
    return rate


VALUES: Final[dict[str, Callable[[str], Any]]] = {"latency": _parse_latency, "drip": _parse_drip}
"""The faults with a value, and how it is parsed."""


def _parse_number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise FaultError("expected a number such as 20 or 0.25")
    return float(text)


def _format_number(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _unknown(text: str) -> FaultError:
    return FaultError(f"unknown fault {text[:40]!r}; use one of {SYNTAX}")
