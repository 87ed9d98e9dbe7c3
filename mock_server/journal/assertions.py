"""Assertions about the requests in the journal, with messages that show the closest one."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from mock_server.journal.journal import Entry, sha256
from upscaler.api.request import UpscalingRequest
from upscaler.imaging.decode import read_header

FIELDS: Final = tuple(UpscalingRequest.model_fields)
OTHERS: Final = ("headers", "status", "fault", "times")
"""What can be expected besides the fields of a request."""
SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Difference(NamedTuple):
    """How one thing about a call differs from what was expected."""

    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, but {self.found}"


def check_called(calls: Sequence[Entry], expected: Mapping[str, Any]) -> None:
    """Raise AssertionError unless a call is as expected, or as many calls as `times` says.

    Only what is in `expected` is compared. Raises TypeError for a name that no request has.
    """
    __tracebackhide__ = True  # pytest then shows the caller, which is what matters
    if unknown := [name for name in expected if name not in (*FIELDS, *OTHERS)]:
        known = ", ".join((*FIELDS, *OTHERS))
        raise TypeError(f"unknown {', '.join(unknown)}; what can be expected: {known}")
    wanted = {name: value for name, value in expected.items() if name != "times"}
    differences = [list(_compare(call, wanted)) for call in calls]
    found, times = sum(not each for each in differences), expected.get("times")
    if found != times and (times is not None or not found):
        raise AssertionError("\n".join(_explain(calls, differences, wanted, found, times)))


def check_not_called(calls: Sequence[Entry]) -> None:
    """Raise AssertionError if there is a call."""
    __tracebackhide__ = True
    if calls:
        raise AssertionError("\n".join(["expected no calls, but found:", *map(_summary, calls)]))


def _explain(
    calls: Sequence[Entry],
    differences: list[list[Difference]],
    wanted: Mapping[str, Any],
    found: int,
    times: int | None,
) -> Iterator[str]:
    """Yield the lines of a failed assertion: the closest miss, or the calls that are too many."""
    expected = "a matching call" if times is None else f"{times} matching calls"
    yield f"expected {expected}, but {found} of {len(calls)} matched"
    if times is not None and found > times:
        yield "the matching calls:"
        yield from (
            _summary(call) for call, each in zip(calls, differences, strict=True) if not each
        )
    # Of calls that are equally close, the latest: a retry is usually what a test is about.
    elif misses := [(len(each), -number) for number, each in enumerate(differences) if each]:
        closest = -min(misses)[1]
        yield f"the closest miss is {_summary(calls[closest])}"
        yield from (f"  {difference}" for difference in differences[closest])
        different = {difference.name.partition(" ")[0] for difference in differences[closest]}
        if same := [name for name in wanted if name not in different]:
            yield f"  as expected: {', '.join(same)}"


def _summary(call: Entry) -> str:
    """Return a call in one line."""
    response = "no response" if call.status is None else str(call.status)
    fault = f", fault {call.fault}" if call.fault else ""
    return f"request {call.number}: {call.method} {call.path} -> {response}{fault}"


def _compare(call: Entry, wanted: Mapping[str, Any]) -> Iterator[Difference]:
    for name, value in wanted.items():
        if name == "headers":
            yield from _compare_headers(call, value)
        elif name in ("status", "fault"):
            found = getattr(call, name)
            if found != value:
                yield Difference(name, repr(value), f"was {found!r}")
        elif name == "init_image" and value is not None:
            yield from _compare_image(call, value)
        else:
            yield from _compare_field(call, name, value)


def _compare_field(call: Entry, name: str, value: Any) -> Iterator[Difference]:  # noqa: ANN401
    """Compare a field; None stands for a field that is absent or null."""
    found = (call.fields or {}).get(name)
    # True equals 1 in Python, but not in JSON.
    if found == value and isinstance(found, bool) == isinstance(value, bool):
        return
    expected = "not to be sent" if value is None else repr(value)
    if call.fields is None:
        yield Difference(
            name, expected, f"the body was not a JSON object ({call.body_bytes} bytes)"
        )
    elif found is None:
        default = UpscalingRequest.model_fields[name].default
        hint = "" if default is None else f" (the default is {str(default)!r})"
        yield Difference(name, expected, f"was not sent{hint}")
    else:
        yield Difference(name, expected, f"was {found!r}")


def _compare_headers(call: Entry, wanted: Mapping[str, str | None]) -> Iterator[Difference]:
    for name, value in wanted.items():
        found = call.headers.get(name.lower())
        label = f"headers {name}"
        if name.lower() == "authorization" and found is not None and value is not None:
            if sha256(value.encode()) != call.authorization_sha256:
                yield Difference(label, "another value", f"was {found!r} (the token is not kept)")
        elif found != value:
            expected = "not to be sent" if value is None else repr(value)
            yield Difference(label, expected, "was not sent" if found is None else f"was {found!r}")


def _compare_image(call: Entry, wanted: Any) -> Iterator[Difference]:  # noqa: ANN401  see below
    """Compare the image with a file (bytes or a path), a SHA-256, or an image of Pillow."""
    found = (call.fields or {}).get("init_image")
    if not isinstance(found, dict):
        sent = "was not sent" if found is None else f"was {found!r}"
        yield Difference("init_image", _describe(wanted), sent)
    elif isinstance(wanted, Image.Image):
        yield from _compare_pixels(call, wanted)
    elif _digest(wanted) != found.get("sha256"):
        size = f", {found['width']}x{found['height']} {found['format']}" if "width" in found else ""
        sent = "not valid base64"
        if "sha256" in found:
            sent = f"a file of {found['bytes']} bytes, SHA-256 {found['sha256'][:12]}...{size}"
        yield Difference("init_image", _describe(wanted), f"was {sent}")


def _compare_pixels(call: Entry, wanted: Image.Image) -> Iterator[Difference]:
    """Compare the pixels of the image, whichever file formats the two have."""
    if call.file is None:
        yield Difference("init_image", _describe(wanted), "its file is no longer kept")
        return
    # Both through the service's decoder, so that modes and colour profiles are treated alike.
    out = io.BytesIO()
    wanted.save(out, "PNG")
    expected, found = read_header(out.getvalue()).pixels(), read_header(call.file).pixels()
    if expected.shape != found.shape:
        sent = f"was {found.shape[1]}x{found.shape[0]} pixels, {found.shape[2]} channels"
        yield Difference("init_image", _describe(wanted), sent)
    elif not np.array_equal(expected, found):
        part = np.any(expected != found, axis=2).mean()
        yield Difference("init_image", _describe(wanted), f"{part:.1%} of its pixels differ")


def _digest(wanted: Any) -> str:  # noqa: ANN401  checked here
    """Return the SHA-256 of the expected file; raises TypeError for what is not one."""
    if isinstance(wanted, str) and SHA256.fullmatch(wanted):
        return wanted
    if isinstance(wanted, str | Path):
        return sha256(Path(wanted).read_bytes())
    if isinstance(wanted, bytes):
        return sha256(wanted)
    raise TypeError("init_image must be bytes, a path, an image of Pillow, or a SHA-256 in hex")


def _describe(wanted: Any) -> str:  # noqa: ANN401  what `_digest` takes, or an image
    if isinstance(wanted, Image.Image):
        return f"an image of {wanted.width}x{wanted.height} pixels"
    if isinstance(wanted, str) and SHA256.fullmatch(wanted):
        return f"a file with the SHA-256 {wanted[:12]}..."
    file = wanted if isinstance(wanted, bytes) else Path(wanted).read_bytes()
    return f"a file of {len(file)} bytes, SHA-256 {sha256(file)[:12]}..."
