"""Downloading a picture from a URL that a stranger wrote.

What such a URL must not do is make this service reach what only this service can reach: itself, its
neighbours, the metadata of its cloud. So every name is resolved here, once, each address is judged
(see addresses), and the connection is made to an address that was judged. Redirects go the same
way. Nor may the other server hold up or fill up this one: there is a limit to the time of all of
it, and to the bytes, and to how much of it is parsed before others have their turn.
"""

import asyncio
import io
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import anyio
import anyio.lowlevel
import httpcore
import httpx

from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.errors import FieldError, InvalidRequest
from upscaler.service.download_streams import BoundedConnection, PacedStream, TLSStream
from upscaler.service.ip_ranges import Address, is_public

FETCH_DEADLINE_S: Final = 20.0
"""How long a download may take, from the name of the host to the last byte, redirects included."""
MAX_FETCH_BYTES: Final = MAX_BODY_BYTES
"""The most bytes a file may have: as many as a request that has it in base64."""
MAX_LOOKUPS: Final = 64
"""How many hosts are looked up at once. A lookup that nobody waits for any more goes on until the
system gives it up, so there have to be more than downloads."""
MAX_URL_BYTES: Final = 8000
"""The longest URL: as long as RFC 9110 section 4.1 wants any recipient to take."""
MAX_REDIRECTS: Final = 3
MAX_ADDRESSES: Final = 3
"""How many addresses of a host are tried. Each may take a quarter of the time that there is, so
that the last quarter is left for the picture."""

PORTS: Final = {"http": 80, "https": 443}
"""The schemes that there are, and their ports unless the URL tells one (RFC 9110 section 4.2)."""
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""RFC 9110 section 15.4; the others have nothing new to say to a GET, or leave a choice."""
NAME: Final = re.compile(r"(?=.{1,253}\.?$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
"""The name of a host, in lower case: RFC 1035 section 2.3.4 has the lengths, RFC 1123 section 2.1
the letters. The underscore is against the rules, and in use."""

HEADERS: Final = (
    ("Accept", "image/png, image/jpeg, image/webp"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
    ("User-Agent", "octo-upscaler"),
)

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Iterable[Address]]]
"""The addresses of the host and port that it is given, the best first; raises OSError for none."""


_LOOKUPS: Final = ThreadPoolExecutor(MAX_LOOKUPS, "lookup")
"""Threads of their own: those of the loop are few, and names that hang would occupy them all."""


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses that the system knows `host` by, be it a name or an address in any notation.

    The system's call cannot be interrupted: if this is cancelled, it goes on in its thread.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    return [ip_address(address[0]) for *_, address in found]


def _nothing(held_bytes: int) -> None:
    pass


class Downloader:
    """Downloads pictures from the public internet, any number at a time.

    `ports` are those that may be connected to, and `networks` those that may be connected to
    although they are not public. `resolve` finds the addresses of a host, `tls` says which
    certificates are good (by default those of certifi, or of SSL_CERT_FILE or SSL_CERT_DIR), and
    `deadline_s` is how many seconds one download may take.

    Proxies in the environment are not used: what they connect to could not be checked.
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
        self._backend = _CheckingBackend(networks, resolve)
        self._tls = tls or httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._tls.options |= ssl.OP_NO_RENEGOTIATION  # a second handshake would be on the loop
        self._cores = anyio.CapacityLimiter(os.cpu_count() or 1)
        self._turn = anyio.Lock()
        self._deadline_s = deadline_s

    async def fetch(self, url: str, hold: Callable[[int], None] = _nothing) -> bytes:
        """The bytes that a GET of `url` is answered with, exactly as they were sent.

        `hold` is told how many bytes are held each time that there are more. Whatever it raises
        ends the download and is raised here unchanged.

        Raises InvalidRequest on `init_image_url` for whatever else goes wrong: `url_invalid` and
        `url_refused` for what is never asked for, `url_unreachable`, `url_timeout`, `url_status`
        and `url_redirects` for an answer that is none, and `url_too_large`. The messages tell
        nothing of the other server but the number of its status. Whether the bytes are a picture is
        not looked at.
        """
        with anyio.move_on_after(self._deadline_s):
            return await self._follow(url, hold)
        raise _late()

    async def check(self, text: str) -> None:
        """Raise InvalidRequest for a URL that is never asked for, as `fetch` does; ask for none."""
        url = self._parsed(text)
        await self._backend.checked(url.raw_host.decode(), _port(url))

    async def _follow(self, text: str, hold: Callable[[int], None]) -> bytes:
        url = self._parsed(text)
        for _ in range(1 + MAX_REDIRECTS):
            async with self._get(url) as response:
                if response.status not in REDIRECTS:
                    return await _body(response, hold)
                url = self._redirected(url, response)
        raise _error(f"more than {MAX_REDIRECTS} redirects are not followed", "url_redirects")

    def _parsed(self, text: str) -> httpx.URL:
        """The URL in `text`, if it is one that may be asked for; else InvalidRequest."""
        if len(text.encode(errors="surrogatepass")) > MAX_URL_BYTES:
            raise _error(f"a URL may have at most {MAX_URL_BYTES} bytes", "url_invalid")
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError) as error:  # ValueError: lone surrogates, among others
            raise _error("this is not a URL", "url_invalid") from error
        rules = (
            (url.scheme in PORTS, "only http and https URLs can be downloaded"),
            (_is_host(url.raw_host.decode()), "the URL must have a valid host"),
            (not url.userinfo, "a URL with a user name or a password cannot be downloaded"),
            (_port(url) in self._ports, f"the URL must have one of the ports {self._port_list}"),
        )
        for kept, rule in rules:
            if not kept:
                raise _error(rule, "url_invalid")
        return url

    @property
    def _port_list(self) -> str:
        return ", ".join(map(str, sorted(self._ports)))

    @asynccontextmanager
    async def _get(self, url: httpx.URL) -> AsyncIterator[httpcore.Response]:
        """The answer to a GET of `url`, its body not yet read, on a connection of its own."""
        request = self._request(url)
        async with self._connected(url) as plain:
            stream = PacedStream(plain, self._turn)
            with _map_network_errors():
                connection = BoundedConnection(request.url.origin, stream)
                response = await connection.handle_async_request(request)
            stream.in_head = False
            yield response

    @asynccontextmanager
    async def _connected(self, url: httpx.URL) -> AsyncIterator[httpcore.AsyncNetworkStream]:
        """A connection to the host of `url`, which ends with the block."""
        host = url.raw_host.decode()
        # For each address, and for TLS. The deadline sees to all the rest.
        timeout_s = self._deadline_s / (MAX_ADDRESSES + 1)
        with _map_network_errors():
            stream = await self._backend.connect_tcp(host, _port(url), timeout_s)
        try:
            if url.scheme == "https":
                # The name without the dot at its end, as certificates have it (RFC 6066 section 3).
                stream = TLSStream(stream, self._tls, host.removesuffix("."))
                with _map_network_errors(), anyio.fail_after(timeout_s):
                    await stream.shake_hands(self._cores)
            yield stream
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    def _request(self, url: httpx.URL) -> httpcore.Request:
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path
        )
        headers = [("Host", url.netloc.decode()), *HEADERS]
        return httpcore.Request("GET", target, headers=headers)

    def _redirected(self, url: httpx.URL, response: httpcore.Response) -> httpx.URL:
        """Where `response`, the answer to a GET of `url`, says that the picture is."""
        location = _header(response, b"location")
        if location is None:
            raise _error("the server redirects without saying where to", "url_redirects")
        try:
            joined = str(url.join(location.decode()))
        except (httpx.InvalidURL, ValueError) as error:
            raise _error("the server redirects to what is not a URL", "url_invalid") from error
        target = self._parsed(joined)
        # Whoever wrote https wants nobody on the way to read or change the picture.
        if (url.scheme, target.scheme) == ("https", "http"):
            raise _error("redirects from https to http are not followed", "url_redirects")
        return target


