"""Bearer tokens: who may use the service."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from upscaler.errors import Unauthorized

UNAUTHORIZED_MESSAGE: Final = "send a valid token in the header: Authorization: Bearer TOKEN"
AUTHORISED: Final = "authorised"
"""What a request's state has under this name is True once its token was found to be good."""


def require_token(tokens: tuple[str, ...]) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only requests with one of `tokens` pass, or raises Unauthorized."""
    accepted = [token.encode() for token in tokens]
    bearer = HTTPBearer(auto_error=False, description="One of the tokens in UPSCALER_TOKEN.")

    async def check(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        # Header text is latin-1 by the time it comes here; every token is compared, so that the
        # time taken does not tell which one was nearly right.
        offered = given.credentials.encode("latin-1") if given else b""
        matches = [hmac.compare_digest(offered, token) for token in accepted]
        if not any(matches):
            raise Unauthorized(UNAUTHORIZED_MESSAGE)
        setattr(request.state, AUTHORISED, True)

    return check
