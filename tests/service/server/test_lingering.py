"""A refusal that is given before the body is there reaches its client, whatever that one does."""

import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.both_servers import SERVERS, api_of
from tests.support.nginx import free_port, needs_nginx, nginx
from tests.support.raw_http import CLOSE, HEAD, answers, connected, rest
from tests.support.requirements import program
from tests.support.service import SETTINGS
from upscaler.service.server import lingering

MIB = 2**20
TIGHT = replace(SETTINGS, queue_memory=4 * MIB)
"""There is no room for any of the bodies here."""
RIGHT, WRONG = "Bearer first-token", "Bearer wrong-token"
CASES = {401: (WRONG, 12, SETTINGS), 413: (RIGHT, 40, SETTINGS), 503: (RIGHT, 12, TIGHT)}
"""Each refusal that comes before the body: the token, the size of the body in MiB, the settings."""
CURL = program("curl")

pytestmark = pytest.mark.parametrize("server", SERVERS)


def head_of(status: int, *more: bytes) -> tuple[bytes, bytes]:
    """The head and the body of a request that is refused so."""
    token, mib, _ = CASES[status]
    head = HEAD.replace(RIGHT.encode(), token.encode()) + b"".join(more)
    return head + b"Content-Length: %d\r\n\r\n" % (mib * MIB), b" " * (mib * MIB)


def told_urllib(url: str, status: int) -> object:
    """What urllib gets, which always sends `Connection: close` and all of a body."""
    token, mib, _ = CASES[status]
    headers = {"Authorization": token, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/upscaling", b" " * (mib * MIB), headers)
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)


@pytest.mark.parametrize("status", CASES)
def test_a_refusal_is_not_lost_when_the_connection_is_to_be_closed(
    server: str, status: int
) -> None:
    with api_of(server, CASES[status][2]) as api:
        found = [told_urllib(str(api.base_url), status) for _ in range(4)]
    assert found == [status] * 4


@pytest.mark.first(6)
@pytest.mark.parametrize("status", CASES)
@pytest.mark.parametrize("close", [b"", CLOSE], ids=["kept", "closed"])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["", "expecting"])
def test_a_client_that_sends_all_before_it_reads_is_told(
    server: str, status: int, close: bytes, expect: bytes
) -> None:
    """And a connection that is kept can be used further."""
    head, body = head_of(status, close, expect)
    with api_of(server, CASES[status][2]) as api, connected(api) as connection:
        connection.sendall(head)
        time.sleep(0.1)  # so that it has been refused
        connection.sendall(body)
        if not close:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n")
        found = [answer.status for answer in answers(rest(connection))]
    assert found == ([status] if close else [status, 200])


@pytest.mark.first(2)
@pytest.mark.parametrize("status", CASES)
def test_a_client_of_httpx_is_told_and_can_go_on(server: str, status: int) -> None:
    token, mib, settings = CASES[status]
    headers = {"Authorization": token, "Content-Type": "application/json"}
    with api_of(server, settings) as api:
        for _ in range(3):
            answer = api.post("/upscaling", content=b" " * (mib * MIB), headers=headers, timeout=60)
            assert answer.status_code == status
            assert api.get("/livez").status_code == 200


@pytest.mark.first(6)
@pytest.mark.skipif(not CURL, reason="curl is not installed")
@pytest.mark.parametrize("status", CASES)
@pytest.mark.parametrize("options", [[], ["--http1.0"], ["-H", "Expect:"]], ids=str)
def test_curl_is_told(server: str, status: int, options: list[str], tmp_path: Path) -> None:
    token, mib, settings = CASES[status]
    body = tmp_path / "body"
    body.write_bytes(b" " * (mib * MIB))
    with api_of(server, settings) as api:
        command = [
            CURL, "-sS", *options, "-o", "/dev/null", "-w", "%{http_code}",
            "-H", f"Authorization: {token}", "-H", "Content-Type: application/json",
            "--data-binary", f"@{body}", f"{api.base_url}/upscaling",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == str(status), done.stderr


@pytest.mark.first(1)
@pytest.mark.parametrize("close", [b"", CLOSE], ids=["kept", "closed"])
def test_a_client_at_1_mb_a_second_is_told(
    server: str, close: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far longer than the time that a client has that sends nothing."""
    monkeypatch.setattr(lingering, "LINGER_S", 1.0)
    size = 3_000_000
    head = HEAD.replace(b"first", b"wrong") + close + b"Content-Length: %d\r\n\r\n" % size
    with api_of(server) as api, connected(api) as connection:
        connection.sendall(head)
        began_s = time.monotonic()
        for sent in range(0, size, 100_000):
            time.sleep(max(0, began_s + sent / 1_000_000 - time.monotonic()))
            connection.sendall(b" " * 100_000)
        assert connection.recv(13) == b"HTTP/1.1 401 "


@pytest.mark.first(2)
@pytest.mark.parametrize("close", [b"", CLOSE], ids=["kept", "closed"])
@pytest.mark.parametrize("pace", [0, 0.02], ids=["fast", "slow"])
def test_a_client_that_sends_for_ever_is_cut_off(
    server: str, close: bytes, pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether by how much it sends or by how slowly."""
    monkeypatch.setattr(lingering, "LINGER_S", 0.5)
    monkeypatch.setattr(lingering, "LINGER_BYTES", 8 * MIB)
    head = HEAD.replace(b"first", b"wrong") + close + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"1\r\nx\r\n" if pace else b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    sent_bytes, began_s = 0, time.monotonic()
    with api_of(server) as api, connected(api) as connection, suppress(OSError):
        connection.sendall(head)
        while time.monotonic() - began_s < 20:
            connection.sendall(chunk)
            sent_bytes += len(chunk)
            time.sleep(pace)
    assert time.monotonic() - began_s < 20
    assert pace or sent_bytes >= 8 * MIB


@pytest.mark.slow
@needs_nginx
@pytest.mark.parametrize("status", CASES)
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_refusal_is_not_lost_behind_nginx(
    server: str, status: int, buffering: str, tmp_path: Path
) -> None:
    with api_of(server, CASES[status][2]) as api:
        location = f"proxy_pass {api.base_url}; proxy_request_buffering {buffering};"
        with nginx(tmp_path, f"location / {{ {location} }}", free_port()) as url:
            found = [told_urllib(url, status) for _ in range(4)]
    assert found == [status] * 4, (tmp_path / "error.log").read_text()
