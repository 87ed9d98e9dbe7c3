"""What goes wrong on purpose, as a client sees it on a real socket."""

import base64
import io
import json
import random
import socket
import struct
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mock_server import Mock
from mock_server.faults.fault import (
    BREAKING,
    DISTRIBUTIONS,
    FLAGS,
    HEADER,
    REPLACING,
    RETRY_AFTER_S,
    STATUSES,
    Fault,
    FaultError,
    Latency,
    Step,
    format_sequence,
    parse_fault,
    parse_sequence,
)
from mock_server.faults.schedule import FaultSchedule
from tests.support.mock_servers import mock_child, mocked
from tests.support.raw_http import answers, connected, request, rest
from tests.support.service import GOOD, decoded, running, upscale
from upscaler.api.request import MAX_BODY_BYTES, OUTPUT_SIZE_HEADER, REQUEST_ID_HEADER

SMALL = {**GOOD, "scale": 0.5}
HEAD = request(SMALL).replace(b"first-token", b"mock-token")


def with_fault(api: httpx.Client, fault: str, **fields: Any) -> httpx.Response:
    return api.post("/upscaling", json=SMALL | fields, headers={HEADER: fault})


def statuses(api: httpx.Client, times: int) -> list[int]:
    return [upscale(api, **SMALL).status_code for _ in range(times)]


# What is written


numbers = st.integers(0, 10**9).map(lambda number: number / 10**6)
latencies = st.sampled_from(sorted(DISTRIBUTIONS)).flatmap(
    lambda name: st.lists(numbers, min_size=DISTRIBUTIONS[name], max_size=DISTRIBUTIONS[name]).map(
        lambda drawn: Latency(name, tuple(sorted(drawn)))
    )
)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    words = set(draw(st.sets(st.sampled_from(sorted(set(FLAGS) - {*REPLACING, *BREAKING})))))
    words |= set(draw(st.sampled_from([(), *((word,) for word in BREAKING)])))
    fault = Fault(
        latency=draw(st.none() | latencies),
        drip=draw(st.none() | st.integers(10**6, 10**9).map(lambda drops: drops / 10**6)),
        flags=frozenset(words),
    )
    word = draw(st.none() | st.sampled_from(REPLACING))
    if word:
        return replace(fault, flags=fault.flags | {word})
    status = draw(st.none() | st.sampled_from(STATUSES))
    if status is None:
        return fault
    wait_s = draw(st.integers(0, 99_999)) if draw(st.booleans()) else RETRY_AFTER_S.get(status)
    return replace(fault, status=status, retry_after_s=wait_s)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Step, ...]:
    steps = [
        Step(fault, draw(st.integers(1, 999_999)))
        for fault in draw(st.lists(faults(), min_size=1, max_size=4))
    ]
    if draw(st.booleans()):
        steps[-1] = steps[-1]._replace(times=None)
    return tuple(steps)


@given(sequences())
def test_what_is_written_of_a_sequence_is_that_sequence(steps: tuple[Step, ...]) -> None:
    assert parse_sequence(format_sequence(steps)) == steps


@given(st.text(max_size=30) | st.text("0123456789x*+,=:.oklatencydrip-", max_size=30))
@example("latency=" + "9" * 400)
@example("ok+" * 500)
def test_a_text_is_a_sequence_or_is_refused(text: str) -> None:
    try:
        steps = parse_sequence(text)
    except FaultError:
        return
    assert parse_sequence(format_sequence(steps)) == steps


def test_spaces_do_not_count_and_a_number_repeats() -> None:
    assert format_sequence(
        parse_sequence(" 429 x 2 , ok,latency=0.20 + 503x*".replace(" x ", "x"))
    ) == ("429x2,ok,latency=0.2+503x*")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown fault ''; use one of ok, 401,"),
        ("teapot", "unknown fault 'teapot'; use one of ok, 401,"),
        ("418", "the status 418 is not supported; use one of 401, 404"),
        ("429x0", "unknown fault '429x0'"),
        ("401+429", "429 cannot be combined with 401"),
        ("timeout+503", "timeout and 503 cannot be combined"),
        ("reset+truncated", "reset and truncated cannot be combined"),
        ("reset+reset", "reset is given twice"),
        ("503x*,ok", "steps after x* are never reached"),
        ("latency=soon", "expected a number such as 20 or 0.25"),
        ("latency=3601", "latency is in seconds, up to 3600"),
        ("latency=normal:1", "latency is in seconds, up to 3600"),
        ("latency=uniform:2:1", "must not be the larger one"),
        ("drip=0.5", "drip must be at least 1 byte per second"),
        ("429:retry-after=soon", "unknown fault '429:retry-after=soon'"),
    ],
)
def test_what_is_no_fault_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_sequence(text)
    assert words in str(caught.value)


