"""Mistakes with webhooks, and with batches."""

import base64
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import httpx

from mock_server.backend.webhooks import MockPoster
from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Planting,
    changed_answer,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import ASYNC, Probe, fields_of, file, upscaled
from tests.support.raw_http import PATIENCE_S
from tests.support.stub_servers import stub_server
from upscaler.service import batch_bodies, webhook_routes, webhooks
from upscaler.service.batches import Batches
from upscaler.service.owners import new_id
from upscaler.service.webhooks import Message, WebhookSender

HEADER: Final = "X-Upscaler-Webhook"
BATCHES: Final = "/v1/batches"
LINES: Final = {"Content-Type": "application/jsonl"}


# Webhooks


def signing(change: Callable[[Message, str, float], dict[str, str]]) -> Planting:
    """Sign messages in another way."""
    return patched(webhooks, "signed", change)


def by_another_secret(right: Callable[..., Any]) -> Callable[..., Any]:
    """The signature by a secret that no client is told."""
    other = "whsec_" + base64.b64encode(b"another key of thirty-two bytes.").decode()
    return lambda message, _, now_s: right(message, other, now_s)


def with_new_id(right: Callable[..., Any]) -> Callable[..., Any]:
    """The signature of a message with another id, each time that it is sent."""
    return lambda message, *more: right(replace(message, id=f"msg_{new_id()}"), *more)


async def pretended(_poster: MockPoster, _url: str, _headers: Mapping[str, str], _: bytes) -> int:
    """Send nothing, and say that it was received."""
    return 204


async def unchecked(_poster: MockPoster, _url: str) -> None:
    """Look at no URL."""


def test_message(client: httpx.Client) -> object:
    """How a test message is signed, in as far as it is not another each time."""
    with stub_server(lambda _: (204, {}, b"")) as receiver:
        client.post("/v1/webhooks/test", headers={HEADER: receiver.url})
        secret = client.get("/v1/webhooks/secret").json()["secret"]
        if not receiver.posts:
            return None
        names = {name.lower(): value for name, value in receiver.posts[0].headers}
        second = names["webhook-timestamp"]
        message = Message(names["webhook-id"], "", "", receiver.posts[0].body.decode(), 0)
        good = RIGHT(message, secret, float(second))["webhook-signature"]
        return len(second), good == names["webhook-signature"]


RIGHT: Final = webhooks.signed
"""Signs as it should be, also while it is planted that others do not."""


def refused_url(client: httpx.Client) -> object:
    """What comes of a webhook that is no URL."""
    return upscaled(client, ASYNC | {HEADER: "x"}).status_code


def after_a_refusal(client: httpx.Client) -> object:
    """What is planned, once a receiver has refused a message."""
    with stub_server(lambda _: (503, {}, b"")) as receiver:
        before = client.get("/metrics").text
        upscaled(client, ASYNC | {HEADER: receiver.url})
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            now = client.get("/metrics").text
            for outcome in ("failed", "given_up"):
                name = f'upscaler_webhooks_total{{outcome="{outcome}"}}'
                if _value(now, name) > _value(before, name):
                    return outcome
            time.sleep(0.02)
    return None


