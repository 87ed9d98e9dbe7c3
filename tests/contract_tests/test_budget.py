"""What is billed, and what is not sent."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from contract_tests.failures import BudgetReached, Failure, ShrinkBudgetSpent, Undecided
from contract_tests.judge.run import SHRINK_BILLABLE, SHRINK_REQUESTS, Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import Request, upscaling_request
from contract_tests.target.budget import Budget
from contract_tests.target.run_clock import RunClock
from tests.support.stub_servers import OK, Reply, in_turn, status_only, stub_server

CreateRun = Callable[..., Run]
INVALID_REQUEST = upscaling_request({"scale": "two"})
VALID_REQUEST = upscaling_request({"scale": 1}, SampleImage(256, 256, "png", 1, "palette"))


def test_the_limit_of_a_budget() -> None:
    assert Budget(Decimal("0.01"), Decimal("0.004")).limit == 2
    assert Budget(Decimal("0.0119"), Decimal("0.004")).limit == 2, "never more than is allowed"
    assert Budget(Decimal(1), Decimal("0.004"), 7).limit == 7
    assert Budget(Decimal(1), Decimal(0)).limit is None
    assert Budget(Decimal(0), Decimal("0.004")).limit == 0


def test_a_request_is_counted_before_it_is_sent(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url, Budget(max_requests=0))
        with pytest.raises(BudgetReached, match="--max-cost"):
            asking.check(VALID_REQUEST)
    assert server.seen == []
    assert asking.counters.requests == 0


def test_a_refusal_is_not_billed(create_run: CreateRun) -> None:
    with stub_server(in_turn(status_only(422))) as server:
        asking = create_run(server.url)
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert asking.budget.billed == asking.counters.billable == 0


BATCH = Request(b"{}", path="/v1/batches")


@pytest.mark.parametrize(("status", "billed"), [(200, 3), (422, 0)])
def test_a_batch_is_billed_as_all_of_its_images(
    create_run: CreateRun, status: int, billed: int
) -> None:
    with stub_server(in_turn(status_only(status))) as server:
        asking = create_run(server.url, Budget(max_requests=4))
        asking.send(BATCH, images=3)
        assert asking.budget.billed == asking.counters.billable == billed
        if billed:
            with pytest.raises(BudgetReached):
                asking.send(BATCH, images=2)
            assert len(server.posts) == 1, "what is too much is not sent"


def test_a_test_of_a_webhook_is_not_billed(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url, Budget(max_requests=0))
        asking.send(Request(path="/v1/webhooks/test"))
    assert len(server.posts) == 1
    assert asking.budget.billed == 0
    assert not asking.counters.unexpected_charge


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunClock, "pause", lambda *_: None)


LOSSES: dict[str, Reply] = {
    "closed": None,
    "cut off": (200, {"Content-Length": "1000", "Connection": "close"}, b"{"),
    **{str(status): status_only(status, retry_after="1") for status in (500, 502, 503, 504, 520)},
}
"""How an image that was made does not arrive."""


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("how", LOSSES)
def test_an_attempt_whose_image_may_be_lost_is_billed(how: str, create_run: CreateRun) -> None:
    with stub_server(in_turn(LOSSES[how], OK)) as server:
        asking = create_run(server.url)
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert len(server.posts) == asking.budget.billed == asking.counters.billable == 2
    assert asking.budget.lost == 1


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("how", LOSSES)
def test_a_target_that_loses_images_gets_no_more_requests_than_are_paid_for(
    how: str, create_run: CreateRun
) -> None:
    with stub_server(in_turn(LOSSES[how])) as server:
        asking = create_run(server.url, Budget(max_requests=4))
        for number in range(3):
            with pytest.raises((Failure, Undecided)):
                asking.check(VALID_REQUEST.with_headers(("X-Number", str(number))))
    assert len(server.posts) <= asking.budget.billed <= 4


@pytest.mark.usefixtures("_no_pauses")
def test_a_refused_attempt_is_billed_neither_before_nor_after_another(
    create_run: CreateRun,
) -> None:
    replies = status_only(429, retry_after="0"), status_only(429, retry_after="0"), OK
    with stub_server(in_turn(*replies)) as server:
        asking = create_run(server.url, Budget(max_requests=1))
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert len(server.posts) == 3
    assert asking.budget.billed == 1


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("how", ["closed", "cut off", "504"])
def test_a_lost_answer_to_an_invalid_request_may_have_been_billed(
    how: str, create_run: CreateRun
) -> None:
    with stub_server(in_turn(LOSSES[how])) as server:
        asking = create_run(server.url, Budget(max_requests=2))
        with pytest.raises(BudgetReached, match="2 of them without an image"):
            asking.check(INVALID_REQUEST)
    assert len(server.posts) == asking.budget.billed == 2


def test_what_the_other_of_two_implementations_refuses_is_not_billed(
    create_run: CreateRun,
) -> None:
    with stub_server(in_turn(OK)) as one, stub_server(in_turn(status_only(422))) as two:
        asking = create_run(one.url, other_url=two.url)
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert asking.budget.billed == len(one.posts) == len(two.posts) == 1


def test_an_unexpected_image_is_billed(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url)
        with pytest.raises(Failure):
            asking.check(INVALID_REQUEST)
    assert asking.budget.billed == asking.counters.billable == 1


def test_nothing_is_sent_once_unexpected_images_have_spent_the_budget(
    create_run: CreateRun,
) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url, Budget(max_requests=1))
        for number in range(5):
            asking.start_test(str(number))
            with pytest.raises(Failure if number == 0 else BudgetReached):
                asking.check(INVALID_REQUEST)
    assert len(server.posts) == asking.budget.billed == 1


@pytest.mark.parametrize("request_", [VALID_REQUEST, INVALID_REQUEST], ids=["right", "wrong"])
def test_shrinking_a_failure_is_limited(request_: Request, create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url)
        for number in range(40):
            with pytest.raises((Failure, ShrinkBudgetSpent)):
                asking.check(request_.with_headers(("X-Number", str(number))))
    assert len(server.posts) == asking.budget.billed == 1 + SHRINK_BILLABLE


def test_findings_are_kept_when_the_budget_is_reached(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = create_run(server.url, Budget(max_requests=3))
        for number in range(10):
            with pytest.raises((Failure, Undecided)):
                asking.check(VALID_REQUEST.with_headers(("X-Number", str(number))))
    assert len(server.posts) == 3
    assert asking.counters.findings


def test_a_missing_id_is_recorded_and_limits_nothing(create_run: CreateRun) -> None:
    with stub_server(in_turn(status_only(422))) as server:
        asking = create_run(server.url)
        for _ in range(SHRINK_REQUESTS + 10):
            asking.send(INVALID_REQUEST)
    assert len(server.posts) == SHRINK_REQUESTS + 10
    assert set(asking.counters.findings) == {"RES-6"}


def test_planning_sends_nothing(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as server:
        planning = create_run(server.url, planning=True)
        assert planning.check(VALID_REQUEST) is None
        assert planning.check(INVALID_REQUEST) is None
    assert server.seen == []
    assert (len(planning.counters.planned), planning.counters.billable) == (2, 1)


def test_both_of_two_implementations_are_billed(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as one, stub_server(in_turn(OK)) as two:
        asking = create_run(one.url, other_url=two.url)
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert asking.budget.billed == len(one.posts) + len(two.posts) == 2


def test_a_difference_is_recorded_beside_a_broken_rule(create_run: CreateRun) -> None:
    with stub_server(in_turn(OK)) as one, stub_server(in_turn(status_only(422))) as two:
        asking = create_run(one.url, other_url=two.url)
        with pytest.raises(Failure) as raised:
            asking.check(INVALID_REQUEST)
        with pytest.raises(Failure) as again:
            asking.check(INVALID_REQUEST)
    assert raised.value is again.value
    assert asking.counters.findings["DIFF"].sentence.startswith("the status differs: 200 here")
    assert len(asking.counters.findings.keys() - {"RES-6"}) == 2
