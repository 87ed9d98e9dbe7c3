"""The routes of the mock, asked by clients of httpx2."""

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import httpx
import httpx2
import pytest
from respx.mocks import HTTPCoreMocker, Mocker

from mock_server import Router, routes
from mock_server.inprocess import httpx2_mocker
from tests.mock_server.inprocess.test_transport import HEADERS, LOOPS, SMALL, URL, asked
from tests.support.service import decoded


@pytest.fixture(params=["httpcore", "httpx"])
def api(request: pytest.FixtureRequest) -> Iterator[Router]:
    with routes(using=request.param) as router:
        yield router


def asked2(fault: str = "ok", **options: Any) -> httpx2.Response:
    headers = HEADERS | {"X-Mock-Fault": fault}
    return httpx2.post(f"{URL}/upscaling", json=SMALL, headers=headers, **options)


def image_size(response: Any) -> tuple[int, int]:
    return decoded(httpx.Response(response.status_code, content=response.content)).size


def test_both_libraries_are_answered_by_one_mock(api: Router) -> None:
    assert image_size(asked2()) == (128, 128)
    assert image_size(asked()) == (128, 128)
    assert asked2("429:retry-after=7").headers["Retry-After"] == "7"
    api.mock.assert_called_with(scale=0.5, times=3)
    refused = asked2(params={"a": "ö"}, timeout=None)
    assert refused.status_code == 200
    assert refused.request.url.host == "image.octoai.run"


@pytest.mark.parametrize("run", LOOPS)
def test_asynchronous_clients_are_answered(api: Router, run: Callable[..., None]) -> None:
    async def main() -> None:
        async with httpx2.AsyncClient(base_url=URL, headers=HEADERS) as client:
            assert image_size(await client.post("/upscaling", json=SMALL)) == (128, 128)
            with pytest.raises(httpx2.ReadTimeout, match="would never respond"):
                await client.post(
                    "/upscaling", json=SMALL, headers={"X-Mock-Fault": "timeout"}, timeout=20
                )
            with pytest.raises(httpx2.RemoteProtocolError, match="peer closed connection"):
                await client.post("/upscaling", json=SMALL, headers={"X-Mock-Fault": "truncated"})

    run(main)


FAULTS: Final[list[tuple[str, type[Exception]]]] = [
    ("timeout", httpx2.ReadTimeout),
    ("reset", httpx2.ReadError),
    ("truncated", httpx2.RemoteProtocolError),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_faults_raise_errors_of_httpx2(api: Router, fault: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        asked2(fault, timeout=20)
    assert isinstance(caught.value, httpx2.TransportError)
    assert caught.value.request.url == f"{URL}/upscaling"


def test_routes_of_a_test_are_those_of_both_libraries(api: Router) -> None:
    api.post("/upscaling").mock(side_effect=[httpx.ConnectError("no"), httpx.CloseError("gone"),
                                             httpx.Response(418, json={"a": 1})])  # fmt: skip
    for error in (httpx2.ConnectError, httpx2.NetworkError):
        with pytest.raises(error):
            asked2()
    assert (asked2().status_code, api.mock.calls) == (418, [])
    api.get("https://elsewhere.example/").respond(content=b"there")
    assert httpx2.get("https://elsewhere.example/").content == b"there"
    with pytest.raises(AssertionError, match="not mocked"):
        httpx2.get("https://nobody.example/")


def test_a_body_is_streamed(api: Router) -> None:
    headers = HEADERS | {"X-Mock-Fault": "drip=2000"}
    with httpx2.stream("POST", f"{URL}/upscaling", json=SMALL, headers=headers) as answer:
        parts = list(answer.iter_raw())
    assert len(parts) > 1
    assert json.loads(b"".join(parts))["removed_for_safety"] is False


def test_nothing_stays_replaced() -> None:
    mocker = httpx2_mocker.mocker()
    assert mocker
    with routes(), routes():
        assert asked2().status_code == 200
    assert mocker.routers == []
    assert mocker._patches == []
    with routes(using=None):
        assert mocker._patches == []


def test_the_mocker_of_pytest_httpx2_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With routers of its own beside ours."""

    class Theirs(HTTPCoreMocker):
        name = "theirs"
        targets: ClassVar = [
            target.replace("httpcore.", "httpcore2.") for target in HTTPCoreMocker.targets
        ]

    monkeypatch.setattr(Mocker, "registry", {**Mocker.registry, "httpcore2": Theirs})
    import respx

    with respx.mock(using="httpcore2", assert_all_called=False) as others, routes() as api:
        others.get("https://elsewhere.example/").respond(text="there")
        assert httpx2.get("https://elsewhere.example/").text == "there"
        assert asked2().status_code == 200
        assert len(api.mock.calls) == 1
