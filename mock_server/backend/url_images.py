"""Pictures for URLs without a network: each URL has its own, the same every time."""

import hashlib
import io
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

import httpx
import numpy as np
from anyio import to_thread
from PIL import Image

from upscaler.api.sizes import Size, check_input_size
from upscaler.imaging.decode import Pixels
from upscaler.service.download import Downloader
from upscaler.service.ip_ranges import Address
from upscaler.settings import Settings

USUAL_SIZE: Final = (512, 512)
SIZE: Final = re.compile(r"(?<![0-9])([0-9]{1,5})x([0-9]{1,5})(?![0-9])", re.ASCII)
"""A size in the last part of a path, such as 512x768.png; the last one there counts."""
FORMATS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The file formats by how a path ends; any other is a PNG."""
CELLS: Final = 16
"""So many squares in each row and column tell pictures apart."""
SOMEWHERE: Final = ip_address("1.1.1.1")
"""Stands for whatever address a name may have: a public one, which is never connected to."""
HERE: Final = ip_address("127.0.0.1")


class MadePictures:
    """Takes URLs as the service does, and makes the pictures that are there itself.

    A URL that the service refuses without asking anybody is refused in the same words: for its
    form, its port, or an address that is not public.
    """

    def __init__(self, settings: Settings) -> None:
        self._checks = Downloader(
            ports=settings.fetch_ports,
            networks=settings.fetch_networks,
            resolve=_without_asking,
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # an empty one: nothing is connected to
        )

    async def fetch(self, url: str, hold: Callable[[int], None]) -> bytes:
        """The file at `url`: see `Downloader.fetch`."""
        await self._checks.check(url)
        size = size_in(url)
        check_input_size(size, "init_image_url")
        data = await to_thread.run_sync(file_at, url, size)
        hold(len(data))
        return data


async def _without_asking(host: str, port: int) -> Iterable[Address]:
    """The address that `host` is, in any notation; or else one for all names but this machine's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        name = host.removesuffix(".")
        return [HERE if name == "localhost" or name.endswith(".localhost") else SOMEWHERE]
    return [ip_address(address[0]) for *_, address in found]


def size_in(url: str) -> Size:
    """Width and height of the picture at `url`."""
    sizes = SIZE.findall(_path(url).rpartition("/")[2])
    return (int(sizes[-1][0]), int(sizes[-1][1])) if sizes else USUAL_SIZE


def file_at(url: str, size: Size) -> bytes:
    """The picture at `url`, of `size`, as a file in the format that its path ends in."""
    path = _path(url).lower()
    kind = next((kind for end, kind in FORMATS.items() if path.endswith(end)), "PNG")
    out = io.BytesIO()
    # WebP's method 0 and zlib's level 1 are the quick ones; each knows only its own.
    Image.fromarray(pixels_at(url, size)).save(out, kind, quality=90, method=0, compress_level=1)
    return out.getvalue()


def pixels_at(url: str, size: Size) -> Pixels:
    """What is to be seen there: a slope of two colours, and on it squares, lighter or darker."""
    digest = hashlib.shake_256(url.encode(errors="surrogatepass")).digest(6 + CELLS * CELLS)
    first, second = np.array(list(digest[:6]), float).reshape(2, 1, 1, 3)
    width, height = size
    across = np.linspace(0, 1, width)[None, :, None]
    down = np.linspace(0, 1, height)[:, None, None]
    cells = np.array(list(digest[6:])).reshape(CELLS, CELLS) % 2
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    squares = 40.0 * cells[rows][:, columns, None] - 20
    slope = first + (second - first) * (across + down) / 2
    pixels: Pixels = np.clip(slope + squares, 0, 255).astype(np.uint8)
    return pixels


def _path(url: str) -> str:
    return httpx.URL(url).path  # read as the service reads it, and without percent signs
