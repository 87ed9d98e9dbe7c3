"""Who gets in, and that a token comes out nowhere."""

import hmac
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from mock_server import Mock
from tests.cli.test_serve import Served, served
from tests.support.mock_servers import mock_child
from tests.support.processes import Child
from tests.support.raw_http import answers, exchange
from tests.support.service import GOOD, Moody, Resizer, logged_without, running, serving
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

pytestmark = pytest.mark.torch

CANARY = "canary-Ab3.token_9f"
"""A token that stands nowhere by chance."""
OPEN = ("/", "/livez", "/healthcheck", "/docs", "/openapi.json")
"""What needs no token: health, the page, and the description of the API."""
TOKENS = ("canary-first", "canary-sécond", "canary-third")
APPS: dict[str, Callable[[Settings], FastAPI]] = {
    "service": lambda settings: create_app(LocalBackend(Resizer()), settings),
    "mock": lambda settings: Mock(settings=settings).app,
}
"""Each server's app, by its name."""
SERVERS: dict[str, Callable[[Path, str], AbstractContextManager[Served | Child]]] = {
    "service": lambda folder, token: served(folder, f"other-token,{token}"),
    "mock": lambda folder, token: mock_child(folder, "--token", "other-token", "--token", token),
}
"""Each server as a process of its own, which writes into a folder and takes a token."""


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> FastAPI:
    return APPS[request.param](Settings(tokens=TOKENS))


@pytest.fixture
def api(app: FastAPI) -> Iterator[httpx.Client]:
    with running(app) as url, httpx.Client(base_url=url) as client:
        yield client