# What is answered instead


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_is_answered_in_the_contracts_shape(api: httpx.Client, status: int) -> None:
    answer = with_fault(api, str(status))
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"detail"}
    assert isinstance(answer.json()["detail"], str)
    assert len(answer.headers[REQUEST_ID_HEADER]) == 32
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert answer.headers.get("Retry-After") == ("1" if status in (429, 503) else None)


def test_a_refusal_is_what_the_service_says(api: httpx.Client) -> None:
    told = with_fault(api, "401")
    true = api.post("/upscaling", json=SMALL, headers={"Authorization": "Bearer wrong"})
    assert (told.status_code, told.content) == (true.status_code, true.content)
    strip = {"date", REQUEST_ID_HEADER.lower()}
    assert {k: v for k, v in told.headers.items() if k not in strip} == {
        k: v for k, v in true.headers.items() if k not in strip
    }


def test_retry_after_is_what_is_asked_for(api: httpx.Client) -> None:
    assert with_fault(api, "429:retry-after=7").headers["Retry-After"] == "7"
    assert with_fault(api, "500:retry-after=0").headers["Retry-After"] == "0"


def test_a_wrong_header_is_a_400_that_names_what_is_possible(api: httpx.Client) -> None:
    answer = with_fault(api, "teapot")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{HEADER}: unknown fault 'teapot'; ")
    assert "removed-for-safety" in answer.json()["detail"]
    assert with_fault(api, "429,ok").status_code == 400, "a request has one fault"
    assert upscale(api, **SMALL).status_code == 200


def test_nothing_is_answered_until_the_client_goes(api: httpx.Client, mock: Mock) -> None:
    began_s = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        api.post("/upscaling", json=SMALL, headers={HEADER: "timeout"}, timeout=0.4)
    assert time.monotonic() - began_s >= 0.4
    (call,) = mock.calls
    assert (call.status, call.fault, call.fault_from) == (None, "timeout", "header")
    assert call.fields
    assert call.fields["scale"] == 0.5


