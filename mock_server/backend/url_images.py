"""Images for URLs, generated without a network: each URL has its own, the same every time."""

import hashlib
import io
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

import httpx2
import numpy as np
from anyio import to_thread
from PIL import Image

from upscaler.api.sizes import Size, check_input_size
from upscaler.imaging.pixels import Pixels
from upscaler.service.download import Downloader
from upscaler.service.ip_ranges import Address
from upscaler.settings import Settings

DEFAULT_SIZE: Final = (512, 512)
SIZE: Final = re.compile(r"(?<![0-9])([0-9]{1,5})x([0-9]{1,5})(?![0-9])", re.ASCII)
"""A size in the last segment of a path, such as 512x768.png; the last match counts."""
FORMATS: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The file format by the suffix of the path; otherwise it is PNG."""
CELLS: Final = 16
"""How many squares there are in each row and column of an image."""
PUBLIC_ADDRESS: Final = ip_address("1.1.1.1")
"""What every name resolves to here: any public address will do, as nothing connects to it."""
LOOPBACK: Final = ip_address("127.0.0.1")


class GeneratedImages:
    """Checks URLs as the service does, and generates the images.

    URLs that the service refuses without a connection are refused with the same errors: for their
    form, their port, or an address that is not public.
    """

    def __init__(self, settings: Settings) -> None:
        self._checks = Downloader(
            ports=settings.fetch_ports,
            networks=settings.fetch_networks,
            resolve=_resolve_offline,
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # loading the system's roots takes time
        )

    async def fetch(self, url: str, hold: Callable[[int], None]) -> bytes:
        """Return the file at `url`: see `Downloader.fetch`."""
        await self._checks.check(url)
        size = size_in(url)
        check_input_size(size, "init_image_url")
        data = await to_thread.run_sync(generate_file, url, size)
        hold(len(data))
        return data


async def _resolve_offline(host: str, port: int) -> Iterable[Address]:
    """Return the address that `host` is, in any notation; a name gets a public or loopback one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        name = host.removesuffix(".")
        return [LOOPBACK if name == "localhost" or name.endswith(".localhost") else PUBLIC_ADDRESS]
    return [ip_address(address[0]) for *_, address in found]


def size_in(url: str) -> Size:
    """Return the width and height of the image at `url`."""
    sizes = SIZE.findall(_path(url).rpartition("/")[2])
    return (int(sizes[-1][0]), int(sizes[-1][1])) if sizes else DEFAULT_SIZE


def generate_file(url: str, size: Size) -> bytes:
    """Return the image at `url`, of `size`, as a file in the format of its suffix."""
    path = _path(url).lower()
    file_format = next((name for suffix, name in FORMATS.items() if path.endswith(suffix)), "PNG")
    out = io.BytesIO()
    # WebP's method 0 and zlib's level 1 are the fastest; each format ignores the other's option.
    Image.fromarray(generate_pixels(url, size)).save(
        out, file_format, quality=90, method=0, compress_level=1
    )
    return out.getvalue()


def generate_pixels(url: str, size: Size) -> Pixels:
    """Return a gradient with lighter and darker squares: uint8 of shape (rows, columns, 3)."""
    # The bytes after the colours decide which squares are lighter.
    digest = hashlib.shake_256(url.encode(errors="surrogatepass")).digest(6 + CELLS * CELLS)
    first, second = np.array(list(digest[:6]), float).reshape(2, 1, 1, 3)
    width, height = size
    across = np.linspace(0, 1, width)[None, :, None]
    down = np.linspace(0, 1, height)[:, None, None]
    cells = np.array(list(digest[6:])).reshape(CELLS, CELLS) % 2
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    squares = 40.0 * cells[rows][:, columns, None] - 20
    gradient = first + (second - first) * (across + down) / 2
    pixels: Pixels = np.clip(gradient + squares, 0, 255).astype(np.uint8)
    return pixels


def _path(url: str) -> str:
    return httpx2.URL(url).path  # parsed and percent-decoded as the service does