def _value(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def ids_of_attempts(_: httpx.Client) -> object:
    """Whether a message is sent with its own id."""
    return (
        webhooks.signed(Message("msg_1", "", "", "{}", 0), "whsec_QQ==", 0)["webhook-id"] == "msg_1"
    )


def secrets(client: httpx.Client) -> object:
    """How a secret begins, and whether it is another the second time."""
    first, second = (client.get("/v1/webhooks/secret").json()["secret"] for _ in range(2))
    return first[:6] == "whsec_", first == second


# Batches


def changed_batch(change: Callable[[Asked, Answer], Answer]) -> Planting:
    """Answer otherwise below /v1/batches, if it is a 200."""
    return changed_answer(
        lambda asked, answer: (
            change(asked, answer)
            if asked.path.startswith(BATCHES) and answer.status == 200
            else answer
        )
    )


def as_a_whole(_: Asked, answer: Answer) -> Answer:
    """Refuse a batch of which one is refused."""
    told = answer.document
    errors = [each["error"] for each in (told or {}).get("members", ()) if "error" in each]
    return answer.saying({"detail": errors[0]["detail"]}, 422) if errors else answer


def without_wrong_ones(asked: Asked, answer: Answer) -> Answer:
    """The events of those members alone that have a result."""
    if not asked.path.endswith("/events"):
        return answer
    events = [each for each in answer.body.split(b"\n\n") if b'"error"' not in each]
    return answer.being(b"\n\n".join(events), answer.headers["content-type"])


def without_errors(asked: Asked, answer: Answer) -> Answer:
    """A ZIP without errors.json."""
    if not asked.path.endswith("/zip"):
        return answer
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(answer.body)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != "errors.json":
                new.writestr(name, old.read(name))
    return answer.being(out.getvalue(), "application/zip")


def with_first_result(asked: Asked, answer: Answer) -> Answer:
    """The first result for each of the members."""
    told = answer.document
    urls = [m["response_url"] for m in (told or {}).get("members", ()) if "response_url" in m]
    if not urls or asked.path == BATCHES:
        return answer
    members = [
        m | ({"response_url": urls[0]} if "response_url" in m else {}) for m in told["members"]
    ]
    return answer.saying(told | {"members": members})


async def none_cancelled(*_: object) -> None:
    """Leave the members of a batch where they are."""


def batch(see: Callable[[httpx.Client, httpx.Response], object]) -> Probe:
    """What can be seen of a batch of a right request and a wrong one."""
    lines = (fields_of({"name": "own"}), {"scale": 0})
    body = "\n".join(map(json.dumps, lines))
    return lambda client: see(client, client.post(BATCHES, content=body, headers=LINES))


def names(client: httpx.Client, made: httpx.Response) -> object:
    """The status, and what members are called."""
    return made.status_code, [each["name"] for each in made.json().get("members", ())]


def events(client: httpx.Client, made: httpx.Response) -> object:
    """How many results are told, and whether the first ends the last."""
    return client.get(made.json()["events_url"]).text.count("event: result")


def in_zip(client: httpx.Client, made: httpx.Response) -> object:
    """The names in the ZIP."""
    with zipfile.ZipFile(io.BytesIO(client.get(made.json()["zip_url"]).content)) as archive:
        return archive.namelist()


def left_over(client: httpx.Client, made: httpx.Response) -> object:
    """What is known of a member once its batch is deleted."""
    client.delete(made.json()["batch_url"])
    return client.get(f"/v1/requests/{made.json()['members'][0]['response_id']}").status_code


def sent_form(client: httpx.Client) -> object:
    """The status of a form."""
    files = {"files": ("a.png", file())}
    return client.post(BATCHES, data={"scale": "1"}, files=files).status_code


WEBHOOKS: Final = (
    Defect(
        "webhook-of-another-secret",
        "Signs messages with another secret than it tells.",
        ("EXT-5",),
        replaced(webhooks, "signed", by_another_secret),
        test_message,
    ),
    Defect(
        "webhook-in-milliseconds",
        "Gives the time of a message in milliseconds.",
        ("EXT-5",),
        replaced(webhooks, "signed", lambda right: lambda m, s, now_s: right(m, s, 1000 * now_s)),
        test_message,
    ),
    Defect(
        "webhook-of-new-id",
        "Gives a message a new id each time that it is sent.",
        ("EXT-5",),
        replaced(webhooks, "signed", with_new_id),
        ids_of_attempts,
    ),
    Defect(
        "webhook-once",
        "Sends a message once, whether it is received or not.",
        ("EXT-5",),
        patched(WebhookSender, "_retry_s", lambda *_: None),
        after_a_refusal,
    ),
    Defect(
        "webhook-pretended",
        "Says that a message was received, and sends none.",
        ("EXT-5",),
        patched(MockPoster, "post", pretended),
        test_message,
    ),
    Defect(
        "webhook-of-any-text",
        "Starts an inference whatever the URL of its webhook is.",
        ("EXT-5",),
        patched(MockPoster, "check", unchecked),
        refused_url,
    ),
    Defect(
        "webhook-secret-new",
        "Makes a new secret each time that it is asked for.",
        ("EXT-5",),
        replaced(webhook_routes, "secret_of", lambda right: lambda _: right(new_id())),
        secrets,
    ),
    Defect(
        "webhook-secret-bare",
        "Tells a secret without whsec_ before it.",
        ("EXT-5",),
        replaced(webhook_routes, "secret_of", lambda right: lambda token: right(token)[6:]),
        secrets,
    ),
)

IN_BATCHES: Final = (
    Defect(
        "batch-as-a-whole",
        "Refuses a whole batch for one request in it.",
        ("EXT-6",),
        changed_batch(as_a_whole),
        batch(names),
    ),
    Defect(
        "batch-without-names",
        "Calls the results of a batch by numbers, whatever their names are.",
        ("EXT-6",),
        patched(batch_bodies, "_sane", lambda _, otherwise: otherwise),
        batch(names),
    ),
    Defect(
        "batch-events-of-good-ones",
        "Does not tell of a request that is refused in the events of its batch.",
        ("EXT-6",),
        changed_batch(without_wrong_ones),
        batch(events),
    ),
    Defect(
        "batch-zip-without-errors",
        "Leaves out of a ZIP what went wrong.",
        ("EXT-6",),
        changed_batch(without_errors),
        batch(in_zip),
    ),
    Defect(
        "batch-deleted-alone",
        "Deletes a batch, and leaves its results.",
        ("EXT-6",),
        patched(Batches, "_cancel_all", none_cancelled),
        batch(left_over),
    ),
    Defect(
        "batch-of-lines-alone",
        "Does not know forms.",
        ("EXT-6",),
        patched(batch_bodies, "FORM", "none"),
        sent_form,
    ),
)
