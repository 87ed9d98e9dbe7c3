"""Results in a bucket of an S3-compatible store, which pass neither Modal nor a front's memory.

Only what serves the API, mostly a front, has the bucket's credentials. With each call it hands over
a URL to which the container uploads the body of the answer, just as its client will get it, and
nothing else. Then the front passes the body on as it comes, or tells the client where it is.

URLs with a signature are never logged: neither by aiohttp nor in the errors here.
"""

import asyncio
import logging
import math
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.errors import NotStored, UnknownJob, Unreachable
from upscaler.modal.payload import StoredPayload, Upload
from upscaler.modal.presigned import Store
from upscaler.service.backend import UpscaleResult
from upscaler.service.responses import body, body_bytes, media_type

FOLDER: Final = "octo-upscaler"
"""What all keys begin with, so that a rule of the bucket can name our objects."""
KEY_BYTES: Final = 24
"""192 random bits, as an id has (ASY-5)."""
UPLOAD_S: Final = 24 * 60 * 60
"""How long a container may upload. Whatever waits longer in Modal's queue goes by way of Modal."""
READ_S: Final = UPLOAD_S + RESULT_LIFETIME_S
"""How long fronts may read it: with the URL in the payload also those without the credentials."""
LINK_S: Final = 60 * 60
"""How long a client may use a URL at most."""
CHECK_S: Final = 60
PIECE_BYTES: Final = 2**16
"""Of a body on its way through a front. Modal's client reads ahead up to 1024 pieces of a response,
however large, and sends those of 16 MiB at a time."""
HELD_BYTES: Final = 1024 * PIECE_BYTES + 3 * 16 * 2**20
"""What a front holds of a body at most: what was read ahead, and 48 MiB more. Six bodies of 268 MB
at once took 447 MiB, two 242."""
TRIES: Final = 3
PAUSE_S: Final = 0.5
TRANSFER_S: Final = 120.0
"""How long all tries of an upload may take, in which the container's GPU may have nothing to do."""
CONNECT_S: Final = 5.0
SILENCE_S: Final = 30.0
SUSPENDED_S: Final = 60.0
"""How long results go by way of Modal once the bucket has not taken one."""
GONE: Final = "the result of this inference is no longer kept"
AWAY: Final = "its store may be away, or AWS_ENDPOINT_URL not be its URL"
_REGION: Final = "AWS_REGION and AWS_ENDPOINT_URL must be those of the bucket"
ADVICE: Final = {
    301: _REGION,
    307: _REGION,
    400: _REGION,
    403: f"the key in the secret upscaler-bucket must be valid, and may put and get {FOLDER}/*",
    404: "UPSCALER_RESULTS_BUCKET must be a bucket of this store",
}
"""What an operator can do, by the status of a refusal."""

log = logging.getLogger(__name__)


class Bucket:
    """A bucket, in a front. While it is suspended, results are to go by way of Modal."""

    def __init__(self, name: str) -> None:
        """Use the bucket of that name. Raises InvalidSetting without credentials."""
        self.name = name
        self._store = Store.from_environment(os.environ)
        self._suspended_until_s = 0.0

    @property
    def suspended(self) -> bool:
        return time.monotonic() < self._suspended_until_s

    def suspend(self, seconds: float = SUSPENDED_S) -> None:
        until_s = time.monotonic() + seconds
        self._suspended_until_s = max(self._suspended_until_s, until_s)

    def upload(self, *, required: bool) -> Upload:
        """Where a container can upload a result: see `Upload`."""
        url = self._store.url(self.name, f"{FOLDER}/{secrets.token_urlsafe(KEY_BYTES)}")
        return {
            "put_url": self._store.sign("PUT", url, UPLOAD_S),
            "get_url": self._store.sign("GET", url, READ_S),
            "required": required,
        }

    def link(self, stored: StoredPayload, lifetime_s: float) -> str | None:
        """A URL for a client, valid for `lifetime_s` at most; None if it is in another bucket."""
        url, _, _ = stored["get_url"].partition("?")
        if not url.startswith(self._store.url(self.name, f"{FOLDER}/")):
            return None
        return self._store.sign("GET", url, math.ceil(min(LINK_S, lifetime_s)))

    async def check(self) -> None:
        """Upload and read an empty object. If the bucket refuses that, log it and do without.

        Else clients would meet that first.
        """
        url = self._store.url(self.name, f"{FOLDER}/check")
        try:
            for method in ("PUT", "GET"):
                async with _request(method, self._store.sign(method, url, CHECK_S)):
                    pass
        except _Failed as error:
            fault = error
        else:
            return
        self.suspend(SUSPENDED_S if fault.passing else math.inf)
        log.error(
            "the bucket %s (UPSCALER_RESULTS_BUCKET) cannot be used, and results go by way of "
            "Modal: %s",
            self.name,
            fault,
        )


