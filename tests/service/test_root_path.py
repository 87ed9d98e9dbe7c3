"""The service and the mock behind a proxy with a path before theirs: the real nginx."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest
import trustme

from mock_server import Mock
from tests.service.test_hostile_forms import METHODS
from tests.support.both_servers import SERVERS, api_of
from tests.support.contract_cli import run_cli
from tests.support.mock_servers import SMALL, mocked
from tests.support.nginx import free_port, needs_nginx, nginx, running
from tests.support.paths import ROOT as CHECKOUT
from tests.support.service import SETTINGS, TOKENS, decoded
from upscaler.errors import InvalidSetting
from upscaler.settings import OWN_PATHS, Settings

ROOT: Final = "/ai/images"
WAYS: Final = {
    "root path, taken away": ("/", "$http_host", "UPSCALER_ROOT_PATH", ROOT),
    "root path, left": ("", "$http_host", "UPSCALER_ROOT_PATH", f"{ROOT}/"),
    "public URL, taken away": ("/", "inner.example", "UPSCALER_PUBLIC_URL", "http://{host}" + ROOT),
}
"""What nginx passes on, of the path and as the host, and the setting that goes with it."""


@contextmanager
def behind_nginx(server: str, way: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of a server behind nginx, below ROOT there."""
    path, host, name, value = WAYS[way]
    port = free_port()
    changed = Settings.from_environment({name: value.format(host=f"127.0.0.1:{port}")})
    settings = replace(changed, tokens=SETTINGS.tokens)
    with api_of(server, settings) as direct:
        inner = str(direct.base_url).rstrip("/") + path
        # Else nginx would answer //upscaling as /upscaling, which at `strict` is another path.
        rules = f"proxy_pass {inner}; proxy_set_header Host {host};"
        location = f"merge_slashes off; location {ROOT}/ {{ {rules} }}"
        with (
            nginx(folder, location, port) as url,
            httpx.Client(base_url=url + ROOT, headers=direct.headers, timeout=60) as client,
        ):
            yield client


@needs_nginx
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", SERVERS)
def test_urls_in_responses_lead_through_the_proxy(server: str, way: str, tmp_path: Path) -> None:
    with behind_nginx(server, way, tmp_path) as api:
        started = api.post("/upscaling", json=SMALL, headers={"X-OctoAI-Async": "1"}).json()
        assert started["poll_url"] == f"{api.base_url}v1/requests/{started['response_id']}"
        while "response_url" not in (polled := api.get(started["poll_url"]).json()):
            pass
        assert polled["response_url"].startswith(f"{api.base_url}v1/responses/")
        assert decoded(api.get(polled["response_url"])).size == (152, 128)
        for path in ("/", "/page/config.json", "/docs", "/openapi.json", "/healthcheck"):
            assert api.get(path).status_code == 200
        counted = 'upscaler_requests_total{model="",route="/healthcheck",status="200"} 1.0'
        assert counted in api.get("/metrics").text


@needs_nginx
@pytest.mark.slow
def test_the_contract_tests_pass_behind_the_proxy(tmp_path: Path) -> None:
    """At `strict`, which has all tests of `documented`."""
    with behind_nginx("service", "root path, taken away", tmp_path) as api:
        result = run_cli(str(api.base_url), TOKENS[0], "--level", "strict", "--concurrency", "4")
    assert result.status == 0, result.output


@needs_nginx
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.first(1)
def test_the_contract_tests_of_paths_pass_behind_the_proxy(way: str, tmp_path: Path) -> None:
    """Those of the rules that a path or a URL is part of."""
    with behind_nginx("service", way, tmp_path) as api:
        rules = ("REQ-1", "ASY-1", "ASY-2", "ASY-3", "ASY-4", "RES-9")
        result = run_cli(str(api.base_url), TOKENS[0], "--level", "strict", "--only", *rules)
    assert result.status == 0, result.output


@needs_nginx
@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_of_the_mock_leads_through_the_proxy(way: str, tmp_path: Path) -> None:
    with behind_nginx("mock", way, tmp_path) as api:
        sent = api.post("/upscaling", json=SMALL, headers={"X-Mock-Fault": "303"})
        assert sent.headers["Location"].startswith(f"{api.base_url}upscaling?")
        assert decoded(api.get(sent.headers["Location"])).size == (152, 128)


def test_the_mock_is_steered_and_notes_requests_below_the_path() -> None:
    mock = Mock(settings=replace(SETTINGS, root_path=ROOT))
    with mocked(mock) as api:
        for root in ("", ROOT):
            sent = {"sequence": "503"}
            assert api.post(f"{root}/_mock/faults", json=sent).status_code == 200
            statuses = [api.post(f"{root}/upscaling", json=SMALL).status_code for _ in range(2)]
            assert statuses == [503, 200]
            refused = api.get(f"{root}/_mock/nothing")
            assert (refused.status_code, refused.headers.get("X-Mock-Rule")) == (404, None)
            unknown = api.get(f"{root}/v1/requests/x")
            assert (unknown.status_code, unknown.headers["X-Mock-Rule"]) == (404, "ASY-4")
    assert {entry.route for entry in mock.calls} == {"upscaling"}
    assert len(mock.calls) == 4


def test_other_paths_than_the_root_are_left() -> None:
    with mocked(Mock(settings=replace(SETTINGS, root_path="/up"))) as api:
        assert api.post("/upscaling", json=SMALL).status_code == 200
        assert api.post("/up/upscaling", json=SMALL).status_code == 200
        assert api.get("/up").status_code == 200
        assert api.get("/uplivez").status_code == 404


def test_a_public_url_goes_before_the_root_path() -> None:
    """It has a path of its own, if any."""
    settings = replace(SETTINGS, root_path="/inner", public_url="https://a.example/outer")
    with mocked(Mock(settings=settings)) as api:
        for root in ("", "/inner"):
            headers = {"X-OctoAI-Async": "1"}
            started = api.post(f"{root}/upscaling", json=SMALL, headers=headers).json()
            expected = f"https://a.example/outer/v1/requests/{started['response_id']}"
            assert started["poll_url"] == expected


@pytest.mark.parametrize(
    "text", ["images", "/", "//", "/a//b", "/a b", "/a?b", "https://a/b", "/v1"]
)
def test_what_is_no_path_or_one_of_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="UPSCALER_ROOT_PATH"):
        Settings.from_environment({"UPSCALER_ROOT_PATH": text})


def test_every_path_of_ours_is_known() -> None:
    """A root path like one could not be told from it."""
    assert {path.split("/")[1] for path in METHODS} - {""} | {"_mock"} == {*OWN_PATHS}


@needs_nginx
def test_the_documented_nginx_with_tls(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs" / "SERVICE.md").read_text()
    example = text.partition("```nginx\n")[2].partition("```")[0]
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    public = f"https://127.0.0.1:{port}"
    settings = replace(SETTINGS, public_url=public)
    with api_of("service", settings) as direct:
        mine = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/images.pem": str(tmp_path / "both.pem"),
            "/etc/ssl/images.key": str(tmp_path / "both.pem"),
            "http://127.0.0.1:8000": str(direct.base_url).rstrip("/"),
        }
        for theirs, ours in mine.items():
            assert example.count(theirs) == 1
            example = example.replace(theirs, ours)
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with (
            running(tmp_path, example, port),
            httpx.Client(base_url=public, headers=direct.headers, verify=trusted) as api,
        ):
            started = api.post("/upscaling", json=SMALL, headers={"X-OctoAI-Async": "1"}).json()
            assert started["poll_url"].startswith(f"{public}/v1/requests/")
            assert api.get(started["poll_url"]).status_code == 200
