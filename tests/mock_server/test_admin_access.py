"""Who may control the mock: programs on this machine, and no web page of another site."""

import ipaddress
import re
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mock_server import Mock, MockServer, Transport, admin
from mock_server.admin_access import refusal
from mock_server.serving import cli
from tests.support.hostile_requests import SHARED
from tests.support.mock_servers import mock_child, mocked
from tests.support.raw_http import Answer, answers, exchange
from upscaler.host_port import is_authority

LISTED = "mock.example"
SEQUENCE = b'{"sequence": "503x*"}'
SIMPLE = "Content-Type: text/plain"
"""The type of a body that any page may send to any host without asking first (CORS)."""
TAKEN = (
    "127.0.0.1",
    "127.0.0.1:8000",
    "10.1.2.3:",
    "[::1]",
    "[::1]:8000",
    "[fe80::1:2]:1",
    "[::ffff:127.0.0.1]",
    "localhost",
    "LocalHost:8000",
    "a.b.localhost:1",
    "mock",
    "mock:8000",
    "upscaler_mock-1",
    "host.docker.internal:8000",
    "Host.Containers.Internal",
    LISTED,
    f"{LISTED.upper()}:8000",
)
REFUSED = (
    "attacker.example",
    "attacker.example:8000",
    "127.0.0.1.attacker.example",
    "localhost.attacker.example",
    "notlocalhost.",
    "attacker.localhost.",
    "localhost.",
    ".localhost",
    "a..localhost",
    f"{LISTED}.attacker.example",
    f"not{LISTED}",
    f"sub.{LISTED}",
    f"{LISTED}.",
    "mock.svc.cluster.local",
    "printer.local",
    "image.octoai.run",
    "127.1",
    "127.0.0.1.",
    "0x7f.0.0.1",
    "127.0.0.256",
    "[::1",
    "[]",
    "[127.0.0.1]",
    "[::1%25lo]",
    "[::1]x",
    "::1",
    "a@127.0.0.1",
    "mock:80:80",
    "mock:x",
    "mock:123456",
    "mock/",
    "mock, mock",
    "",
    ":8000",
    "m\xf6ck",
)


@pytest.fixture(scope="module")
def mock() -> Mock:
    return Mock(admin_hosts=[LISTED])


def ask(
    api: httpx.Client,
    *lines: str,
    method: str = "POST",
    path: str = "/_mock/faults",
    body: bytes = SEQUENCE,
    version: str = "1.1",
) -> Answer:
    """Send a request with these headers, and with no others that are not needed."""
    head = [f"{method} {path} HTTP/{version}", *lines, f"Content-Length: {len(body)}"]
    data = "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1") + body
    (answer,) = answers(exchange(api, data))
    return answer


def check_refused(answer: Answer, mock: Mock, *words: str) -> None:
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    for word in words:
        assert word in answer.detail
    assert mock.faults.to_dict()["api"] == {}, "and nothing of it is done"


@pytest.mark.parametrize("host", TAKEN)
def test_local_hosts_are_allowed(api: httpx.Client, mock: Mock, host: str) -> None:
    answer = ask(api, f"Host: {host}", SIMPLE)
    assert (answer.status, mock.faults.to_dict()["api"]) == (200, {"upscaling": "503x*"})


@pytest.mark.parametrize("host", REFUSED)
def test_hosts_that_others_could_own_are_refused(api: httpx.Client, mock: Mock, host: str) -> None:
    """With DNS rebinding, a page of theirs would have the origin of the mock."""
    own = f"Origin: http://{host}", "Sec-Fetch-Site: same-origin"
    refused = ask(api, f"Host: {host}", *own, SIMPLE)
    if not is_authority(host):
        assert refused.status == 400, "which is no host to any server"
        assert mock.faults.to_dict()["api"] == {}
        return
    check_refused(refused, mock, repr(host)[:60], "--admin-host NAME", LISTED, "localhost")


def test_no_host_and_several_hosts_are_refused(api: httpx.Client, mock: Mock) -> None:
    check_refused(ask(api, SIMPLE, version="1.0"), mock, "--admin-host NAME")
    two = ask(api, "Host: 127.0.0.1", "Host: attacker.example", SIMPLE)
    assert two.status == 400, "which h11 refuses before"
    assert mock.faults.to_dict()["api"] == {}
    lines = [(b"host", b"mock"), (b"host", b"mock")]
    scope = {"type": "http", "server": ("127.0.0.1", 8000), "headers": lines}
    assert refusal(scope, ()), "where a server lets them pass"


@pytest.mark.parametrize(
    "line",
    [
        "Origin: null",
        "Origin: http://attacker.example",
        "Origin: http://127.0.0.1:1",
        "Origin: http://127.0.0.1",
        "Origin: http://127.0.0.1:8000.attacker.example",
        "Origin: http://localhost:8000",
        "Origin: 127.0.0.1:8000",
        "Origin: file://",
        "Origin: ",
        "Origin: http://127.0.0.1:8000, http://attacker.example",
        "Origin: http://127.0.0.1:8000\r\nOrigin: http://attacker.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: ",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
        "Origin: http://127.0.0.1:8000\r\nSec-Fetch-Site: cross-site",
    ],
)
def test_pages_of_other_sites_are_refused(api: httpx.Client, mock: Mock, line: str) -> None:
    name = line.rpartition("\r\n")[2].partition(":")[0]
    check_refused(ask(api, "Host: 127.0.0.1:8000", SIMPLE, line), mock, f"({name}): ask from the")