def bucket_of(name: str) -> Bucket | None:
    """The bucket of that name, which is tried in a thread meanwhile; None without a name."""
    if not name:
        return None
    bucket = Bucket(name)
    threading.Thread(target=lambda: asyncio.run(bucket.check()), daemon=True).start()
    return bucket


async def put(result: UpscaleResult, upload: Upload) -> StoredPayload | None:
    """Upload the body of the response with `result`, and return where it is.

    If the bucket does not take it, returns None, or raises NotStored if it has to.
    """
    size_bytes = body_bytes(result)
    # With its length, or it would be sent in chunks, which S3 refuses.
    headers = {"Content-Type": media_type(result), "Content-Length": str(size_bytes)}
    fault = _Failed(f"{_host(upload['put_url'])}: not within {TRANSFER_S:g} s")
    with suppress(TimeoutError):
        async with asyncio.timeout(TRANSFER_S):
            for left in reversed(range(TRIES)):
                try:
                    async with _request("PUT", upload["put_url"], headers, body(result)):
                        return {"get_url": upload["get_url"], "size_bytes": size_bytes}
                except _Failed as error:
                    fault = error
                if not fault.passing or not left:
                    break
                await asyncio.sleep(PAUSE_S)
    if upload["required"]:
        raise NotStored(f"the bucket did not take a result: {fault}")
    log.error("the bucket did not take a result, which goes by way of Modal: %s", fault)
    return None


async def pieces(
    stored: StoredPayload, url: str | None = None, *, kept: bool = False
) -> AsyncIterator[bytes]:
    """The body of a response, from `url` or else the URL in `stored`, as it comes.

    Raises Unreachable, mostly before the first piece, and UnknownJob for an object that was `kept`
    for its client and is gone.
    """
    try:
        async with _request("GET", url or stored["get_url"]) as response:
            if response.content_length != stored["size_bytes"]:
                raise Unreachable("a result in the bucket has another length than was uploaded")
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                yield piece
    except _Failed as error:
        if kept and error.status == 404:
            raise UnknownJob(GONE) from None
        raise Unreachable(f"the bucket does not give a result: {error}") from None


class _Failed(Exception):
    """A request that failed. Its text says what an operator can do, and has no URL."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(f"{text} ({ADVICE.get(status, AWAY)})")
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether it may go well the next time."""
        return self.status in (0, 408, 429) or self.status >= 500


@asynccontextmanager
async def _request(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    data: AsyncIterator[bytes] | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response of the store. Raises _Failed if it is no success, or does not come in whole."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                method,
                URL(url, encoded=True),
                headers={"Accept-Encoding": "identity", **(headers or {})},
                data=data,
                allow_redirects=False,
            ) as response,
        ):
            if response.status != 200:
                said = re.search(rb"<Code>(\w+)</Code>", await response.content.read(2**12))
                code = said[1].decode() if said else response.reason
                raise _Failed(f"{_host(url)}: {response.status} {code}", response.status)
            yield response
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # Not the error's text, which may have the URL.
        raise _Failed(f"{_host(url)}: {type(error).__name__}") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc
