"""Authentication by bearer tokens."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from upscaler.errors import Unauthorized
from upscaler.service.owners import owner_of

UNAUTHORIZED_MESSAGE: Final = "send a valid token in the header: Authorization: Bearer TOKEN"
AUTHORISED: Final = "authorised"
"""The key of a request's state that is True once its token has been verified."""


def require_token(tokens: tuple[str, ...]) -> Callable[..., Awaitable[None]]:
    """Return a FastAPI dependency that raises Unauthorized unless a request has one of `tokens`."""
    accepted = [token.encode() for token in tokens]
    bearer = HTTPBearer(auto_error=False, description="One of the tokens in UPSCALER_TOKEN.")

    async def check(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        # Starlette decodes headers as latin-1: encoding them again gives the bytes that were sent.
        offered = given.credentials.encode("latin-1") if given else b""
        # Every token is compared in constant time, and `any` sees a list: the time taken must not
        # reveal which token was nearly right.
        matches = [hmac.compare_digest(offered, token) for token in accepted]
        if not any(matches):
            raise Unauthorized(UNAUTHORIZED_MESSAGE)
        setattr(request.state, AUTHORISED, True)
        request.state.token = tokens[matches.index(True)]
        request.state.owner = owner_of(request.state.token)

    return check


def token(request: Request) -> str:
    """The token of a request, which `require_token` has let in."""
    return str(request.state.token)


def owner(request: Request) -> str:
    """The owner of what a request starts, which `require_token` has let in."""
    return str(request.state.owner)
