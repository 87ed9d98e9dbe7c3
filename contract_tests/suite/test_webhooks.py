"""Webhooks: their secret, which URLs are refused, and messages that are received here."""

from typing import Final

import pytest

from contract_tests.failures import NotOffered
from contract_tests.judge.run import Run
from contract_tests.requests.request import ASYNC_HEADER, AUTHORIZATION, Request
from contract_tests.suite.extensions import (
    fields_of,
    get,
    image_request,
    require_offered,
    require_refused,
    require_token,
)
from contract_tests.suite.inference import check_result, wait_for_result
from contract_tests.suite.receiver import (
    BUSY,
    RECEIVED,
    Message,
    Receiver,
    fault_of,
    key_of,
    receiver,
)
from contract_tests.target.response import Response

rule = pytest.mark.rule
pytestmark = pytest.mark.strict
SECRET: Final = "/v1/webhooks/secret"  # noqa: S105  a path
TEST: Final = Request(path="/v1/webhooks/test", headers=(AUTHORIZATION,))
HEADER: Final = "X-Upscaler-Webhook"
LOCATION: Final = ("header", HEADER.lower())
NO_URLS: Final = ("", "x", "/told", "ftp://example.com/", "https://", "https://a:b@example.com/")
TESTED: Final = "/told?of=test"
MADE: Final = "/told?of=inference"


def secret_key(run: Run) -> bytes:
    """The key that webhooks are signed with; empty while planning.

    Raises NotOffered where there are none, which is a 422 if other deployments have them.
    """
    response = run.send(get(SECRET))
    require_offered(get(SECRET), response)
    if response is not None and response.status == 422:
        raise NotOffered(f"the target says 422 to GET {SECRET}: it sends no webhooks")
    secret = fields_of(run, response, "EXT-5").get("secret")
    key = key_of(secret)
    right = run.planning or key is not None
    run.require_or_stop(right, "EXT-5", "secret is not whsec_ and 24 to 64 bytes in base64")
    return key or b""


@rule("EXT-5")
def test_the_secret_is_the_same_each_time_and_needs_a_token(run: Run) -> None:
    first = secret_key(run)
    run.require(secret_key(run) == first, "EXT-5", "the secret is another one the second time")
    require_token(run, get(SECRET), "EXT-5")


@rule("EXT-5")
@pytest.mark.parametrize("url", NO_URLS)
def test_a_webhook_that_is_no_url_is_refused(run: Run, url: str) -> None:
    secret_key(run)
    for request in (image_request(run, 121).with_headers(ASYNC_HEADER), TEST):
        require_refused(run, request.with_headers((HEADER, url)), "EXT-5", 422, LOCATION)


@rule("EXT-5")
def test_a_test_message_needs_a_url_and_a_token(run: Run) -> None:
    secret_key(run)
    require_refused(run, TEST, "EXT-5", 422, LOCATION)
    require_token(run, TEST, "EXT-5")


@rule("EXT-5")
def test_a_test_message_is_sent_at_once(run: Run) -> None:
    key = secret_key(run)
    with receiver(run) as received:
        told = fields_of(run, send_test(run, received), "EXT-5")
        messages = received.wait_for(run, TESTED, 0 if run.planning else 1)
        came = bool(messages) or run.planning
        run.require_or_stop(came, "EXT-5", "nothing was sent to the URL, though it says so")
        for message in messages:
            check_message(run, message, key, "webhook.test")
        status = told.get("status")
        run.require(status == RECEIVED, "EXT-5", f"status is {status}, and {RECEIVED} was returned")


@rule("EXT-5")
@pytest.mark.billable
def test_a_message_is_sent_until_it_is_received(run: Run) -> None:
    """The receiver is busy at first, so that there are two attempts at the same message."""
    key = secret_key(run)
    with receiver(run, busy_at=MADE) as received:
        send_test(run, received)
        request = image_request(run, 122)
        sent = request.with_headers(ASYNC_HEADER, (HEADER, received.origin + MADE))
        response = run.send(sent, images=1)
        if response is None:
            return
        run.check_response_to(sent, response, "EXT-5")
        accepted = fields_of(run, response, "EXT-5")
        wait_for_result(run, accepted)
        for count, when in ((1, "an inference was completed"), (2, f"the URL returned {BUSY}")):
            messages = received.wait_for(run, MADE, count)
            came = len(messages) >= count
            run.require_or_stop(came, "EXT-5", f"nothing was sent to the URL after {when}")
        for message in messages:
            check_message(run, message, key, "request.completed")
        ids = {message.headers["webhook-id"] for message in messages}
        same = len(ids) == 1 and len({message.body for message in messages}) == 1
        run.require(same, "EXT-5", "a message has another id or body when it is sent again")
        told = messages[0].told
        about = (told.get("response_id"), told.get("status"))
        wanted = (accepted["response_id"], "completed")
        run.require(about == wanted, "EXT-5", f"the message is about {about}, not {wanted}")
        check_result(run, request, str(told.get("response_url")), rule="EXT-5")


def send_test(run: Run, received: Receiver) -> Response | None:
    """The response to a test message. Raises NotOffered if the target never posts to here."""
    response = run.send(TEST.with_headers((HEADER, received.origin + TESTED)))
    if response is not None and response.status == 422:
        raise NotOffered("the target posts to no URL of this machine, by a 422")
    return response


def check_message(run: Run, message: Message, key: bytes, kind: str) -> None:
    """Require that a message is signed, and of this type."""
    fault = fault_of(message, key)
    run.require(not fault, "EXT-5", f"of the POST to the URL: {fault}")
    told = message.told.get("type")
    run.require(told == kind, "EXT-5", f"the message has the type {told}, not {kind}")
