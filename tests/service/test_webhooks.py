"""Webhooks: signed, sent until they are received, and to no host that a client may not reach."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from mock_server import Mock
from tests.service.test_disk_jobs import TASK
from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, SETTINGS, TOKENS, Moody, only_error, running, serving
from tests.support.stub_servers import ReceivedRequest, Reply, StubServer, in_turn, stub_server
from upscaler.service import webhooks
from upscaler.service.backend import LocalBackend, Scheduler, StageTimer
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.jobs.memory import MemoryJobStore, MemoryOutbox
from upscaler.service.jobs.store import Submission
from upscaler.service.owners import owner_of
from upscaler.service.queue import Admission
from upscaler.service.webhooks import Message, Webhook, WebhookSender, secret_of
from upscaler.settings import Settings

ASYNC = {"X-OctoAI-Async": "1"}
NO_CONTENT: Final[Reply] = (204, {}, b"")
DAY_S = 24 * 60 * 60
Store = Callable[[], MemoryJobStore | DiskJobStore]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LOOK_S", 0.01)
    monkeypatch.setattr(webhooks, "FIRST_RETRY_S", 0.01)


def settings(receiver: StubServer) -> Settings:
    port = urlsplit(receiver.url).port
    assert port
    return replace(SETTINGS, fetch_ports=(port,), fetch_networks=(ip_network("127.0.0.0/8"),))


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    def made() -> MemoryJobStore | DiskJobStore:
        return MemoryJobStore(2**30) if request.param == "memory" else DiskJobStore(tmp_path, 2**30)

    return made


def ask(api: httpx.Client, url: str, **fields: Any) -> httpx.Response:
    headers = ASYNC | {"X-Upscaler-Webhook": url}
    return api.post("/upscaling", json=GOOD | fields, headers=headers)


def await_posts(receiver: StubServer, count: int) -> list[ReceivedRequest]:
    deadline_s = time.monotonic() + PATIENCE_S
    while len(receiver.posts) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    return receiver.posts


def verified(api: httpx.Client, received: ReceivedRequest) -> Any:
    """What was told, if it has the right signature."""
    secret = api.get("/v1/webhooks/secret").json()["secret"]
    headers = {name.lower(): value for name, value in received.headers}
    return Verifier(secret).verify(received.body.decode(), headers)


def test_a_receiver_is_told_what_a_poll_would_be(store: Store) -> None:
    with (
        stub_server(in_turn(NO_CONTENT)) as receiver,
        serving(Moody(), settings(receiver), store()) as api,
    ):
        job = ask(api, f"{receiver.url}/told?x=1").json()
        (post,) = await_posts(receiver, 1)
        told = verified(api, post)
        assert post.path == "/told?x=1"
        assert told["type"] == "request.completed"
        assert told["response_id"] == job["response_id"]
        polled = api.get(job["poll_url"]).json()
        assert {name: told[name] for name in polled} == polled
        assert api.get(told["response_url"]).status_code == 200
        metrics = api.get("/metrics").text
    assert 'upscaler_webhooks_total{outcome="delivered"} 1.0' in metrics


def test_a_failure_is_told_as_such(store: Store) -> None:
    with (
        stub_server(in_turn(NO_CONTENT)) as receiver,
        serving(Moody(), settings(receiver), store()) as api,
    ):
        ask(api, receiver.url, model="real-esrgan-x4-v3")
        told = verified(api, await_posts(receiver, 1)[0])
        assert told["type"] == "request.failed"
        assert told["error"]["status"] == 503
        assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("refusal", [(500, {}, b""), (302, {"Location": "/"}, b""), None])
def test_it_is_sent_again_with_the_same_id_until_it_is_received(store: Store, refusal: Any) -> None:
    with (
        stub_server(in_turn(refusal, refusal, NO_CONTENT)) as receiver,
        serving(Moody(), settings(receiver), store()) as api,
    ):
        ask(api, receiver.url)
        posts = await_posts(receiver, 3)
        ids = {dict(post.headers)["webhook-id"] for post in posts}
        assert len(ids) == 1
        assert len({post.body for post in posts}) == 1
        for post in posts:
            verified(api, post)
        ask(api, receiver.url)
        assert dict(await_posts(receiver, 4)[3].headers)["webhook-id"] not in ids


def test_it_survives_the_service(tmp_path: Path) -> None:
    with stub_server(in_turn(None, NO_CONTENT)) as receiver:
        allowed = settings(receiver)
        with serving(Moody(), allowed, DiskJobStore(tmp_path, 2**30)) as api:
            job = ask(api, receiver.url).json()
            await_posts(receiver, 1)
        store = DiskJobStore(tmp_path, 2**30)
        with serving(Moody(), allowed, store) as api:
            told = verified(api, await_posts(receiver, 2)[1])
            assert told["response_id"] == job["response_id"]
            deadline_s = time.monotonic() + PATIENCE_S
            while store._database._read("SELECT * FROM messages"):
                assert time.monotonic() < deadline_s
                time.sleep(0.005)


def test_no_two_tokens_have_the_same_secret(store: Store) -> None:
    with (
        stub_server(in_turn(NO_CONTENT)) as receiver,
        serving(Moody(), settings(receiver), store()) as api,
    ):
        ask(api, receiver.url)
        (post,) = await_posts(receiver, 1)
        other = {b"Authorization": f"Bearer {TOKENS[1]}".encode()}
        secret = api.get("/v1/webhooks/secret", headers=other).json()["secret"]
        assert secret == secret_of(TOKENS[1])
        assert TOKENS[1] not in secret
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(post.body.decode(), dict(post.headers))


def test_the_signature_is_that_of_the_specification() -> None:
    """As its own library computes it, of the example in its text."""
    message = Message(
        id="msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        owner="",
        url="",
        body='{"event_type":"ping","data":{"success":true}}',
        created_s=0,
    )
    secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    headers = webhooks.signed(message, secret, 1674087231)
    at = Verifier(secret).sign(message.id, datetime.fromtimestamp(1674087231, UTC), message.body)
    assert headers["webhook-signature"] == at


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://10.0.0.1/", "https://[::1]/",
        "https://169.254.169.254/latest", "http://example.com/", "ftp://example.com", "", "x",
        "https://user:word@example.com/", "https://example.com:22/", "https://nowhere.invalid/",
    ],
)  # fmt: skip
def test_a_url_that_clients_may_not_reach_is_refused_at_once(
    public: httpx.Client, url: str
) -> None:
    for answer in (
        ask(public, url),
        public.post("/v1/webhooks/test", headers={"X-Upscaler-Webhook": url}),
    ):
        error = only_error(answer)
        assert error["loc"] == ["header", "X-Upscaler-Webhook"]
        assert "init_image" not in error["msg"]
    assert public.get("/v1/requests").json() == {"requests": []}


@pytest.fixture(scope="module")
def public() -> Iterator[httpx.Client]:
    with serving(Moody()) as api:
        yield api


def test_a_test_message_is_sent_once_and_its_response_told(store: Store) -> None:
    with stub_server(in_turn((418, {}, b""), NO_CONTENT)) as receiver:
        with serving(Moody(), settings(receiver), store()) as api:
            for status in (418, 204):
                headers = {"X-Upscaler-Webhook": receiver.url}
                answer = api.post("/v1/webhooks/test", headers=headers)
                assert answer.json()["status"] == status
                assert verified(api, receiver.posts[-1])["type"] == "webhook.test"
            assert len(receiver.posts) == 2
            dead = receiver.url
            answer = api.post("/v1/webhooks/test")
            assert only_error(answer)["type"] == "missing"
        with serving(Moody(), settings(receiver), store()) as api:
            receiver_gone = {"X-Upscaler-Webhook": dead}
            assert api.post("/v1/webhooks/test", headers=receiver_gone).status_code == 200


class Outbox(MemoryOutbox):
    """An outbox with a clock of its own."""

    def __init__(self) -> None:
        self.time_s = 1e9
        super().__init__(lambda: self.time_s)


def attempts(status: int | Exception, total_s: float) -> tuple[list[float], list[str]]:
    """When attempts are made at a receiver that always responds so, and what became of them."""
    outbox, at, outcomes = Outbox(), list[float](), list[str]()

    async def post(_url: str, _headers: dict[str, str], _body: bytes) -> int:
        at.append(outbox.time_s - 1e9)
        if isinstance(status, Exception):
            raise status
        return status

    async def act() -> None:
        sender = WebhookSender(outbox, TOKENS, post, outcomes.append)
        owner = owner_of(TOKENS[0])
        outbox.add(Message("msg_1", owner, "https://a.example", "{}", outbox.time_s))
        while outbox.time_s < 1e9 + total_s:
            for message in await outbox.due(9, [owner]):
                await sender._send(message)
            outbox.time_s += 1

    asyncio.run(act())
    return at, outcomes


def test_attempts_become_rarer_and_end_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "FIRST_RETRY_S", 5.0)
    at, outcomes = attempts(500, 2 * DAY_S)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert 3 < gaps[0] < 8
    assert all(later > 2 * earlier for earlier, later in pairwise(gaps[:6]))
    assert max(gaps) < 5.5 * 3600
    assert 8 < len(at) < 20
    assert DAY_S - 6 * 3600 < at[-1] < DAY_S
    assert outcomes == ["failed"] * (len(at) - 1) + ["given_up"]


def test_an_unexpected_error_is_a_failed_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise its message would be sent for ever, and never be given up."""
    with caplog.at_level(logging.CRITICAL):
        assert attempts(ZeroDivisionError(), 2 * DAY_S)[1][-1] == "given_up"


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_service_sends_the_messages_of_its_own_tokens_alone(kind: str, tmp_path: Path) -> None:
    """Another one on the same folder, with other tokens, can sign those of its own."""
    job = Submission("mine", webhook=Webhook("https://a.example", "https://b.example"))

    async def act() -> None:
        scheduler = Scheduler(LocalBackend(Moody()), Admission(2, 2**24), lambda _: None)
        store = MemoryJobStore(2**30) if kind == "memory" else DiskJobStore(tmp_path, 2**31)
        async with store.working(scheduler):
            task = scheduler.schedule(TASK, StageTimer())
            await store.wait(await store.start(task, job))
            assert await store.outbox.due(9, ["others"]) == []
            (message,) = await store.outbox.due(9, ["others", "mine"])
            assert message.owner == "mine"
            assert await store.outbox.due(9, ["mine"]) == []

    asyncio.run(act())


