"""Small questions to a service, and what can be seen of its answers."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import httpx
import numpy as np
from PIL import Image

Probe = Callable[[httpx.Client], object]
"""Asks something, and gives back what is the same each time a faultless service is asked."""
Sight = tuple[int, dict[str, str], bytes]
"""What can be seen of an answer: its status, its headers, and its body or a digest of that."""

FLEETING: Final = ("date", "server-timing", "x-user-request-id", "x-mock-rule", "content-length")
"""Headers that are not the same each time, or that only a mock has."""
ASYNC: Final = {"X-OctoAI-Async": "1"}
DRY: Final = {"X-Upscaler-Dry-Run": "1"}
SIZES: Final = ("scale", "output_image_height", "output_image_width")
WORDS: Final = 2000
"""Of a body that is longer than so many bytes, a digest is kept."""


# Pictures


@cache
def file(
    width: int = 300, height: int = 260, kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """A picture's file, whose every corner and side is another."""
    across = np.linspace(0, 240, width)[None, :]
    down = np.linspace(10, 250, height)[:, None]
    squares = (np.arange(width) // 37)[None, :] * (np.arange(height) // 29)[:, None] % 7 * 30
    layers = np.broadcast_arrays(across, down, squares, 255 - (across + down) / 2)
    picture = Image.fromarray(np.stack(layers, axis=-1).astype(np.uint8))
    if mode != "RGBA":
        picture = picture.convert("RGB")
    return saved(picture.convert(mode), kind, **options)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def text(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def turned(orientation: int) -> bytes:
    """A picture that is to be turned, by its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(kind="JPEG", quality=95, exif=exif.tobytes())


# Questions


def fields_of(given: Mapping[str, object]) -> dict[str, object]:
    """`given`, with a usual picture and size where there is none; but none that is an Ellipsis."""
    fields: dict[str, object] = {}
    if "init_image_url" not in given:
        fields["init_image"] = text(file())
    if not any(name in given for name in SIZES):
        fields["scale"] = 1
    fields |= given
    return {name: value for name, value in fields.items() if value is not ...}


def asking(headers: Mapping[str, str] | None = None, /, **fields: object) -> Probe:
    """Ask for a picture."""
    return lambda client: seen(client, upscaled(client, headers, **fields))


def checking(**fields: object) -> Probe:
    """Ask what would come of it, which takes less time."""
    return asking(DRY, **fields)


def sending(body: bytes, **headers: str) -> Probe:
    """Send some body; headers have hyphens for their underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Content-Type": "application/json"} | named
    return lambda client: seen(client, client.post("/upscaling", content=body, headers=sent))


def getting(path: str, method: str = "GET", **headers: str) -> Probe:
    """Ask for something else."""
    return lambda client: seen(client, client.request(method, path, headers=headers))


def with_token(value: str | None) -> Probe:
    """Ask for a picture with this header Authorization, or without one."""
    return without_client_token(
        lambda client: seen(
            client, upscaled(client, {} if value is None else {"Authorization": value})
        )
    )


def without_client_token(probe: Probe) -> Probe:
    """The same, asked without the client's own token."""

    def probing(client: httpx.Client) -> object:
        kept = client.headers.pop("Authorization")
        try:
            return probe(client)
        finally:
            client.headers["Authorization"] = kept

    return probing


def twice(first: Probe, second: Probe | None = None) -> Probe:
    """Ask one thing after the other, or the same again."""
    return lambda client: (first(client), (second or first)(client))


def request_id(probe_headers: Mapping[str, str], path: str = "/healthcheck") -> Probe:
    """What X-User-Request-ID says that was sent one; or only whether there is one."""

    def probing(client: httpx.Client) -> object:
        told = client.get(path, headers=probe_headers).headers.get("X-User-Request-ID")
        return told == probe_headers.get("X-User-Request-ID"), told is not None

    return probing


def ids_differ(client: httpx.Client) -> object:
    """Whether two answers have ids of their own."""
    first, second = (client.get("/healthcheck").headers["X-User-Request-ID"] for _ in range(2))
    return first != second


# Asynchronous inference


def promising(headers: Mapping[str, str] | None = None, /, **fields: object) -> Probe:
    """Ask for a picture for later, and look at the answer to that alone."""
    return asking(ASYNC | dict(headers or {}), **fields)


def awaiting(headers: Mapping[str, str] | None = None, /, **fields: object) -> Probe:
    """Ask for a picture for later, how far it is, and then for it."""

    def probing(client: httpx.Client) -> object:
        identifier = promised(client, headers, **fields)
        return [
            _without(identifier, seen(client, client.get(f"/v1/{place}/{identifier}")))
            for place in ("requests", "responses")
        ]

    return probing


def promised(
    client: httpx.Client, headers: Mapping[str, str] | None = None, **fields: object
) -> str:
    """The id under which a picture will be there."""
    answer = upscaled(client, ASYNC | dict(headers or {}), **fields)
    return str(answer.json()["response_id"])


def _without(identifier: str, sight: Sight) -> Sight:
    status, headers, body = sight
    return status, headers, body.replace(identifier.encode(), b"ID")


# Answers


def upscaled(
    client: httpx.Client, headers: Mapping[str, str] | None = None, **fields: object
) -> httpx.Response:
    """The answer to a request for a picture."""
    return client.post("/upscaling", json=fields_of(fields), headers=headers)


def seen(client: httpx.Client, answer: httpx.Response) -> Sight:
    """What can be seen of an answer, but for what is another each time."""
    headers = {k: v for k, v in answer.headers.items() if k not in FLEETING}
    body = answer.content.replace(str(client.base_url).rstrip("/").encode(), b"BASE")
    if answer.headers.get("Content-Type") == "application/json":
        told = json.loads(body) if body else None
        if isinstance(told, dict) and "response_id" in told:
            body = body.replace(str(told["response_id"]).encode(), b"ID")
        elif isinstance(told, dict) and told.pop("estimated_seconds", None) is not None:
            body = json.dumps(told).encode()
    if len(body) > WORDS:
        body = hashlib.sha256(body).hexdigest().encode()
    return answer.status_code, headers, body
