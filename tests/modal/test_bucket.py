"""Results in a bucket: Modal's real client, and a server that speaks S3's protocol on a socket."""

import asyncio
import json
import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx
import pytest
import requests

from tests.mock_server.test_clients import CLIENTS, driven
from tests.modal.test_backend import completed
from tests.support.clients.packages import needs_clients
from tests.support.modal_calls import TASK
from tests.support.modal_control_plane import Plane, make, method
from tests.support.raw_http import PATIENCE_S
from tests.support.s3 import BUCKET, S3, bucket_at, s3_server
from tests.support.service import (
    GOOD,
    SETTINGS,
    TOKENS,
    Resizer,
    decoded,
    running,
    serving,
    upscale,
)
from tests.support.stub_servers import ReceivedRequest, Reply, stub_server, unused_url
from upscaler.api.headers import ASYNC_HEADER
from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.modal import bucket as module
from upscaler.modal import config
from upscaler.modal.backend import RESULT_COPIES, ModalBackend, arguments, from_payload
from upscaler.modal.bucket import HELD_BYTES, LINK_S, SUSPENDED_S, Bucket
from upscaler.modal.jobs import ModalJobStore
from upscaler.modal.payload import ResultPayload
from upscaler.modal.states import States
from upscaler.service.app import create_app
from upscaler.settings import Settings

pytestmark = [
    pytest.mark.dev,
    needs_clients(),
    pytest.mark.usefixtures("silent_of_signatures"),
]

BEARER = {"Authorization": f"Bearer {TOKENS[0]}"}
ASYNC = {ASYNC_HEADER: "1"}
FOLLOWS = {"User-Agent": "node"}
OK: Reply = (200, {}, b"")
BUSY: Reply = (503, {}, b"<Error><Code>SlowDown</Code></Error>")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def front(bucket: Bucket | None, settings: Settings = SETTINGS) -> Iterator[httpx.Client]:
    """A client of a front with that bucket; httpx follows no redirect unless it is told to."""
    backend = ModalBackend(method("make"), 8, bucket)
    jobs = ModalJobStore(method("make"), States(), TOKENS[0].encode(), bucket)
    app = create_app(backend, settings, jobs)
    with running(app) as url, httpx.Client(base_url=url, headers=BEARER, timeout=60) as client:
        yield client


@pytest.fixture
def api(plane: Plane, s3: S3) -> Iterator[httpx.Client]:
    with front(bucket_at(s3.url)) as client:
        yield client


def response_url(api: httpx.Client) -> str:
    """Where the result of an asynchronous request is, once it is completed."""
    started = api.post("/upscaling", json=GOOD, headers=ASYNC)
    return str(completed(api, started).request.url)


# What clients get


@pytest.mark.first(1)
@pytest.mark.parametrize("accept", ["application/json", "image/jpeg"])
def test_a_synchronous_answer_is_the_same_and_comes_from_the_bucket(
    plane: Plane, s3: S3, api: httpx.Client, accept: str
) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={"Accept": accept})
    with serving(Resizer()) as local:
        expected = local.post("/upscaling", json=GOOD, headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, expected.content)
    assert answer.headers.keys() == expected.headers.keys()
    for name in ("Content-Length", "Content-Type", "X-Upscaler-Output-Size"):
        assert answer.headers[name] == expected.headers[name]
    assert plane.asked("BlobGet") == [], "nothing large came by way of Modal"
    assert s3.objects[-1].read_bytes() == expected.content


@pytest.mark.slow
def test_an_answer_that_began_with_spaces_ends_with_the_body(plane: Plane, s3: S3) -> None:
    with front(bucket_at(s3.url), replace(SETTINGS, first_byte_s=0.0)) as api:
        answer = upscale(api, **GOOD)
    assert answer.content.startswith(b" ")
    assert decoded(answer).size == (608, 512)


def test_who_follows_is_sent_to_the_bucket_and_others_get_the_result_from_the_front(
    api: httpx.Client,
) -> None:
    url = response_url(api)
    answer = api.get(url, headers=FOLLOWS)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
    link = answer.headers["Location"]
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == [f"{LINK_S}"]
    there = httpx.get(link)
    assert there.headers["Content-Type"] == "application/json"
    assert decoded(there).size == (608, 512)
    assert httpx.get(link, headers=BEARER).status_code == 400, "so the token must not be sent"
    assert api.head(url, headers=FOLLOWS).status_code == 200, "the signature is for GET"
    by_the_front = api.get(url, headers={"User-Agent": "curl/8.5.0"})
    assert by_the_front.content == there.content
    assert by_the_front.headers["X-Upscaler-Model"]