def test_a_mock_that_is_told_to_stop_does_not_wait_for_what_it_holds_up(tmp_path: Any) -> None:
    headers = {"Authorization": "Bearer mock-token", HEADER: "timeout"}
    with mock_child(tmp_path) as child:
        url = httpx.URL(child.url)
        held = socket.create_connection((url.host, url.port or 80))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        held.sendall(f"GET /livez HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        time.sleep(0.3)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 10
    with held:
        assert rest(held) == b""


def test_a_redirect_leads_to_the_answer_as_at_modal(api: httpx.Client, mock: Mock) -> None:
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


def test_a_client_that_follows_redirects_gets_its_picture_or_its_error(api: httpx.Client) -> None:
    headers = {HEADER: "303"}
    answer = api.post("/upscaling?a=b", json=SMALL, headers=headers, follow_redirects=True)
    assert decoded(answer).size == (152, 128)
    assert len(answer.history) == 1
    assert answer.url.params["a"] == "b"
    answer = api.post("/upscaling", json={}, headers=headers, follow_redirects=True)
    assert answer.status_code == 422


def test_only_so_many_requests_are_kept_for_those_who_were_redirected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mock_server.faults.middleware.MAX_ATTEMPTS", 2)
    with mocked(Mock()) as api:
        urls = [with_fault(api, "303").headers["Location"] for _ in range(3)]
        assert [api.get(url).status_code for url in urls] == [404, 200, 200]


@pytest.mark.parametrize("fault", ["429", "303", "timeout"])
def test_a_body_that_is_too_long_is_not_read_for_a_fault(api: httpx.Client, fault: str) -> None:
    head = (
        b"POST /upscaling HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mock-token\r\n"
        b"X-Mock-Fault: %s\r\nContent-Length: %d\r\n\r\n" % (fault.encode(), MAX_BODY_BYTES + 1)
    )
    with connected(api) as connection:
        connection.settimeout(0.5)
        connection.sendall(head)
        found = answers(rest(connection))
    assert [answer.status for answer in found] == {"429": [429], "303": [413], "timeout": []}[fault]


# How it is answered


def test_an_answer_is_held_back(api: httpx.Client) -> None:
    began_s = time.monotonic()
    assert decoded(with_fault(api, "latency=0.3")).size == (152, 128)
    assert 0.3 <= time.monotonic() - began_s < 2


def test_latency_and_a_refusal_go_together(api: httpx.Client) -> None:
    began_s = time.monotonic()
    assert with_fault(api, "latency=0.3+429").status_code == 429
    assert time.monotonic() - began_s >= 0.3


@given(st.floats(0, 10), st.floats(0, 3), st.integers())
def test_a_latency_is_drawn_from_what_it_says(low: float, width: float, seed: int) -> None:
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
    """What comes until the connection ends, and how it ends."""
    data = bytearray()
    try:
        while part := connection.recv(2**16):
            data += part
    except OSError as error:
        return bytes(data), error
    return bytes(data), None


def test_a_connection_is_reset_in_the_middle_of_the_body(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: reset"))
        data, error = received(connection)
    assert isinstance(error, ConnectionResetError)
    (answer,) = answers(data)
    assert answer.status == 200
    assert len(answer.body) == int(answer.headers["content-length"]) // 2
    with pytest.raises(httpx.ReadError):
        with_fault(api, "reset")


def test_a_truncated_body_ends_the_connection_in_its_middle(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: truncated"))
        data, error = received(connection)
    assert error is None
    (answer,) = answers(data)
    assert len(answer.body) == int(answer.headers["content-length"]) // 2
    with pytest.raises(httpx.RemoteProtocolError, match="complete message"):
        with_fault(api, "truncated")


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_whatever_breaks_the_connection_is_no_fault_of_ours(
    api: httpx.Client, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/livez", "/healthcheck", "/nothing"):
        with pytest.raises(httpx.TransportError):
            api.get(path, headers={HEADER: fault})
    assert api.get("/livez").status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_under_another_server_a_connection_ends_all_the_same(fault: str) -> None:
    mock = Mock()
    headers = {"Authorization": f"Bearer {mock.tokens[0]}", HEADER: fault}
    with running(mock.app) as url, pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/upscaling", json=SMALL, headers=headers)


@pytest.mark.parametrize("rate", [20_000, 50_000])
def test_a_body_drips(api: httpx.Client, rate: int) -> None:
    whole = upscale(api, **SMALL)
    headers = {HEADER: f"drip={rate}"}
    with api.stream("POST", "/upscaling", json=SMALL, headers=headers) as answer:
        began_s = time.monotonic()
        parts = [(time.monotonic() - began_s, part) for part in answer.iter_raw()]
    assert b"".join(part for _, part in parts) == whole.content
    expected_s = len(whole.content) / rate
    assert 0.8 * expected_s < parts[-1][0] < 1.3 * expected_s + 0.5
    assert len(parts) > 10
    at_half = sum(len(part) for at_s, part in parts if at_s <= expected_s / 2)
    assert 0.3 < at_half / len(whole.content) < 0.7, "at an even rate"


@pytest.mark.parametrize("scale", [0.5, 3])
def test_a_malformed_answer_is_no_json(api: httpx.Client, scale: float) -> None:
    answer = with_fault(api, "malformed", scale=scale)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_malformed_file_is_no_picture(api: httpx.Client) -> None:
    headers = {HEADER: "malformed", "Accept": "image/png"}
    answer = api.post("/upscaling", json=SMALL, headers=headers)
    assert answer.headers["Content-Type"] == "image/png"
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(answer.content))


def test_bad_base64_is_refused_by_whoever_reads_base64(api: httpx.Client) -> None:
    text = with_fault(api, "bad-base64").json()["image_b64"]
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"base64|[Pp]adding"):
            base64.b64decode(text, validate=strict)


def test_an_answer_without_base64_has_no_bad_one(api: httpx.Client) -> None:
    assert (
        with_fault(api, "bad-base64", scale=-1).content
        == upscale(api, **SMALL | {"scale": -1}).content
    )
    file = {"Accept": "image/png"}
    answer = api.post("/upscaling", json=SMALL, headers={HEADER: "bad-base64", **file})
    assert answer.content == api.post("/upscaling", json=SMALL, headers=file).content


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("accept", ["application/json", "image/*"])
def test_a_wrong_picture_is_a_picture_and_not_told_of(
    api: httpx.Client, encoding: str, accept: str
) -> None:
    """One pixel too narrow, or in the other file format; everything else is as ever."""
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


def test_a_removed_picture_is_null_and_only_where_there_would_be_one(api: httpx.Client) -> None:
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


# Which comes next


def test_a_sequence_goes_on_from_request_to_request(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("429x2,ok,503")
    assert statuses(api, 5) == [429, 429, 200, 503, 200]
    assert [(call.fault, call.fault_from) for call in mock.calls] == [
        ("429", "api"), ("429", "api"), (None, None), ("503", "api"), (None, None),
    ]  # fmt: skip


def test_a_sequence_can_be_for_all_that_come_and_be_ended(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("ok,503x*")
    assert statuses(api, 4) == [200, 503, 503, 503]
    mock.faults.clear()
    assert statuses(api, 2) == [200, 200]


def test_the_header_goes_before_the_api_before_the_scenario_before_chance() -> None:
    faults = FaultSchedule(
        sequences={"upscaling": parse_sequence("500x2")}, probabilities={parse_fault("502"): 1}
    )
    faults.set("503")
    chosen = [faults.select("upscaling", "401"), *(faults.select("upscaling") for _ in range(4))]
    assert [(str(fault), source) for fault, source, _ in chosen] == [
        ("401", "header"), ("503", "api"), ("500", "scenario"), ("500", "scenario"),
        ("502", "random"),
    ]  # fmt: skip
    assert faults.select("poll").fault == Fault()
    faults.reset()
    assert [str(faults.select("upscaling").fault) for _ in range(3)] == ["500", "500", "502"]


@pytest.mark.parametrize(
    ("route", "path"),
    [("poll", "/v1/requests/x"), ("result", "/v1/responses/x"), ("healthcheck", "/healthcheck")],
)
def test_other_routes_have_sequences_of_their_own(
    api: httpx.Client, mock: Mock, route: str, path: str
) -> None:
    usual = api.get(path).status_code
    mock.faults.set("502", on=route)
    assert statuses(api, 1) == [200]
    assert [api.get(path).status_code for _ in range(2)] == [502, usual]


chances = st.dictionaries(
    st.sampled_from(["401", "429", "500", "503", "latency=0.1"]), st.floats(0, 0.2), max_size=5
)


@given(chances, st.integers(-(2**40), 2**40), st.lists(st.booleans(), max_size=30))
def test_the_same_seed_makes_the_same_faults(
    odds: dict[str, float], seed: int, upscaling: list[bool]
) -> None:
    """Whatever else is asked for in between, and again after a reset."""
    one, other = FaultSchedule(seed), FaultSchedule(seed)
    for faults in (one, other):
        faults.set_random(odds)
    drawn = [one.select("upscaling") for _ in upscaling]
    mixed = []
    for each in upscaling:
        if each:
            assert other.select("poll").fault == Fault()
            assert 0 <= other.select("upscaling", "latency=uniform:0:1").latency_s <= 1
        mixed.append(other.select("upscaling"))
    assert [each.fault for each in mixed] == [each.fault for each in drawn]
    one.reset()
    one.set_random(odds)
    assert [one.select("upscaling") for _ in upscaling] == drawn


def test_random_faults_come_as_often_as_they_should() -> None:
    def drawn(seed: int) -> list[str]:
        faults = FaultSchedule(seed)
        faults.set_random({"429": 0.25, "latency=uniform:0.1:0.2": 0.5})
        return [str(faults.select("upscaling").fault) for _ in range(4000)]

    counts = Counter(drawn(1))
    assert 900 < counts["429"] < 1100
    assert 1900 < counts["latency=uniform:0.1:0.2"] < 2100
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("odds", "words"),
    [
        ({"429": 1.5}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": "0.5"}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": True}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": 0.6, "503": 0.6}, "the probabilities add up to more than 1"),
        ({"teapot": 0.1}, "unknown fault 'teapot'"),
    ],
)
def test_wrong_probabilities_are_told_in_words(odds: dict[str, Any], words: str) -> None:
    with pytest.raises(FaultError, match=words):
        FaultSchedule().set_random(odds)


def test_a_client_that_resets_harms_nobody(api: httpx.Client) -> None:
    """Whoever hangs up while an answer is held back, drips, or never comes."""
    for fault in (b"latency=30", b"timeout", b"drip=10"):
        with connected(api) as connection:
            connection.sendall(HEAD.replace(b"Host: x", b"Host: x\r\nX-Mock-Fault: " + fault))
            time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert statuses(api, 2) == [200, 200]
