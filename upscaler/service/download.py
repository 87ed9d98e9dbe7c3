"""Downloads an image from a URL that an untrusted client sent.

Such a URL must not reach what only this service can reach: the service itself, its neighbours, the
metadata service of its cloud (server-side request forgery). So each host name is resolved here,
once, every address is checked (see `ip_ranges`), and the connection is made to a checked address.
Each redirect is checked in the same way. The other server must not hold up or fill up this one
either: the total time, the number of bytes and how much is parsed at a time are limited.
"""

import asyncio
import io
import os
import re
import socket
import ssl
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import anyio
import anyio.lowlevel
import httpcore2
import httpx2

from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.errors import FieldError, InvalidRequest
from upscaler.service.download_streams import BoundedConnection, PacedStream, TLSStream
from upscaler.service.ip_ranges import Address, is_public

FETCH_DEADLINE_S: Final = 20.0
"""The limit of a whole download: name resolution, redirects and the body."""
MAX_FETCH_BYTES: Final = MAX_BODY_BYTES
"""The largest file, in bytes: the limit of a request that carries its image in base64."""
MAX_LOOKUPS: Final = 64
"""How many host names are resolved at once. More than the downloads at once (32), since a lookup
cannot be cancelled: after its download timed out, it goes on until the system gives up."""
MAX_URL_BYTES: Final = 8000
"""The longest URL: the minimum that RFC 9110 section 4.1 recommends to support."""
MAX_REDIRECTS: Final = 3
MAX_ADDRESSES: Final = 3
"""How many addresses of a host are tried. Each gets a quarter of the deadline, so that the last
quarter is left for the image."""

PORTS: Final = {"http": 80, "https": 443}
"""The supported schemes and their default ports (RFC 9110 section 4.2)."""
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""RFC 9110 section 15.4. Of the other 3xx, 300 offers a choice, 304 answers only a conditional
request, and 305 and 306 are no longer used."""
NAME: Final = re.compile(r"(?=.{1,253}\.?$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
"""A host name in lower case: lengths by RFC 1035 section 2.3.4, characters by RFC 1123 section 2.1,
and the underscore, which the RFC forbids but real host names have."""

HEADERS: Final = (
    ("Accept", "image/png, image/jpeg, image/webp"),
    ("Accept-Encoding", "identity"),  # httpcore2 decompresses nothing
    ("Connection", "close"),
    ("User-Agent", "octo-upscaler"),
)

POST_HEADERS: Final = HEADERS[2:]

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Iterable[Address]]]
"""Returns the addresses of a host and port, preferred first; raises OSError if there are none."""

_LOOKUPS: Final = ThreadPoolExecutor(MAX_LOOKUPS, "lookup")
"""Not the event loop's own threads: they are few, and hanging lookups would occupy all of them."""


