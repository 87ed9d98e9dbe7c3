"""Mistakes with the token: who is let in, and what the others are told."""

from collections.abc import Callable
from typing import Any, Final

from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Planting,
    changed_answer,
    changed_headers,
    patched,
    together,
)
from tests.contract_tests.defects.probes import (
    asking,
    getting,
    promised,
    with_token,
    without_client_token,
)
from upscaler.errors import Unauthorized

TOKEN: Final = "Token-0f-The-Tests"
"""The one that every mock with a defect takes."""


def let_in(when: Callable[[str, str], bool]) -> Planting:
    """Let in whom the header Authorization, or the lack of it, and the right token allow."""

    def headers(asked: Asked) -> dict[str, str]:
        if not when(asked.headers.get("authorization", ""), asked.token):
            return asked.headers
        return asked.headers | {"authorization": f"Bearer {asked.token}"}

    return changed_headers(headers)


def by_token(alike: Callable[[str, str], bool]) -> Planting:
    """Let in what is alike: what was offered as a bearer token, and the right one."""
    return let_in(
        lambda header, token: header[:7].lower() == "bearer " and alike(header[7:].strip(), token)
    )


def open_at(start: str) -> Planting:
    """Ask for no token at paths that begin so."""

    def headers(asked: Asked) -> dict[str, str]:
        if not asked.path.startswith(start):
            return asked.headers
        return asked.headers | {"authorization": f"Bearer {asked.token}"}

    return changed_headers(headers)


def without_token(probed: str) -> Callable[[Any], object]:
    """Ask for something of a job without a token."""

    def probing(client: Any) -> object:
        identifier = promised(client)
        path = f"/v1/{probed}/{identifier}"
        client.get(path.replace("responses", "requests"))  # until it is there
        return without_client_token(lambda it: it.get(path).status_code)(client)

    return probing


def refused_without_token(when: Callable[[Asked, Answer], bool]) -> Planting:
    """Ask for a token where none is needed."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        if asked.has_token or not when(asked, answer):
            return answer
        return answer.saying({"detail": "Not authenticated"}, 401)

    return changed_answer(changed)


def checked_last() -> Planting:
    """Look at the token only of what would be answered with a picture."""
    late = refused_without_token(lambda _, answer: answer.status < 400)
    return together(let_in(lambda _header, _token: True), late)


TOKENS: Final = (
    Defect(
        "token-not-needed",
        "Lets in whoever sends no token, and checks only those that are sent.",
        ("REQ-2",),
        let_in(lambda header, _: not header),
        with_token(None),
    ),
    Defect(
        "token-not-checked",
        "Lets in whoever sends a token, whichever it is.",
        ("REQ-2",),
        by_token(lambda offered, _: bool(offered)),
        with_token("Bearer wrong"),
    ),
    Defect(
        "token-empty",
        "Takes an empty token for a right one.",
        ("REQ-2",),
        let_in(lambda header, _: header.strip().lower() == "bearer"),
        with_token("Bearer"),
    ),
    Defect(
        "token-scheme-ignored",
        "Looks at the last word of Authorization and lets any scheme pass.",
        ("REQ-2",),
        let_in(lambda header, token: " " in header and header.split()[-1:] == [token]),
        with_token(f"Basic {TOKEN}"),
    ),
    Defect(
        "token-without-scheme",
        "Takes the token without the word Bearer before it.",
        ("REQ-2",),
        let_in(lambda header, token: header == token),
        with_token(TOKEN),
    ),
    Defect(
        "token-longer",
        "Compares only as many characters as the right token has.",
        ("REQ-2",),
        by_token(lambda offered, token: offered.startswith(token)),
        with_token(f"Bearer {TOKEN}1"),
    ),
    Defect(
        "token-by-prefix",
        "Compares only as many characters as the token has that was sent.",
        ("REQ-2",),
        by_token(lambda offered, token: bool(offered) and token.startswith(offered)),
        with_token(f"Bearer {TOKEN[:-1]}"),
    ),
    Defect(
        "token-by-suffix",
        "Takes whatever ends with the token.",
        ("REQ-2",),
        by_token(lambda offered, token: offered.endswith(token)),
        with_token(f"Bearer 1{TOKEN}"),
    ),
    Defect(
        "token-in-any-case",
        "Compares tokens without regard to upper and lower case.",
        ("REQ-2",),
        by_token(lambda offered, token: offered.lower() == token.lower()),
        with_token(f"Bearer {TOKEN.swapcase()}"),
    ),
    Defect(
        "token-without-challenge",
        "Leaves WWW-Authenticate out of a 401.",
        ("REQ-2",),
        changed_answer(lambda _, answer: answer.without("www-authenticate")),
        with_token(None),
    ),
    Defect(
        "token-403",
        "Says 403 where no token was sent, as FastAPI's HTTPBearer long did.",
        ("REQ-2",),
        patched(Unauthorized, "status", 403),
        with_token(None),
    ),
    Defect(
        "token-422",
        "Declares Authorization as a required parameter, so that the lack of it is a 422.",
        ("REQ-2",),
        changed_answer(
            lambda asked, answer: (
                answer.saying(
                    {
                        "detail": [
                            {
                                "loc": ["header", "authorization"],
                                "msg": "Field required",
                                "type": "missing",
                            }
                        ]
                    },
                    422,
                )
                if answer.status == 401 and "authorization" not in asked.headers
                else answer
            )
        ),
        with_token(None),
    ),
    Defect(
        "token-after-the-fields",
        "Tells who has no token what is wrong with the fields.",
        ("REQ-19", "REQ-2"),
        checked_last(),
        without_client_token(asking(scale=-1)),
    ),
    Defect(
        "token-before-the-path",
        "Says 401, and not 404, to who asks without a token for what is not there.",
        ("REQ-19", "RES-7"),
        refused_without_token(lambda _, answer: answer.status == 404),
        without_client_token(getting("/nothing/here")),
    ),
    Defect(
        "poll-without-token",
        "Tells everybody how far an inference is.",
        ("ASY-5", "ASY-2", "REQ-2"),
        open_at("/v1/requests/"),
        without_token("requests"),
    ),
    Defect(
        "result-without-token",
        "Gives everybody the result of an inference.",
        ("ASY-5", "ASY-3", "REQ-2"),
        open_at("/v1/responses/"),
        without_token("responses"),
    ),
    Defect(
        "healthcheck-with-token",
        "Asks for a token at /healthcheck.",
        ("RES-9", "REQ-2"),
        refused_without_token(lambda asked, _: asked.path == "/healthcheck"),
        without_client_token(getting("/healthcheck")),
    ),
)