class _CheckingBackend(httpcore.AsyncNetworkBackend):
    """Connects to hosts only by those of their addresses that it has found to be public itself."""

    def __init__(self, networks: Collection[Network], resolve: Resolve) -> None:
        self._networks = networks
        self._resolve = resolve
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  so named by httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError()
        for address in (await self.checked(host, port))[:MAX_ADDRESSES]:
            try:
                return await self._plain.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def checked(self, host: str, port: int) -> list[Address]:
        """The addresses of `host`, or InvalidRequest if one of them may not be connected to.

        One bad address spoils all: a host of the public internet has none, and which of them a name
        begins with is up to whoever answers for it.
        """
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        if not all(is_public(address) or self._is_excepted(address) for address in addresses):
            msg = "the host is not on the public internet: send the image itself in init_image"
            raise _error(msg, "url_refused")
        return addresses

    def _is_excepted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


async def _body(response: httpcore.Response, hold: Callable[[int], None]) -> bytes:
    """All bytes of an answer that is a picture; none is read if it promises too many."""
    if response.status != 200:
        msg = f"the server answered with HTTP status {response.status} instead of an image"
        raise _error(msg, "url_status")
    _check_size(int(_header(response, b"content-length") or 0))
    held = io.BytesIO()  # which gives its bytes away without a copy
    parts = response.aiter_stream()
    while (part := await _next(parts)) is not None:
        _check_size(held.tell() + len(part))
        held.write(part)
        hold(held.tell())
    return held.getvalue()


async def _next(parts: AsyncIterator[bytes]) -> bytes | None:
    # Thousands of parts of one byte each can arrive at once, and others want to run in between.
    await anyio.lowlevel.checkpoint()
    with _map_network_errors():
        return await anext(parts, None)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_FETCH_BYTES:
        raise _error(f"the file may have at most {MAX_FETCH_BYTES} bytes", "url_too_large")


def _header(response: httpcore.Response, name: bytes) -> bytes | None:
    """The value of the first header called `name`, which is in lower case."""
    return next((value for key, value in response.headers if key.lower() == name), None)


def _is_host(host: str) -> bool:
    """Whether this is a name, or an IPv6 address (which httpx has checked) without a scope id."""
    return bool(NAME.fullmatch(host)) or (":" in host and "%" not in host)


def _port(url: httpx.URL) -> int:
    return PORTS.get(url.scheme, 0) if url.port is None else url.port


@contextmanager
def _map_network_errors() -> Iterator[None]:
    """Make an InvalidRequest of whatever goes wrong between this host and another."""
    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise _late() from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        msg = (
            "the image could not be downloaded: make sure that the URL opens in a browser, with "
            "a valid certificate if it is https, or send the image itself in init_image"
        )
        raise _error(msg, "url_unreachable") from error


def _late() -> InvalidRequest:
    msg = "the image did not arrive in time: send the image itself in init_image"
    return _error(msg, "url_timeout")


def _error(msg: str, kind: str) -> InvalidRequest:
    return InvalidRequest(FieldError(("body", "init_image_url"), msg, kind))