@pytest.mark.parametrize(
    "line",
    [
        "Origin: http://127.0.0.1:8000",
        "Origin: https://127.0.0.1:8000",
        "Sec-Fetch-Site: none",
        "Sec-Fetch-Site: same-origin\r\nOrigin: http://127.0.0.1:8000",
        "Referer: http://attacker.example/",
    ],
)
def test_the_mocks_own_pages_and_its_user_are_allowed(api: httpx.Client, line: str) -> None:
    assert ask(api, "Host: 127.0.0.1:8000", line, body=b'{"sequence": "ok"}').status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["requests", "faults", "clock", "progress", "reset", "nothing"])
def test_every_method_and_path_is_checked(
    api: httpx.Client, mock: Mock, method: str, path: str
) -> None:
    """Reading the journal, too, and the preflight requests of CORS."""
    preflight = "Access-Control-Request-Method: POST"
    for lines in (
        ["Host: attacker.example"],
        ["Host: mock", "Origin: http://attacker.example", preflight],
        ["Host: mock", "Sec-Fetch-Site: cross-site"],
    ):
        for place in (f"/_mock/{path}", f"/%5fmock/{path}", f"/_mock%2F{path}?x"):
            answer = ask(api, *lines, method=method, path=place, body=b"{}")
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert mock.journal.find() == []


def test_other_paths_are_not_checked(api: httpx.Client) -> None:
    lines = ["Host: attacker.example", "Origin: null", "Sec-Fetch-Site: cross-site"]
    assert ask(api, *lines, method="GET", path="/livez", body=b"").status == 200


labels = st.from_regex(re.compile(r"[a-z0-9_-]{1,12}", re.ASCII), fullmatch=True)
ports = st.sampled_from(["", ":", ":80", ":8000"])


def is_v4(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


@SHARED
@given(st.lists(labels, min_size=2, max_size=5).map(".".join), ports)
@example("localhost.localdomain", "")
def test_names_with_a_dot_must_be_listed(
    api: httpx.Client, mock: Mock, name: str, port: str
) -> None:
    answer = ask(api, f"Host: {name}{port}", SIMPLE)
    if is_v4(name) or name == LISTED or name.endswith(".localhost"):
        assert answer.status == 200
        mock.reset()
    else:
        check_refused(answer, mock)


@SHARED
@given(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map("[{}]".format), ports)
def test_every_ip_address_is_allowed(api: httpx.Client, name: str, port: str) -> None:
    assert ask(api, f"Host: {name}{port}", method="GET", body=b"").status == 200


@SHARED
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20))
def test_any_host_is_allowed_or_refused(api: httpx.Client, mock: Mock, host: str) -> None:
    answer = ask(api, f"Host: {host}", SIMPLE)
    if answer.status == 200:
        assert "." not in host or is_v4(host.strip(" \xa0").partition(":")[0]) or "[" in host
        mock.reset()
    else:
        assert answer.status in (400, 403)
        assert mock.faults.to_dict()["api"] == {}


def test_clients_in_the_process_may_use_any_host(mock: Mock) -> None:
    """No browser can reach an app without a socket."""
    url = "https://image.octoai.run"
    with httpx.Client(transport=Transport(mock), base_url=url) as client:
        assert client.post("/_mock/reset").status_code == 200
        assert client.get("/_mock/requests").status_code == 200
    for name in (url, "http://testserver", "http://a.b:8000", "http://127.0.0.1"):
        assert TestClient(mock.app, base_url=name).post("/_mock/reset").status_code == 200


def test_the_command_allows_admin_hosts_and_its_host(tmp_path: Path) -> None:
    options = ["--admin-host", "one.example", "--admin-host", "Two.Example"]
    with mock_child(tmp_path, "--host", "localhost", *options) as child:
        for host, status in (
            ("one.example", 200),
            ("two.example:80", 200),
            ("localhost", 200),
            ("three.example", 403),
        ):
            answer = httpx.get(f"{child.url}/_mock/faults", headers={"Host": host})
            assert answer.status_code == status, host
        told = answer.json()["detail"]
        assert "'three.example'" in told
        assert "one.example, two.example" in told


def test_the_host_it_listens_on_is_allowed() -> None:
    for host, status in (("Mock.Test", 200), ("::1", 403), ("", 403)):
        mock = cli._create_mock(cli._create_parser().parse_args(["--host", host]))
        with mocked(mock) as api:
            assert ask(api, "Host: mock.test:80", SIMPLE).status == status


def test_an_invalid_host_name_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("", "http://mock.example", "mock.example:8000", "*.example", "a..b", "m\xf6ck"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["--admin-host", name])
        assert ended.value.code == 2
        assert "is not a host name such as mock.example" in capsys.readouterr().err
        with pytest.raises(ValueError, match="is not a host name"):
            MockServer(admin_hosts=[name])


def test_a_page_with_another_scheme_is_refused(api: httpx.Client) -> None:
    """Such as an app whose pages have the host name of this machine."""
    host = f"{api.base_url.host}:{api.base_url.port}"
    for scheme, status in (("http", 200), ("https", 200), ("capacitor", 403), ("x", 403)):
        answer = api.post("/_mock/reset", headers={"Origin": f"{scheme}://{host}"})
        assert answer.status_code == status


@pytest.mark.slow
def test_a_body_that_does_not_arrive_is_a_408(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "BODY_DEADLINE_S", 0.3)
    head = b"POST /_mock/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
    (answer,) = answers(exchange(api, head))
    assert answer.status == 408
