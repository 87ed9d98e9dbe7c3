"""Faults as a client sees them on a real socket."""

import base64
import io
import json
import random
import socket
import struct
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mock_server import Mock, PollScript
from mock_server.faults.fault import (
    HEADER,
    STATUSES,
    Latency,
)
from mock_server.rules.middleware import RULE_HEADER
from tests.support.mock_servers import SMALL, mock_child, mocked
from tests.support.raw_http import PATIENCE_S, answers, connected, request, rest
from tests.support.service import decoded, running, upscale
from upscaler.api.headers import OUTPUT_SIZE_HEADER, REQUEST_ID_HEADER
from upscaler.api.limits import MAX_BODY_BYTES

HEAD = request(SMALL).replace(b"first-token", b"mock-token")


def with_fault(api: httpx.Client, fault: str, **fields: Any) -> httpx.Response:
    return api.post("/upscaling", json=SMALL | fields, headers={HEADER: fault})


def statuses(api: httpx.Client, times: int) -> list[int]:
    return [upscale(api, **SMALL).status_code for _ in range(times)]


# Faults that replace the response


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_fault_has_the_shape_of_an_error(api: httpx.Client, status: int) -> None:
    answer = with_fault(api, str(status))
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"detail"}
    assert isinstance(answer.json()["detail"], str)
    assert len(answer.headers[REQUEST_ID_HEADER]) == 32
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert answer.headers.get("Retry-After") == ("1" if status in (429, 503) else None)


def test_a_401_fault_equals_the_services_401(api: httpx.Client) -> None:
    told = with_fault(api, "401")
    true = api.post("/upscaling", json=SMALL, headers={"Authorization": "Bearer wrong"})
    assert (told.status_code, told.content) == (true.status_code, true.content)
    strip = {"date", REQUEST_ID_HEADER.lower()}
    assert {k: v for k, v in told.headers.items() if k not in strip} == {
        k: v for k, v in true.headers.items() if k not in strip
    }


def test_retry_after_can_be_chosen(api: httpx.Client) -> None:
    assert with_fault(api, "429:retry-after=7").headers["Retry-After"] == "7"
    assert with_fault(api, "500:retry-after=0").headers["Retry-After"] == "0"


def test_an_invalid_header_is_a_400_with_the_faults(api: httpx.Client) -> None:
    answer = with_fault(api, "teapot")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{HEADER}: unknown fault 'teapot'; ")
    assert "removed-for-safety" in answer.json()["detail"]
    assert with_fault(api, "429,ok").status_code == 400, "a request has one fault"
    assert upscale(api, **SMALL).status_code == 200


def test_timeout_sends_nothing_until_the_client_disconnects(api: httpx.Client, mock: Mock) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: timeout"))
        while not mock.calls:
            time.sleep(0.01)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    (call,) = mock.calls
    assert (call.status, call.fault, call.fault_from) == (None, "timeout", "header")
    assert call.fields
    assert call.fields["scale"] == 0.5


