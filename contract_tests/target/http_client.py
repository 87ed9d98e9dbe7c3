"""Sends single requests, each of which has one limit of time for all that it takes."""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from contract_tests.failures import CannotBegin, Inconclusive
from contract_tests.oracle.limits import MAX_OUTPUT_PX
from contract_tests.target.response import Response
from contract_tests.target.run_clock import SLICE_S, RunClock

MAX_RESPONSE_BYTES: Final = 8 * MAX_OUTPUT_PX**2
"""No allowed image is longer: the largest one, of noise, takes half of it in base64."""

CHUNK_BYTES: Final = 2**16
HTTP2: Final = "HTTP/2"
CODINGS: Final = frozenset({"", "identity", "gzip", "deflate"})
"""The content codings that every build of httpx2 can undo."""
ALIASES: Final = {"x-gzip": "gzip"}
"""Codings that are the same as others (RFC 9110, 8.4.1.3), which httpx2 does not know."""


class TooSlow(Exception):
    """There was no complete response within the time."""


class HttpClient:
    """Sends exactly the headers that it is given, and reads whatever comes; threads may share it.

    The timeouts of httpx2 are for each read alone, so that a response of one byte now and then
    would never end. Here requests are tasks of an event loop, which can be cancelled as a whole.

    With `http2` each request is sent by HTTP/2, where names of headers are in lower case and a body
    in chunks is one of unknown length; otherwise by HTTP/1.1.
    """

    def __init__(self, clock: RunClock, connect_timeout_s: float, *, http2: bool) -> None:
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._http2 = http2
        self._lock = threading.Lock()
        self._opened: tuple[httpx2.AsyncClient, asyncio.AbstractEventLoop, threading.Thread] | None
        self._opened = None

    def exchange(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
        within_s: float,
    ) -> Response:
        """Send a request, and return its response, complete within `within_s` seconds.

        Raises httpx2.TransportError if there is none, TooSlow, Inconclusive if it is too long,
        CannotBegin if the environment names a proxy that cannot be used or the target offers no
        HTTP/2 where it is wanted, and what the run's clock raises.
        """
        client, loop = self._open()
        # Without an iterator httpx2 would add a Content-Length, which chunks have not.
        chunked = (b"transfer-encoding", b"chunked") in [(n.lower(), v) for n, v in headers]
        content = _chunks(body or b"") if chunked else body
        request = client.build_request(method, url, headers=list(headers), content=content)
        within_s = min(within_s, self._clock.left_s)
        sent = asyncio.run_coroutine_threadsafe(self._exchange(client, request, within_s), loop)
        try:
            while not concurrent.futures.wait([sent], SLICE_S).done:
                self._clock.check()
            return sent.result()
        except TimeoutError as error:
            self._clock.check()
            raise TooSlow from error
        finally:
            sent.cancel()  # where the run has ended before

    def close(self) -> None:
        """Close all connections; does nothing the second time."""
        with self._lock:
            if self._opened is None:
                return
            client, loop, thread = self._opened
            self._opened = None
        asyncio.run_coroutine_threadsafe(client.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _exchange(
        self, client: httpx2.AsyncClient, request: httpx2.Request, within_s: float
    ) -> Response:
        began_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(within_s):
            received = await client.send(request, stream=True)
            content = bytearray()
            try:
                if self._http2:
                    _require_http2(received)
                _use_known_coding(received)
                # Part by part, since a hostile target may never end its response.
                async for part in received.aiter_bytes():
                    content += part
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise Inconclusive(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
            except httpx2.DecodingError as error:
                # It is judged as what it is, no JSON and no image; reports show why.
                content[:] = f"(not {received.headers['content-encoding']}: {error})".encode()
            finally:
                await received.aclose()
        seconds = asyncio.get_running_loop().time() - began_s
        lower_case = {name.lower(): value for name, value in received.headers.items()}
        return Response(received.status_code, lower_case, bytes(content), seconds)

    def _open(self) -> tuple[httpx2.AsyncClient, asyncio.AbstractEventLoop]:
        """The client and its loop, made once there is something to send."""
        with self._lock:
            if self._opened is None:
                try:
                    client = httpx2.AsyncClient(
                        timeout=httpx2.Timeout(None, connect=self._connect_timeout_s),
                        http2=self._http2,
                    )
                except (ImportError, ValueError, httpx2.InvalidURL) as error:
                    raise _unusable_proxy(error) from error
                # httpx2 adds defaults, but only the headers of a request are to be sent.
                client.headers.clear()
                loop = asyncio.new_event_loop()
                # A daemon: whoever forgets to close a client has a process that ends all the same.
                thread = threading.Thread(target=loop.run_forever, daemon=True)
                thread.start()
                self._opened = client, loop, thread
            return self._opened[:2]


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    """The body in several parts, the first of them short."""
    for start, stop in pairwise((0, *range(100, len(body), CHUNK_BYTES), len(body))):
        yield body[start:stop]


def _require_http2(received: httpx2.Response) -> None:
    if received.http_version != HTTP2:
        raise CannotBegin(
            "no HTTP/2",
            f"{received.url.host} offers no HTTP/2 but {received.http_version}: leave out --http2, "
            "or switch it on where TLS ends",
        )


def _use_known_coding(received: httpx2.Response) -> None:
    """Name the content codings as httpx2 does; raise Inconclusive for one that it cannot undo.

    None is asked for, and then any is right (RFC 9110, 12.5.3).
    """
    listed = received.headers.get_list("content-encoding", split_commas=True)
    names = [each.strip().lower() for each in listed]
    codings = [ALIASES.get(name, name) for name in names]
    unknown = set(codings) - CODINGS
    if unknown:
        raise Inconclusive(
            f"the response has the content coding {', '.join(sorted(unknown))}, though none was "
            "asked for; only gzip and deflate can be read here"
        )
    if codings != names:
        received.headers["content-encoding"] = ", ".join(codings)


def proxy_variable(url: str) -> str:
    """The variable that names a proxy for a URL, or an empty string."""
    parts, proxies = urlsplit(url), getproxies()
    kind = next((each for each in (parts.scheme, "all") if each in proxies), "")
    return "" if not kind or proxy_bypass(parts.netloc) else f"{kind.upper()}_PROXY"


def _unusable_proxy(error: Exception) -> CannotBegin:
    """What to do about a proxy that httpx2 cannot use; its URL may hold a password."""
    for kind, url in getproxies().items():
        scheme = url.partition("://")[0].lower() if "://" in url else "http"
        if kind != "no" and scheme.startswith("socks"):
            how = "pip install 'httpx2[socks]', or unset the variable"
            sentence = f"{kind.upper()}_PROXY is a {scheme} proxy, which needs a package: {how}"
            return CannotBegin("unusable proxy", sentence)
    return CannotBegin(
        "unusable proxy",
        f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY has no URL such as http://127.0.0.1:3128 ({error}): "
        "correct it, or unset it",
    )