def paths(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Each path of a server, as its route declares it, with each of its methods."""
    for route in app.routes:
        router = getattr(route, "original_router", None)
        for each in [route] if router is None else router.routes:
            assert isinstance(each, Route | APIRoute), f"{each} is of a kind that is not known"
            yield from ((each.path, method) for method in each.methods or ())


def test_every_route_but_the_open_ones_wants_a_token(app: FastAPI, api: httpx.Client) -> None:
    guarded, free = set(), set()
    for path, method in paths(app):
        answer = api.request(method, path)
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            guarded.add(path)
        else:
            free.add(path)
    assert not guarded & free
    assert {path for path in free if not path.startswith(("/page/", "/docs/"))} == set(OPEN)
    assert len(guarded) == 12


def test_each_token_is_compared_as_bytes_whichever_it_is(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first that fits nor the first that does not ends it sooner."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noting(offered: Any, token: Any) -> bool:
        compared.append((offered, token))
        return compare(offered, token)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    for offered in (*TOKENS, "canary", "x", "canary-first2"):
        compared.clear()
        headers = {b"Authorization": f"Bearer {offered}".encode()}
        answer = api.post("/upscaling", content=b"{}", headers=headers)
        assert answer.status_code == (422 if offered in TOKENS else 401)
        assert compared == [(offered.encode(), token.encode()) for token in TOKENS]


def forms(token: str) -> set[str]:
    """A token as it could be written."""
    return {token, quote(token, safe=""), json.dumps(token)[1:-1], token.encode().hex()}


def requests_with(token: str) -> list[tuple[str, str, dict[str, str], Any]]:
    """Method, path, headers and fields of requests that a client has put its token into."""
    sent = {"Authorization": f"Bearer {token}"}
    return [
        ("POST", "/upscaling", sent, {**GOOD, "model": "real-esrgan-animevideo-v3"}),
        ("POST", "/upscaling", {**sent, "X-OctoAI-Async": "1"}, {**GOOD, "scale": -1}),
        ("POST", "/upscaling", sent, {**GOOD, "model": token}),
        ("POST", "/upscaling", sent, {"init_image_url": f"http://{token}.invalid/", "scale": 2}),
        ("POST", "/upscaling", sent, {"init_image_url": f"http://127.0.0.1/{token}", "scale": 2}),
        ("POST", "/upscaling", sent, {"init_image": token, "scale": token}),
        ("POST", "/upscaling", {**sent, "Accept": token, "Content-Type": token}, {}),
        ("POST", "/upscaling", {"Authorization": f"Basic {token}"}, {}),
        ("POST", "/upscaling", {"Authorization": token, "Cookie": token}, {}),
        ("POST", f"/{token}", sent, {}),
        ("GET", f"/{quote(token)}?token={token}", sent, None),
        ("GET", f"/v1/requests/{token}", sent, None),
        ("GET", f"/v1/responses/{token}", sent, None),
        ("GET", "/metrics", {**sent, "X-User-Request-ID": token}, None),
        (token, "/upscaling", sent, None),
        ("GET", "/openapi.json", sent, None),
    ]


def told(answer: httpx.Response) -> str:
    """Everything in an answer but the id, which is whatever its client gave."""
    headers = [f"{k}: {v}" for k, v in answer.headers.items() if k != "x-user-request-id"]
    return "\n".join([*headers, answer.text])


def assert_absent(token: str, text: str) -> None:
    for form in forms(token):
        assert form not in text, text[max(0, text.index(form) - 200) :][:400]


@pytest.mark.first(1)
@pytest.mark.parametrize("token", [CANARY, "canarÿ-token", "open-sesame"])
@pytest.mark.parametrize("name", [*reversed(SERVERS)])
def test_a_token_comes_out_nowhere(tmp_path: Path, name: str, token: str) -> None:
    """Neither in what a server says and writes, nor in what it answers or measures."""
    with (
        SERVERS[name](tmp_path, token) as server,
        httpx.Client(base_url=server.url, timeout=60) as api,
    ):
        for method, path, headers, fields in requests_with(token):
            content = b"" if fields is None else json.dumps(fields).encode()
            lines = {"Content-Type": "application/json", **headers}
            raw = {name.encode(): value.encode() for name, value in lines.items()}
            if token.isascii() or method != token:
                answer = api.request(method, path, headers=raw, content=content)
                assert answer.status_code < 500
                assert_absent(token, told(answer))
        found = exchange(api, f"{token} is not HTTP\r\n\r\n".encode())
        assert answers(found)[0].status == 400
        assert_absent(token, found.decode("latin-1"))
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for content in written:
        assert_absent(token, content.decode("utf-8", "replace"))
    said = b'"POST /***"'
    assert any(said in content for content in written), "what was not a secret was said"


def test_no_part_of_a_token_is_logged_of_what_is_too_long_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a method, and at the end of what would be shown of a path."""
    token = "S3cretTokenOfFortyCharactersOrSo-7890abcd"
    asked = (token, "/"), ("GET", f"/{'x' * 170}{token}"), ("GET", f"/{token}")
    with logged_without(token), serving(Resizer(), Settings(tokens=(token,))) as api:
        for method, path in asked:
            assert api.request(method, path).status_code in (404, 405)
    said = capsys.readouterr().err
    assert "(41 characters)" in said
    assert "S3cret" not in said


def test_a_token_is_not_even_in_the_log_of_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    class Indiscreet(Moody):
        def upscale(self, *args: Any) -> Any:
            raise ZeroDivisionError(f"while serving {CANARY}")

    with logged_without(CANARY, "short", "canary"):
        with serving(Indiscreet(), Settings(tokens=(CANARY,))) as api:
            answer = api.post(
                "/upscaling", json=GOOD, headers={"Authorization": f"Bearer {CANARY}"}
            )
            assert answer.status_code == 500
            assert_absent(CANARY, told(answer))
        logging.getLogger("x").info("%s and short of breath", CANARY, extra={"given": CANARY})
    said = capsys.readouterr().err
    assert "ZeroDivisionError: while serving ***" in said
    assert '"message": "*** and short of breath"' in said
    assert_absent(CANARY, said)


@pytest.mark.parametrize("name", APPS)
def test_a_token_is_in_no_representation(name: str) -> None:
    settings = Settings(tokens=(CANARY,))
    app = APPS[name](settings)
    objects: list[object] = [settings, app, app.state, *app.routes, app.user_middleware]
    objects += [vars(route) for route in app.routes]
    objects += [route.endpoint for route in app.routes if isinstance(route, Route)]
    for thing in objects:
        for text in (repr(thing), str(thing), f"{thing}"):
            assert CANARY not in text
    assert CANARY not in json.dumps(app.openapi())
