"""Tells clients that a job is completed, by a POST to a URL of theirs (EXT-5).

As the Standard Webhooks specification has it (standardwebhooks.com, 1.0.0): each message has an id,
which is the same whenever it is sent again, and is signed. It is sent until its receiver responds
with a 2xx, or a day has passed: at least once, so that receivers must expect it more than once.
"""

import asyncio
import base64
import hmac
import json
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any, Final, Protocol

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import FieldError, InvalidRequest, JobFailed
from upscaler.service.owners import new_id, owner_of

log = logging.getLogger(__name__)

Post = Callable[[str, dict[str, str], bytes], Awaitable[int]]
"""Posts a body to a URL with headers, and returns the status; raises InvalidRequest without one."""

HEADER: Final = "X-Upscaler-Webhook"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  the specification's
FIRST_RETRY_S: Final = 5.0
RETRY_FACTOR: Final = 4
MOST_RETRY_S: Final = 4 * 3600.0
"""The time to the next attempt: 5 s, 20 s, 80 s, and so on up to four hours."""
JITTER: Final = 0.2
"""By how much of that time it is varied, so that not all come at once after a failure of many."""
GIVE_UP_S: Final = RESULT_LIFETIME_S
"""A message is sent no more once there is no result to fetch."""
AT_ONCE: Final = 16
"""How many messages are sent at the same time."""
CLAIM_S: Final = 120.0
"""For how long a process has a message to itself: longer than any attempt takes."""
LOOK_S: Final = 0.5
"""How often messages that are due are looked for."""
GONE: Final = 410
"""The status by which a receiver says that it wants no more of it."""
REASONS: Final = {
    "url_refused": "its host is not on the public internet",
    "url_unreachable": "its host cannot be reached",
    "url_timeout": "its host does not respond in time",
}
"""What is said of a webhook in place of what is said of an image."""


@dataclass(frozen=True)
class Webhook:
    """Where to send the message about a job, and what URLs in it begin with."""

    url: str
    base: str


@dataclass(frozen=True)
class Message:
    """What is to be sent, to whom and for whom. Times are in seconds since 1970."""

    id: str
    owner: str
    url: str
    body: str
    created_s: float
    attempts: int = 0


class Outbox(Protocol):
    """Keeps messages until they were sent."""

    async def due(self, limit: int, owners: Collection[str]) -> list[Message]:
        """Take up to `limit` messages for `owners` that are due, for CLAIM_S."""
        ...

    def now_s(self) -> float:
        """The time by which messages are due."""
        ...

    async def settle(self, message_id: str, retry_s: float | None) -> None:
        """Send a message again after so many seconds; None: it was sent, or is given up."""
        ...


def message_about(
    job_id: str, owner: str, webhook: Webhook, failure: JobFailed.Response | None, now_s: float
) -> Message:
    """The message that a job is completed: what a poll would be told, and more."""
    told: dict[str, Any] = {
        "type": "request.failed" if failure else "request.completed",
        "timestamp": _timestamp(now_s),
        "response_id": job_id,
        "status": JobStatus.COMPLETED.value,
        "response_url": f"{webhook.base}/v1/responses/{job_id}",
    }
    if failure:
        told["error"] = {"status": failure.status, "detail": failure.detail}
    return Message(f"msg_{new_id()}", owner, webhook.url, json.dumps(told), now_s)


def secret_of(token: str) -> str:
    """The secret that messages about the jobs of a token are signed with.

    It is derived from the token, which it does not reveal.
    """
    digest = hmac.digest(token.encode(), b"secret of webhooks", "sha256")
    return SECRET_PREFIX + base64.b64encode(digest).decode()


def signed(message: Message, secret: str, now_s: float) -> dict[str, str]:
    """The headers of a message that is sent now."""
    second = str(int(now_s))
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{message.id}.{second}.{message.body}".encode(), "sha256")
    return {
        "Content-Type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": second,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def refused(error: InvalidRequest) -> InvalidRequest:
    """The same error as one on the header that has the webhook's URL."""
    first = error.errors[0]
    msg = REASONS.get(first.type, first.msg)
    return InvalidRequest(FieldError(("header", HEADER), msg, first.type.replace("url", "webhook")))


class WebhookSender:
    """Sends the messages of an outbox.

    `record` is called with what became of each attempt: delivered, failed or given_up.
    """

    def __init__(
        self,
        outbox: Outbox,
        tokens: tuple[str, ...],
        post: Post,
        record: Callable[[str], None],
    ) -> None:
        self._outbox = outbox
        self._secrets = {owner_of(token): secret_of(token) for token in tokens}
        self._post = post
        self._record = record
        self._sending: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Send messages from now on, until the event loop ends or `stop` is awaited."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop sending. What is not sent stays in the outbox."""
        tasks = [*self._sending, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def test(self, owner: str, url: str) -> tuple[int, float]:
        """Send a message that says nothing, once; return the status and the seconds it took."""
        now_s = time()
        body = json.dumps({"type": "webhook.test", "timestamp": _timestamp(now_s)})
        message = Message(f"msg_{new_id()}", owner, url, body, now_s)
        began_s = perf_counter()
        try:
            return await self._attempt(message), perf_counter() - began_s
        except InvalidRequest as error:
            raise refused(error) from error

    async def _run(self) -> None:
        while True:
            try:
                # Those of others are theirs to send, whose tokens sign them.
                free = AT_ONCE - len(self._sending)
                for message in await self._outbox.due(free, self._secrets.keys()):
                    task = asyncio.create_task(self._send(message))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
            except Exception:
                log.exception("cannot look for webhooks to be sent: trying again")
            await asyncio.sleep(LOOK_S)

    async def _send(self, message: Message) -> None:
        """Send a message once, and settle it."""
        retry_s: float | None = 0.0
        try:
            retry_s = await self._sent(message)
            await self._outbox.settle(message.id, retry_s)
        except asyncio.CancelledError:  # else nobody would send it for CLAIM_S
            await self._outbox.settle(message.id, retry_s)
            raise

    async def _sent(self, message: Message) -> float | None:
        """Send a message once; return after how long to send it again, None for never."""
        try:
            status = await self._attempt(message)
            reason = f"status {status}"
        except InvalidRequest as error:
            status, reason = 0, refused(error).errors[0].msg
        except Exception:
            log.exception("a webhook could not be sent")
            status, reason = 0, "unexpected error"
        delivered, gone = 200 <= status < 300, status == GONE
        retry_s = None if delivered or gone else self._retry_s(message)
        if not delivered:
            what = "giving it up" if retry_s is None else f"trying again in {retry_s:.0f} s"
            log.warning("a webhook was not delivered: %s: %s", reason, what)
        self._record("delivered" if delivered else "given_up" if retry_s is None else "failed")
        return retry_s

    async def _attempt(self, message: Message) -> int:
        """Send a message, and return the status. Raises InvalidRequest."""
        secret = self._secrets.get(message.owner)
        if secret is None:  # nobody could verify it
            raise InvalidRequest(FieldError(("header", HEADER), "its token is gone", "url_refused"))
        headers = signed(message, secret, time())
        return await self._post(message.url, headers, message.body.encode())

    def _retry_s(self, message: Message) -> float | None:
        """After how long to try again; None if that would be too late."""
        retry_s = min(MOST_RETRY_S, FIRST_RETRY_S * RETRY_FACTOR**message.attempts)
        retry_s *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
        late = self._outbox.now_s() + retry_s > message.created_s + GIVE_UP_S
        return None if late else retry_s


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