def test_shutdown_ends_timeouts(tmp_path: Any) -> None:
    headers = {"Authorization": "Bearer mock-token", HEADER: "timeout"}
    with mock_child(tmp_path) as child:
        url = httpx.URL(child.url)
        held = socket.create_connection((url.host, url.port or 80))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        held.sendall(f"GET /livez HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        while not httpx.get(f"{child.url}/_mock/requests").json()["requests"]:
            time.sleep(0.01)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30
    with held:
        assert rest(held) == b""


def test_303_redirects_to_the_response_as_modal_does(api: httpx.Client, mock: Mock) -> None:
    answer = with_fault(api, "303")
    assert (answer.status_code, answer.content) == (303, b"")
    url = httpx.URL(answer.headers["Location"])
    assert (url.host, url.port, url.path) == ("127.0.0.1", api.base_url.port, "/upscaling")
    assert url.params["__modal_attempt_token"]
    for _ in range(2):
        got = httpx.get(url)
        assert got.content == upscale(api, **SMALL).content
        assert got.headers[OUTPUT_SIZE_HEADER] == "152x128"
    for method in ("POST", "PUT", "DELETE"):
        refused = api.request(method, url)
        assert refused.status_code == 400
        assert "only GET" in refused.json()["detail"]
    assert api.get("/upscaling?__modal_attempt_token=x").status_code == 404
    assert mock.journal.find(method="GET", route=None)[0].status == 200


def test_a_client_can_follow_the_redirect(api: httpx.Client) -> None:
    headers = {HEADER: "303"}
    answer = api.post("/upscaling?a=b", json=SMALL, headers=headers, follow_redirects=True)
    assert decoded(answer).size == (152, 128)
    assert len(answer.history) == 1
    assert answer.url.params["a"] == "b"
    answer = api.post("/upscaling", json={}, headers=headers, follow_redirects=True)
    assert answer.status_code == 422


def test_the_oldest_redirected_requests_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mock_server.faults.middleware.MAX_ATTEMPTS", 2)
    with mocked(Mock()) as api:
        urls = [with_fault(api, "303").headers["Location"] for _ in range(3)]
        assert [api.get(url).status_code for url in urls] == [404, 200, 200]


@pytest.mark.parametrize("fault", ["429", "303", "timeout"])
def test_a_fault_reads_no_body_over_the_limit(api: httpx.Client, fault: str) -> None:
    head = (
        b"POST /upscaling HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mock-token\r\n"
        b"X-Mock-Fault: %s\r\nContent-Length: %d\r\n\r\n" % (fault.encode(), MAX_BODY_BYTES + 1)
    )
    with connected(api) as connection:
        connection.settimeout(0.5 if fault == "timeout" else PATIENCE_S)
        connection.sendall(head)
        found = answers(rest(connection))
    assert [answer.status for answer in found] == {"429": [429], "303": [413], "timeout": []}[fault]


# Faults that change the response


def test_latency_delays_the_response(api: httpx.Client) -> None:
    began_s = time.monotonic()
    assert decoded(with_fault(api, "latency=0.3")).size == (152, 128)
    assert 0.3 <= time.monotonic() - began_s < 20


def test_latency_and_a_status_can_be_combined(api: httpx.Client) -> None:
    began_s = time.monotonic()
    assert with_fault(api, "latency=0.3+429").status_code == 429
    assert time.monotonic() - began_s >= 0.3


@given(st.floats(0, 10), st.floats(0, 3), st.integers())
def test_a_latency_is_within_its_distribution(low: float, width: float, seed: int) -> None:
    source = random.Random(seed)
    assert low <= Latency("uniform", (low, low + width)).draw(source) <= low + width + 1e-9
    assert Latency("fixed", (low,)).draw(source) == low
    assert Latency("normal", (low, width)).draw(source) >= 0


def test_a_normal_latency_has_its_mean_and_deviation() -> None:
    drawn = [Latency("normal", (5, 0.5)).draw(random.Random(seed)) for seed in range(500)]
    mean = sum(drawn) / len(drawn)
    deviation = (sum((each - mean) ** 2 for each in drawn) / len(drawn)) ** 0.5
    assert 4.9 < mean < 5.1
    assert 0.4 < deviation < 0.6


def received(connection: socket.socket) -> tuple[bytes, OSError | None]:
    """Return what is received until the connection ends, and how it ends."""
    data = bytearray()
    try:
        while part := connection.recv(2**16):
            data += part
    except OSError as error:
        return bytes(data), error
    return bytes(data), None


def test_reset_resets_in_the_middle_of_the_body(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: reset"))
        data, error = received(connection)
    assert isinstance(error, ConnectionResetError)
    (answer,) = answers(data)
    assert answer.status == 200
    assert len(answer.body) == int(answer.headers["content-length"]) // 2
    with pytest.raises(httpx.ReadError):
        with_fault(api, "reset")


def test_truncated_closes_in_the_middle_of_the_body(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: truncated"))
        data, error = received(connection)
    assert error is None
    (answer,) = answers(data)
    assert len(answer.body) == int(answer.headers["content-length"]) // 2
    with pytest.raises(httpx.RemoteProtocolError, match="complete message"):
        with_fault(api, "truncated")


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_broken_connections_log_no_error(
    api: httpx.Client, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/livez", "/healthcheck", "/nothing"):
        with pytest.raises(httpx.TransportError):
            api.get(path, headers={HEADER: fault})
    assert api.get("/livez").status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_connections_break_under_another_server(fault: str) -> None:
    mock = Mock()
    headers = {"Authorization": f"Bearer {mock.tokens[0]}", HEADER: fault}
    with running(mock.app) as url, pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/upscaling", json=SMALL, headers=headers)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [20_000, 50_000])
def test_drip_throttles_the_body(api: httpx.Client, rate: int) -> None:
    whole = upscale(api, **SMALL)
    headers = {HEADER: f"drip={rate}"}
    with api.stream("POST", "/upscaling", json=SMALL, headers=headers) as answer:
        began_s = time.monotonic()
        parts = [(time.monotonic() - began_s, part) for part in answer.iter_raw()]
    assert b"".join(part for _, part in parts) == whole.content
    expected_s = len(whole.content) / rate
    assert 0.8 * expected_s < parts[-1][0] < 5 * expected_s + PATIENCE_S
    assert len(parts) > 10
    arrived = 0
    for at_s, part in parts:
        arrived += len(part)
        # Its first part may have waited for the client.
        assert arrived < rate * (at_s + 0.2) + 0.2 * len(whole.content), "never faster"


@pytest.mark.parametrize("fault", ["drip=1000", "malformed", "malformed+drip=1000"])
def test_a_fault_does_not_change_which_rules_a_refusal_names(
    api: httpx.Client, mock: Mock, fault: str
) -> None:
    """The header comes before the body: it must not be made of a body that is in pieces."""
    mock.jobs.progress = PollScript(pending=1)
    job = api.post("/upscaling", json=SMALL, headers={"X-OctoAI-Async": "1"}).json()["response_id"]
    for headers in ({}, {HEADER: fault}):
        refused = api.post("/upscaling", json=SMALL | {"scale": 0, "x": 1}, headers=headers)
        assert (refused.status_code, refused.headers[RULE_HEADER]) == (422, "REQ-6, REQ-11")
        pending = api.get(f"/v1/responses/{job}", headers=headers)
        assert (pending.status_code, pending.headers[RULE_HEADER]) == (404, "ASY-3")


@pytest.mark.parametrize("scale", [0.5, 3])
def test_malformed_json_cannot_be_parsed(api: httpx.Client, scale: float) -> None:
    answer = with_fault(api, "malformed", scale=scale)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_malformed_file_is_not_an_image(api: httpx.Client) -> None:
    headers = {HEADER: "malformed", "Accept": "image/png"}
    answer = api.post("/upscaling", json=SMALL, headers=headers)
    assert answer.headers["Content-Type"] == "image/png"
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(answer.content))


def test_bad_base64_is_refused_by_any_decoder(api: httpx.Client) -> None:
    text = with_fault(api, "bad-base64").json()["image_b64"]
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"base64|[Pp]adding"):
            base64.b64decode(text, validate=strict)


def test_bad_base64_leaves_other_responses_alone(api: httpx.Client) -> None:
    assert (
        with_fault(api, "bad-base64", scale=-1).content
        == upscale(api, **SMALL | {"scale": -1}).content
    )
    file = {"Accept": "image/png"}
    answer = api.post("/upscaling", json=SMALL, headers={HEADER: "bad-base64", **file})
    assert answer.content == api.post("/upscaling", json=SMALL, headers=file).content


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("accept", ["application/json", "image/*"])
def test_a_wrong_image_is_valid_and_its_headers_are_right(
    api: httpx.Client, encoding: str, accept: str
) -> None:
    """One pixel too narrow, or in the other format; everything else is unchanged."""
    fields = {"output_image_encoding": encoding}
    other = {"png": "JPEG", "jpeg": "PNG"}[encoding]
    wrong = {"wrong-size": ((151, 128), encoding.upper()), "wrong-encoding": ((152, 128), other)}
    right = api.post("/upscaling", json=SMALL | fields, headers={"Accept": accept})
    for fault, (size, kind) in wrong.items():
        headers = {HEADER: fault, "Accept": accept}
        answer = api.post("/upscaling", json=SMALL | fields, headers=headers)
        for name in ("Content-Type", OUTPUT_SIZE_HEADER):
            assert answer.headers[name] == right.headers[name]
        is_json = accept == "application/json"
        image = decoded(answer) if is_json else Image.open(io.BytesIO(answer.content))
        image.load()
        assert (image.size, image.format) == (size, kind)


def test_removed_for_safety_replaces_images_only(api: httpx.Client) -> None:
    """RES-3."""
    answer = with_fault(api, "removed-for-safety")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"image_b64": None, "removed_for_safety": True}
    assert with_fault(api, "removed-for-safety", scale=-1).status_code == 422
    dry = {HEADER: "removed-for-safety", "X-Upscaler-Dry-Run": "1"}
    assert "tiles" in api.post("/upscaling", json=SMALL, headers=dry).json()


def test_faults_can_be_combined(api: httpx.Client) -> None:
    answer = with_fault(api, "wrong-size+wrong-encoding+drip=200000+latency=0.1")
    assert (decoded(answer).size, decoded(answer).format) == ((151, 128), "JPEG")
    with pytest.raises(httpx.RemoteProtocolError):
        with_fault(api, "429+truncated")


@pytest.mark.slow
def test_clients_that_reset_do_not_affect_others(api: httpx.Client) -> None:
    """Clients that reset during a latency, a throttled body, or a timeout."""
    for fault in (b"latency=30", b"timeout", b"drip=10"):
        with connected(api) as connection:
            connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: " + fault))
            time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert statuses(api, 2) == [200, 200]
