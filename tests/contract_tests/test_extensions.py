"""What OctoAI had not is judged where a target has it, and blamed on none that has it not."""

import base64
import time
from datetime import UTC, datetime
from typing import Final

import pytest
from standardwebhooks import Webhook

from contract_tests.judge.events import Event, parse_events
from contract_tests.suite.receiver import Message, fault_of, is_loopback, key_of
from mock_server import MockServer
from tests.contract_tests import implementations
from tests.support.contract_cli import TOKEN, run_cli
from upscaler.service import webhooks

EXTENSIONS: Final = tuple(f"EXT-{number}" for number in range(1, 7))
STRICT: Final = ("--level", "strict")
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.dev
@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["FastAPI", "Go-like"])
def test_a_target_without_extensions_is_not_blamed(name: str) -> None:
    """By implementations of what OctoAI had alone."""
    with implementations.serving(name) as url:
        result = run_cli(url, implementations.TOKEN, *STRICT, "--only", "RES-9", *EXTENSIONS)
    assert result.status == 0, result.output
    told = {rule["id"]: rule["verdict"] for rule in result.report["rules"]}
    assert {told[rule] for rule in EXTENSIONS} == {"not offered"}
    tests = [test for test in result.report["tests"] if test["rules"][0] in EXTENSIONS]
    assert {test["outcome"] for test in tests} == {"not offered"}
    assert all("the target says" in test["sentence"] for test in tests), result.output
    assert "not offered: 8 tests: the target says 404 to POST /v1/batches" in result.output


def test_a_plan_has_what_a_run_is_billed(mock: MockServer) -> None:
    """A batch counts as all of the images in it."""
    options = (*STRICT, "--only", "EXT-6")
    plan, result = run_cli(mock.url, TOKEN, *options, "--plan"), run_cli(mock.url, TOKEN, *options)
    assert result.status == 0, result.output
    assert result.report["money"]["billed"] == 4
    assert "4 billable requests: $0.016 if the target conforms" in plan.output


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["lost", "twice", "late=0.3"])
def test_the_faults_of_webhooks_are_told_apart(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, faults: str
) -> None:
    """What is lost breaks the rule; what comes twice or late does not."""
    monkeypatch.setattr(webhooks, "LOOK_S", 0.02)
    monkeypatch.setattr(webhooks, "FIRST_RETRY_S", 0.1)
    mock.webhooks.set(f"ok,ok,{faults}")  # the first two are tests
    result = run_cli(mock.url, TOKEN, *STRICT, "--only", "EXT-5", "--timeout", "5")
    found = [each["sentence"] for each in result.findings]
    lost = ["nothing was sent to the URL after an inference was completed"]
    assert found == (lost if faults == "lost" else []), result.output


# Signatures


def message(**changes: str) -> Message:
    """A message that the library of the standard has signed, with other headers."""
    now, body = datetime.now(UTC), '{"type": "webhook.test"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, body),
    }
    return Message(
        "/", headers | {k.replace("_", "-"): v for k, v in changes.items()}, body.encode()
    )


def test_what_the_library_of_the_standard_signs_is_right() -> None:
    key = key_of(SECRET)
    assert key == bytes(range(32))
    signed = message()
    assert not fault_of(signed, key)
    rotated = f"v1,QQ== v1a,x {signed.headers['webhook-signature']}"
    assert not fault_of(message(webhook_signature=rotated), key)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"webhook_id": "msg_2"}, "not that of its id"),
        ({"webhook_id": ""}, "lacks one of"),
        ({"webhook_timestamp": "soon"}, "not a number"),
        ({"webhook_timestamp": str(int(time.time()) - 3600)}, "not now"),
        ({"webhook_timestamp": "9" * 5000}, "not now"),
        ({"webhook_signature": "v1,QQ=="}, "not that of its id"),
        ({"webhook_signature": "ü"}, "not that of its id"),
    ],
)
def test_what_is_wrong_with_a_signature_is_told(changes: dict[str, str], fault: str) -> None:
    assert fault in fault_of(message(**changes), bytes(range(32)))


@pytest.mark.parametrize("secret", [None, "", SECRET[6:], "whsec_", "whsec_QQ==", "whsec_*", 7])
def test_a_secret_that_is_none_has_no_key(secret: object) -> None:
    assert key_of(secret) is None


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:1", True), ("http://[::1]/x", True), ("http://localhost:80", True),
        ("https://127.example.com", False), ("http://10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_webhooks_are_received_of_this_machine_alone(url: str, own: bool) -> None:
    assert is_loopback(url) == own


# Events


def test_events_are_read_as_a_browser_reads_them() -> None:
    text = (
        "\ufeff: a beat\r\nretry: 5\r\nother\r\n\r\nevent: queued\rid:1\rdata: {\rdata: }\r\r"
        'data:{"a": 1}\n\nid\nevent: progress\n\nevent: cut off\ndata: {}\n'
    )
    events = parse_events(text.encode())
    assert events == [Event("queued", "1", {}), Event("message", "1", {"a": 1})]


@pytest.mark.parametrize("body", [b"data: [1]\n\n", b"data: x\n\n", b"data: \xff"])
def test_what_is_no_event_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|object|decode"):
        parse_events(body)