@pytest.mark.parametrize("lifetime_s", [LINK_S + 1, 10.2])
def test_no_link_outlives_its_result(s3: S3, lifetime_s: float) -> None:
    bucket = bucket_at(s3.url)
    payload: ResultPayload = make(*arguments(TASK, bucket.upload(required=True)))
    result = from_payload(payload, bucket, lifetime_s)
    stored = result.stored
    assert stored
    assert stored.link
    assert result.held_bytes == min(stored.size_bytes, HELD_BYTES)
    seconds = int(parse_qs(urlsplit(stored.link).query)["X-Amz-Expires"][0])
    assert seconds == min(LINK_S, math.ceil(lifetime_s))


@pytest.mark.slow
def test_a_link_that_has_expired_is_refused_by_the_store_and_the_service_has_another(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = response_url(api)
    with monkeypatch.context() as patch:
        patch.setattr(module, "LINK_S", -1)
        link = api.get(url, headers=FOLLOWS).headers["Location"]
        assert httpx.get(link).status_code == 403
    assert httpx.get(api.get(url, headers=FOLLOWS).headers["Location"]).status_code == 200


@pytest.mark.slow
def test_a_result_is_gone_after_its_lifetime(plane: Plane, s3: S3) -> None:
    past_s = time.time() - RESULT_LIFETIME_S
    plane.work["make"] = lambda *task: {**make(*task), "finished_s": past_s}
    with front(bucket_at(s3.url)) as api:
        started = api.post("/upscaling", json=GOOD, headers=ASYNC).json()
        time_out_s = time.monotonic() + PATIENCE_S
        while api.get(f"/v1/responses/{started['response_id']}").status_code != 404:
            assert time.monotonic() < time_out_s


NODE_FETCH = """
const [url, token] = process.argv.slice(1);
const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
console.log(JSON.stringify([answer.redirected, Object.keys(await answer.json())]));
"""


@pytest.mark.slow
def test_the_libraries_that_are_redirected_follow_and_keep_the_token_to_themselves(
    api: httpx.Client,
) -> None:
    url = response_url(api)
    got = requests.get(url, headers=BEARER, timeout=60)
    assert (len(got.history), got.json().keys()) == (1, {"image_b64", "removed_for_safety"})

    async def by_aiohttp() -> tuple[int, set[str]]:
        async with aiohttp.ClientSession(headers=BEARER) as session, session.get(url) as response:
            return len(response.history), {*await response.json()}

    assert asyncio.run(by_aiohttp()) == (1, {"image_b64", "removed_for_safety"})
    script = ["node", "--input-type=module", "--eval", NODE_FETCH, url, TOKENS[0]]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [True, ["image_b64", "removed_for_safety"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENTS)
def test_octoais_own_clients_get_their_pictures(api: httpx.Client, name: str) -> None:
    url, token = str(api.base_url.join("/upscaling")), TOKENS[0]
    with driven(name) as driver:
        future = driver.ask("infer_async", url, token=token, inputs=GOOD)["answer"]
        asked: dict[str, Any] = {"token": token, "future": future}
        give_up_s = time.monotonic() + PATIENCE_S
        while not driver.ask("is_future_ready", **asked)["answer"]:
            assert time.monotonic() < give_up_s
        result = driver.ask("get_future_result", **asked)
        assert result["answer"].keys() == {"image_b64", "removed_for_safety"}, result
        assert driver.ask("infer", url, token=token, inputs=GOOD)["answer"] == result["answer"]


# Settings that change while calls are under way


@pytest.mark.slow
def test_a_result_is_found_whatever_the_bucket_is_by_then(plane: Plane, s3: S3) -> None:
    with front(bucket_at(s3.url)) as api:
        in_bucket = urlsplit(response_url(api)).path
    with front(None) as api:
        at_modal = urlsplit(response_url(api)).path
        assert decoded(api.get(in_bucket, headers=FOLLOWS)).size == (608, 512)
    with front(bucket_at(s3.url, "other")) as api:
        assert decoded(api.get(in_bucket, headers=FOLLOWS)).size == (608, 512)
    with front(bucket_at(s3.url)) as api:
        assert api.get(in_bucket, headers=FOLLOWS).status_code == 307
        assert decoded(api.get(at_modal, headers=FOLLOWS)).size == (608, 512)


# Faults


def test_a_refused_result_is_a_503_and_the_next_go_by_way_of_modal(
    plane: Plane, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = bucket_at(s3.url, "absent")
    backend = ModalBackend(method("make"), 8, bucket)
    large = 2**30
    assert backend.held_bytes(large) == HELD_BYTES
    with front(bucket) as api:
        refused = upscale(api, **GOOD)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "404 NoSuchBucket (UPSCALER_RESULTS_BUCKET must be a bucket" in caplog.text
        assert backend.held_bytes(large) == RESULT_COPIES * large, "and memory is held for them"
        assert decoded(upscale(api, **GOOD)).size == (608, 512)


@pytest.mark.slow
def test_an_asynchronous_result_that_is_refused_goes_by_way_of_modal(
    plane: Plane, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    with front(bucket_at(s3.url, AWS_ACCESS_KEY_ID="unknown")) as api:
        assert decoded(api.get(response_url(api), headers=FOLLOWS)).size == (608, 512)
    assert "403 InvalidAccessKeyId (the key in the secret upscaler-bucket" in caplog.text


@pytest.mark.slow
def test_while_a_bucket_is_away_its_results_are_503s(plane: Plane) -> None:
    replies = {"PUT": [OK], "GET": [BUSY, BUSY]}

    def reply(got: ReceivedRequest) -> Reply:
        return replies[got.method].pop() if replies[got.method] else (200, {}, put[0].body)

    with stub_server(reply) as stub, front(bucket_at(stub.url)) as api:
        started = api.post("/upscaling", json=GOOD, headers=ASYNC)
        assert completed(api, started).status_code == 503
        put = stub.seen
        again = completed(api, started)
        assert (again.status_code, again.headers["Retry-After"]) == (503, "5")
        assert decoded(completed(api, started)).size == (608, 512)


@pytest.mark.parametrize(
    ("name", "told", "for_s"),
    [
        (BUCKET, None, 0.0),
        ("absent", "404 NoSuchBucket", math.inf),
        ("unknown-key", "403 InvalidAccessKeyId", math.inf),
        ("nowhere", "ClientConnectorError", SUSPENDED_S),
    ],
)
def test_a_bucket_that_cannot_be_used_is_told_at_the_start_and_not_used(
    s3: S3, caplog: pytest.LogCaptureFixture, name: str, told: str | None, for_s: float
) -> None:
    url = unused_url() if name == "nowhere" else s3.url
    keys = {"AWS_ACCESS_KEY_ID": "unknown"} if name == "unknown-key" else {}
    bucket = bucket_at(url, name, **keys)
    asyncio.run(bucket.check())
    lines = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert bucket.suspended == bool(told) == len(lines)
    assert not told or (f"the bucket {name} " in lines[0] and told in lines[0])
    left_s = bucket._suspended_until_s - time.monotonic()
    assert left_s == pytest.approx(for_s, abs=SUSPENDED_S / 2) if told else left_s < 0
    if told:
        bucket.suspend()
        assert bucket._suspended_until_s >= left_s, "a picture that fails then shortens nothing"


def test_keys_are_not_guessable_and_of_one_folder(s3: S3) -> None:
    urls = {bucket_at(s3.url).upload(required=True)["put_url"] for _ in range(3)}
    keys = {Path(urlsplit(url).path) for url in urls}
    assert len(keys) == 3
    assert {key.parent.name for key in keys} == {"octo-upscaler"}
    assert min(len(key.name) for key in keys) * 6 >= 128, "bits of base64"


def test_without_the_buckets_secret_nothing_is_deployed(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "command", lambda: "deploy")
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for there in ({}, {"upscaler-bucket": keys - {"AWS_ACCESS_KEY_ID"}}):
        monkeypatch.setattr(plane, "secrets", {"upscaler-token": {"UPSCALER_TOKEN"}, **there})
        with pytest.raises(SystemExit, match=r"modal secret create upscaler-bucket AWS_ACCESS_KEY"):
            config.secrets_or_exit(BUCKET)
        assert len(config.secrets_or_exit("")) == 1, "which needs none"
    plane.secrets["upscaler-bucket"] = keys
    secrets = config.secrets_or_exit(BUCKET)
    assert [each.object_id for each in secrets] == ["st-upscaler-token", "st-upscaler-bucket"]
