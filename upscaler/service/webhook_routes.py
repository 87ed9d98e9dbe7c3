"""The routes of webhooks, and the check of their URLs (EXT-5)."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import anyio
from fastapi import Request

from upscaler.api.responses import WebhookSecret, WebhookTest
from upscaler.errors import FieldError, InvalidRequest
from upscaler.service.auth import owner, token
from upscaler.service.urls import base_url
from upscaler.service.webhooks import HEADER, Outbox, Webhook, WebhookSender, refused, secret_of
from upscaler.settings import Settings

CHECK_S: Final = 5.0
"""How long the address of a webhook may take to be found."""


class Poster(Protocol):
    """Posts to URLs of clients, which must not reach what only this service can reach."""

    @property
    def is_private(self) -> bool:
        """Whether it reaches networks that are not public, where plain HTTP is usual."""
        ...

    async def check(self, text: str) -> None:
        """Raise InvalidRequest for a URL that it never posts to; OSError if it has no address."""
        ...

    async def post(self, text: str, headers: Mapping[str, str], body: bytes) -> int:
        """Post to a URL, and return the status. Raises InvalidRequest."""
        ...


class Webhooks:
    """The handlers of the routes, and what sends the messages of `outbox`."""

    def __init__(
        self,
        outbox: Outbox | None,
        settings: Settings,
        poster: Poster,
        record: Callable[[str], None],
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._poster = poster
        self._sender = (
            WebhookSender(outbox, settings.tokens, poster.post, record) if outbox else None
        )

    def wake(self) -> None:
        """Send what is there to be sent, and what will be."""
        if self._sender:
            self._sender.wake()

    async def stop(self) -> None:
        """Send nothing more; what is not sent stays where it is."""
        if self._sender:
            await self._sender.stop()

    async def checked(self, request: Request, url: str) -> Webhook:
        """The webhook of a request. Raises InvalidRequest for a URL that is not posted to."""
        self._available()
        await self._check(url)
        self.wake()  # a server without a start, as in tests, has not begun to
        return Webhook(url, base_url(request, self._settings))

    async def secret(self, request: Request) -> WebhookSecret:
        """Return the secret that webhooks for this token are signed with."""
        self._available()
        return WebhookSecret(secret=secret_of(token(request)))

    async def test(self, request: Request) -> WebhookTest:
        """Send a test message to the webhook in the header, and return what it responds with."""
        sender, url = self._available(), request.headers.get(HEADER)
        if url is None:
            raise _refused("send the URL in this header", "missing")
        await self._check(url)
        status, seconds = await sender.test(owner(request), url)
        return WebhookTest(status=status, seconds=round(seconds, 3))

    def _available(self) -> WebhookSender:
        if self._sender is None:
            raise _refused("no webhooks are sent from here: poll instead", "webhook_unavailable")
        return self._sender

    async def _check(self, url: str) -> None:
        if not url.lower().startswith("https://") and not self._poster.is_private:
            raise _refused("must be a URL of https", "webhook_invalid")
        try:
            with anyio.fail_after(CHECK_S):
                await self._poster.check(url)
        except InvalidRequest as error:
            raise refused(error) from error
        except (OSError, TimeoutError) as error:
            raise _refused("its host is not found", "webhook_unreachable") from error


def _refused(msg: str, kind: str) -> InvalidRequest:
    return InvalidRequest(FieldError(("header", HEADER), msg, kind))