async def resolve(host: str, port: int) -> list[Address]:
    """Resolve `host`, a name or an address in any notation, with the system's resolver.

    The system call cannot be interrupted: after a cancellation it goes on in its thread.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    return [ip_address(address[0]) for *_, address in found]


class Downloader:
    """Downloads images from the public internet, any number at a time.

    `ports` are the permitted ports, and `networks` are permitted although they are not public.
    `resolve` finds the addresses of a host. `tls` has the trusted certificates, by default those of
    certifi, or of SSL_CERT_FILE or SSL_CERT_DIR. `deadline_s` is the limit of one download in
    seconds.

    Proxies in the environment are ignored: the addresses that they connect to cannot be checked.
    """

    def __init__(
        self,
        *,
        ports: Collection[int] = (80, 443),
        networks: Collection[Network] = (),
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        deadline_s: float = FETCH_DEADLINE_S,
    ) -> None:
        self._ports = ports
        self._is_private = bool(networks)
        self._backend = _PublicAddressBackend(networks, resolve)
        self._tls = tls or httpx2.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        # `TLSStream` runs only the first handshake in a thread: a second one, which the server may
        # ask for, would be computed on the event loop.
        self._tls.options |= ssl.OP_NO_RENEGOTIATION
        self._cores = anyio.CapacityLimiter(os.cpu_count() or 1)
        self._turn = anyio.Lock()  # shared by all downloads: see `PacedStream`
        self._deadline_s = deadline_s

    @property
    def is_private(self) -> bool:
        """Whether it reaches networks that are not public."""
        return self._is_private

    async def fetch(self, text: str, reserve: Callable[[int], None] = lambda _: None) -> bytes:
        """Return the body of a GET of the URL `text`, exactly as it was sent.

        `reserve` is called with the number of bytes held so far whenever it grows. An exception
        that it raises ends the download and is raised unchanged.

        Raises InvalidRequest on `init_image_url` for every other failure: `url_invalid` and
        `url_refused` for a URL that is never requested, else `url_unreachable`, `url_timeout`,
        `url_status`, `url_redirects` or `url_too_large`. The messages reveal nothing of the other
        server but its HTTP status. Whether the bytes are an image is not checked here.
        """
        with anyio.move_on_after(self._deadline_s):
            url = self._parsed(text)
            for _ in range(1 + MAX_REDIRECTS):
                async with self._exchange(url, "GET", HEADERS) as response:
                    if response.status not in REDIRECTS:
                        return await _read_body(response, reserve)
                    url = self._redirect_target(url, response)
            raise _error(f"more than {MAX_REDIRECTS} redirects are not followed", "url_redirects")
        raise _timed_out()

    async def post(self, text: str, headers: Mapping[str, str], body: bytes) -> int:
        """Post `body` to the URL `text`, and return the status: no redirect is followed.

        Raises the errors of `fetch`.
        """
        with anyio.move_on_after(self._deadline_s):
            url = self._parsed(text)
            async with self._exchange(url, "POST", [*headers.items(), *POST_HEADERS], body) as got:
                return got.status
        raise _timed_out()

    async def check(self, text: str) -> None:
        """Raise InvalidRequest for a URL that `fetch` never requests, and send no request."""
        url = self._parsed(text)
        await self._backend.permitted_addresses(url.raw_host.decode(), _port(url))

    def _parsed(self, text: str) -> httpx2.URL:
        """Parse a URL. Raises InvalidRequest (`url_invalid`) for one that may not be fetched."""
        if len(text.encode(errors="surrogatepass")) > MAX_URL_BYTES:
            raise _error(f"a URL may have at most {MAX_URL_BYTES} bytes", "url_invalid")
        try:
            url = httpx2.URL(text)
        except (
            httpx2.InvalidURL,
            ValueError,
        ) as error:  # ValueError: lone surrogates, among others
            raise _error("this is not a URL", "url_invalid") from error
        ports = ", ".join(map(str, sorted(self._ports)))
        rules = (
            (url.scheme in PORTS, "only http and https URLs can be downloaded"),
            (_is_valid_host(url.raw_host.decode()), "the URL must have a valid host"),
            (not url.userinfo, "a URL with a user name or a password cannot be downloaded"),
            (_port(url) in self._ports, f"the URL must have one of the ports {ports}"),
        )
        for kept, rule in rules:
            if not kept:
                raise _error(rule, "url_invalid")
        return url

    @asynccontextmanager
    async def _exchange(
        self, url: httpx2.URL, method: str, headers: Iterable[tuple[str, str]], body: bytes = b""
    ) -> AsyncIterator[httpcore2.Response]:
        """Send a request on a new connection; yield the response before its body is read."""
        length = [("Content-Length", str(len(body)))] if body else []
        request = httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path
            ),
            headers=[("Host", url.netloc.decode()), *headers, *length],
            content=body,
        )
        async with self._connect(url) as plain:
            stream = PacedStream(plain, self._turn)
            with _map_network_errors():
                connection = BoundedConnection(request.url.origin, stream)
                response = await connection.handle_async_request(request)
            stream.in_head = False
            yield response

    @asynccontextmanager
    async def _connect(self, url: httpx2.URL) -> AsyncIterator[httpcore2.AsyncNetworkStream]:
        """A connection to the host of `url`, which is closed at the end of the block."""
        host = url.raw_host.decode()
        # For each address, and for the TLS handshake. The deadline bounds everything else.
        timeout_s = self._deadline_s / (MAX_ADDRESSES + 1)
        with _map_network_errors():
            stream = await self._backend.connect_tcp(host, _port(url), timeout_s)
        try:
            if url.scheme == "https":
                # Certificates have the name without the trailing dot (RFC 6066 section 3).
                stream = TLSStream(stream, self._tls, host.removesuffix("."))
                with _map_network_errors(), anyio.fail_after(timeout_s):
                    await stream.shake_hands(self._cores)
            yield stream
        finally:
            # After a timeout this task is cancelled: unshielded, closing would be cancelled too.
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    def _redirect_target(self, url: httpx2.URL, response: httpcore2.Response) -> httpx2.URL:
        """The URL that `response`, a redirect from `url`, leads to; raises InvalidRequest."""
        location = _header(response, b"location")
        if location is None:
            raise _error("the server redirects without saying where to", "url_redirects")
        try:
            joined = str(url.join(location.decode()))
        except (httpx2.InvalidURL, ValueError) as error:
            raise _error("the server redirects to what is not a URL", "url_invalid") from error
        target = self._parsed(joined)
        # A client that wrote https expects that no one on the way can read or change the image.
        if (url.scheme, target.scheme) == ("https", "http"):
            raise _error("redirects from https to http are not followed", "url_redirects")
        return target


class _PublicAddressBackend(httpcore2.AsyncNetworkBackend):
    """Resolves hosts itself, and connects only to addresses that it has checked.

    Resolving and connecting must not be apart: a name that is resolved a second time may then have
    another address (DNS rebinding).
    """

    def __init__(self, networks: Collection[Network], resolve: Resolve) -> None:
        self._networks = networks
        self._resolve = resolve
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  so named by httpcore2
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError()
        for address in (await self.permitted_addresses(host, port))[:MAX_ADDRESSES]:
            try:
                return await self._plain.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def permitted_addresses(self, host: str, port: int) -> list[Address]:
        """Resolve `host`. Raises InvalidRequest if one of its addresses may not be connected to.

        One such address refuses the host as a whole: a public host has none, and whoever controls
        the name also controls the order of its addresses.
        """
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        for address in addresses:
            if not is_public(address) and not any(address in each for each in self._networks):
                msg = "the host is not on the public internet: send the image itself in init_image"
                raise _error(msg, "url_refused")
        return addresses


async def _read_body(response: httpcore2.Response, reserve: Callable[[int], None]) -> bytes:
    """The body of a 200. A Content-Length beyond the limit is refused before anything is read."""
    if response.status != 200:
        msg = f"the server answered with HTTP status {response.status} instead of an image"
        raise _error(msg, "url_status")
    _check_size(int(_header(response, b"content-length") or 0))
    held = io.BytesIO()  # `getvalue` returns its buffer without a copy, unlike b"".join
    parts = response.aiter_stream()
    while True:
        # Thousands of chunks of one byte may already be buffered: reading them would never wait,
        # and no other task would run.
        await anyio.lowlevel.checkpoint()
        with _map_network_errors():
            part = await anext(parts, None)
        if part is None:
            return held.getvalue()
        _check_size(held.tell() + len(part))
        held.write(part)
        reserve(held.tell())


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_FETCH_BYTES:
        raise _error(f"the file may have at most {MAX_FETCH_BYTES} bytes", "url_too_large")


def _header(response: httpcore2.Response, name: bytes) -> bytes | None:
    """The value of the first header with this name, given in lower case; None without one."""
    return next((value for key, value in response.headers if key.lower() == name), None)


def _is_valid_host(host: str) -> bool:
    """Whether this is a name, or an IPv6 address (which httpx2 has checked) without a zone id."""
    return bool(NAME.fullmatch(host)) or (":" in host and "%" not in host)


def _port(url: httpx2.URL) -> int:
    return PORTS.get(url.scheme, 0) if url.port is None else url.port


@contextmanager
def _map_network_errors() -> Iterator[None]:
    """Raise InvalidRequest for errors of the network, of TLS and of the HTTP that was received."""
    try:
        yield
    except (httpcore2.TimeoutException, TimeoutError) as error:
        raise _timed_out() from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        msg = (
            "the image could not be downloaded: make sure that the URL opens in a browser, with "
            "a valid certificate if it is https, or send the image itself in init_image"
        )
        raise _error(msg, "url_unreachable") from error


def _timed_out() -> InvalidRequest:
    msg = "the image did not arrive in time: send the image itself in init_image"
    return _error(msg, "url_timeout")


def _error(msg: str, kind: str) -> InvalidRequest:
    return InvalidRequest(FieldError(("body", "init_image_url"), msg, kind))