def test_what_is_being_sent_when_a_service_stops_is_due_at_once() -> None:
    async def act() -> None:
        outbox, posting = Outbox(), asyncio.Event()

        async def hang(*_: object) -> int:
            posting.set()
            await asyncio.Event().wait()
            raise AssertionError

        owner = owner_of(TOKENS[0])
        outbox.add(Message("msg_1", owner, "https://a.example", "{}", outbox.time_s))
        sender = WebhookSender(outbox, TOKENS, hang, lambda _: None)
        sender.wake()
        await posting.wait()
        assert await outbox.due(9, [owner]) == []
        await sender.stop()
        assert len(await outbox.due(9, [owner])) == 1

    asyncio.run(act())


def test_a_receiver_that_is_gone_is_left_alone() -> None:
    assert attempts(410, DAY_S) == ([0.0], ["given_up"])
    assert attempts(200, DAY_S) == ([0.0], ["delivered"])


# The mock's


@contextmanager
def mocked(faults: str) -> Iterator[httpx.Client]:
    mock = Mock(tokens=TOKENS)
    headers = {b"Authorization": f"Bearer {TOKENS[0]}".encode()}
    with running(mock.app) as url, httpx.Client(base_url=url, headers=headers) as api:
        set_ = api.post("/_mock/webhooks", json={"sequence": faults})
        assert set_.json() == {"sequence": faults}
        yield api


def test_the_mocks_webhooks_have_the_faults_that_a_test_asks_for() -> None:
    with stub_server(in_turn(NO_CONTENT)) as receiver, mocked("lost,twice,swapped,ok") as api:
        ids = []
        for count in (0, 2, 2, 4):
            ids.append(ask(api, receiver.url).json()["response_id"])
            while api.get(f"/v1/requests/{ids[-1]}").json()["status"] != "completed":
                pass
            await_posts(receiver, count)
            if count == 2 and len(ids) == 3:
                while api.get("/_mock/webhooks").json()["sequence"] != "ok":
                    time.sleep(0.005)
        told = [verified(api, post)["response_id"] for post in receiver.posts]
    assert told == [ids[1], ids[1], ids[3], ids[2]]


def test_faults_that_there_are_not_are_refused() -> None:
    with mocked("ok") as api:
        for wrong in ("late", "late=x", "never", 7):
            answer = api.post("/_mock/webhooks", json={"sequence": wrong})
            assert answer.status_code == 400
            assert "lost" in answer.json()["detail"]
