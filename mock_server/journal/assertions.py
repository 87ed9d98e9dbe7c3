"""Whether the mock was called as expected, and if not, what the nearest call had instead."""

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

OTHERS: Final = ("headers", "status", "fault", "times")
"""What can be expected besides the fields of a request."""
FIELDS: Final = tuple(UpscalingRequest.model_fields)
SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Difference(NamedTuple):
    """What is not as expected of a call: what it is about, what was expected, and what was."""

    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, but {self.found}"


def check_called(calls: Sequence[Entry], expected: Mapping[str, Any]) -> None:
    """Raise AssertionError unless one of `calls` is as expected, or as many as `times` says.

    Only what is expected is looked at. Raises TypeError for what no request has.
    """
    __tracebackhide__ = True  # to pytest: who called it is what matters
    unknown = [name for name in expected if name not in (*FIELDS, *OTHERS)]
    if unknown:
        known = ", ".join((*FIELDS, *OTHERS))
        raise TypeError(f"no request has {', '.join(unknown)}; what can be expected: {known}")
    wanted = {name: value for name, value in expected.items() if name != "times"}
    differences = [list(_differences(call, wanted)) for call in calls]
    found, times = sum(not each for each in differences), expected.get("times")
    if found == times or (times is None and found):
        return
    raise AssertionError("\n".join(_told(calls, differences, wanted, found, times)))


def check_not_called(calls: Sequence[Entry]) -> None:
    """Raise AssertionError if there is a call."""
    __tracebackhide__ = True
    if calls:
        raise AssertionError("\n".join(["expected no call, but there was:", *map(_line, calls)]))


def _told(
    calls: Sequence[Entry],
    differences: list[list[Difference]],
    wanted: Mapping[str, Any],
    found: int,
    times: int | None,
) -> Iterator[str]:
    """What is said about calls that are not as they were expected."""
    expected = "a call" if times is None else f"{times} calls"
    yield f"expected {expected} like that, and {found} of {len(calls)} were"
    misses = [(len(each), -number) for number, each in enumerate(differences) if each]
    if times is None or found < times:
        if misses:
            nearest = -min(misses)[1]
            yield f"the nearest other is {_line(calls[nearest])}"
            yield from (f"  {difference}" for difference in differences[nearest])
            same = [name for name in wanted if name not in _names(differences[nearest])]
            if same:
                yield f"  as expected: {', '.join(same)}"
    else:
        yield "those were:"
        yield from (_line(call) for call, each in zip(calls, differences, strict=True) if not each)


def _names(differences: list[Difference]) -> set[str]:
    return {difference.name.partition(" ")[0] for difference in differences}


def _line(call: Entry) -> str:
    """A call in short."""
    answer = "no answer" if call.status is None else str(call.status)
    fault = f", fault {call.fault}" if call.fault else ""
    return f"request {call.number}: {call.method} {call.path} -> {answer}{fault}"


def _differences(call: Entry, wanted: Mapping[str, Any]) -> Iterator[Difference]:
    for name, value in wanted.items():
        if name == "headers":
            yield from _header_differences(call, value)
        elif name in ("status", "fault"):
            found = getattr(call, name)
            if found != value:
                yield Difference(name, repr(value), f"was {found!r}")
        elif name == "init_image" and value is not None:
            yield from _image_differences(call, value)
        else:
            yield from _field_differences(call, name, value)


def _field_differences(call: Entry, name: str, value: Any) -> Iterator[Difference]:  # noqa: ANN401
    """How a field is not as expected; None stands for one that was not sent, or as null."""
    sent = call.fields or {}
    found = sent.get(name)
    # True is 1 in Python, and another value in JSON.
    if found == value and isinstance(found, bool) == isinstance(value, bool):
        return
    expected = "not to be sent" if value is None else repr(value)
    if call.fields is None:
        yield Difference(name, expected, f"no JSON object was read ({call.body_bytes} bytes)")
    elif found is None:
        default = UpscalingRequest.model_fields[name].default
        also = "" if default is None else f" (its default is {str(default)!r})"
        yield Difference(name, expected, f"was not sent{also}")
    else:
        yield Difference(name, expected, f"was {found!r}")


def _header_differences(call: Entry, wanted: Mapping[str, str | None]) -> Iterator[Difference]:
    for name, value in wanted.items():
        found = call.headers.get(name.lower())
        label = f"headers {name}"
        if name.lower() == "authorization" and found is not None and value is not None:
            if sha256(value.encode()) != call.authorization_sha256:
                yield Difference(label, "another value", f"was {found!r} (which is not kept)")
        elif found != value:
            expected = "not to be sent" if value is None else repr(value)
            yield Difference(label, expected, "was not sent" if found is None else f"was {found!r}")


def _image_differences(call: Entry, wanted: Any) -> Iterator[Difference]:  # noqa: ANN401  see below
    """How the picture is not `wanted`: a file (bytes, or its path), its SHA-256, or its pixels."""
    found = (call.fields or {}).get("init_image")
    if not isinstance(found, dict):
        expected = _in_words(wanted)
        was = "was not sent" if found is None else f"was {found!r}"
        yield Difference("init_image", expected, was)
    elif isinstance(wanted, Image.Image):
        yield from _pixel_differences(call, wanted)
    elif _digest(wanted) != found.get("sha256"):
        yield Difference("init_image", _in_words(wanted), f"was {_sent(found)}")


def _pixel_differences(call: Entry, wanted: Image.Image) -> Iterator[Difference]:
    """How the pixels of a call's picture are not `wanted`, be they in whichever file format."""
    if call.file is None:
        yield Difference("init_image", _in_words(wanted), "its file is not kept any more")
        return
    out = io.BytesIO()
    wanted.save(out, "PNG")
    ours, theirs = read_header(out.getvalue()).pixels(), read_header(call.file).pixels()
    if ours.shape != theirs.shape:
        found = f"had {theirs.shape[1]}x{theirs.shape[0]} pixels, {theirs.shape[2]} channels"
        yield Difference("init_image", _in_words(wanted), found)
    elif not np.array_equal(ours, theirs):
        part = np.any(ours != theirs, axis=2).mean()
        yield Difference("init_image", _in_words(wanted), f"{part:.1%} of its pixels were others")


def _digest(wanted: Any) -> str:  # noqa: ANN401  one of several kinds
    """The SHA-256 of the file that is wanted; raises TypeError for what stands for none."""
    if isinstance(wanted, str) and SHA256.fullmatch(wanted):
        return wanted
    if isinstance(wanted, str | Path):
        return sha256(Path(wanted).read_bytes())
    if isinstance(wanted, bytes):
        return sha256(wanted)
    raise TypeError("init_image is bytes, a path, a picture of Pillow's, or a SHA-256 in hex")


def _in_words(wanted: Any) -> str:  # noqa: ANN401  one of several kinds
    if isinstance(wanted, Image.Image):
        return f"a picture of {wanted.width}x{wanted.height} pixels"
    if isinstance(wanted, str) and SHA256.fullmatch(wanted):
        return f"a file of SHA-256 {wanted[:12]}..."
    file = wanted if isinstance(wanted, bytes) else Path(wanted).read_bytes()
    return f"a file of {len(file)} bytes, SHA-256 {sha256(file)[:12]}..."


def _sent(found: Mapping[str, Any]) -> str:
    """The picture of a call in words."""
    if "sha256" not in found:
        return "no base64"
    size = f", {found['width']}x{found['height']} {found['format']}" if "width" in found else ""
    return f"a file of {found['bytes']} bytes, SHA-256 {found['sha256'][:12]}...{size}"
