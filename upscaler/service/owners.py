"""Ids that nobody can guess, and the names of those whose jobs are kept."""

import hashlib
import secrets
from typing import Final

ID_BYTES: Final = 24
"""Of an id, which is a capability: too many random bits to guess (ASY-5)."""


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_urlsafe(ID_BYTES)


def owner_of(token: str) -> str:
    """Return the name under which the jobs of a token are kept: the token itself is a secret."""
    return hashlib.sha256(b"owner of jobs\0" + token.encode()).hexdigest()
