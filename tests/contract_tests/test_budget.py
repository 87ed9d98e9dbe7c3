"""What the kit pays for, and what it does not send."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from contract_tests.failures import BudgetReached, Failure, ShrinkBudgetSpent, Undecided
from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import SHRINK_BILLABLE, SHRINK_REQUESTS, Run
from contract_tests.oracle.oracle import Level
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import Request, upscaling_request
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from tests.support.stub_servers import OK, StubServer, in_turn, status_only, stub_server

INVALID_REQUEST = upscaling_request({"scale": "two"})
VALID_REQUEST = upscaling_request({"scale": 1}, SampleImage(256, 256, "png", 1, "palette"))
OPENED: list[Target] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No test leaves a connection open."""
    yield
    while OPENED:
        OPENED.pop().close()


def target(server: StubServer) -> Target:
    OPENED.append(Target(server.url, "the-token"))
    return OPENED[-1]


def run(server: StubServer, budget: Budget) -> Run:
    return Run(target(server), Policy(Level.STRICT), budget)


def test_a_budget_allows_what_can_be_paid_for() -> None:
    assert Budget(Decimal("0.01"), Decimal("0.004")).limit == 2
    assert Budget(Decimal(1), Decimal("0.004"), 7).limit == 7
    assert Budget(Decimal(1), Decimal(0)).limit is None
    assert Budget(Decimal(0), Decimal("0.004")).limit == 0


def test_a_request_is_counted_before_it_is_sent() -> None:
    with stub_server(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=0))
        with pytest.raises(BudgetReached, match="--max-cost"):
            asking.check(VALID_REQUEST)
    assert server.seen == []
    assert asking.counters.requests == 0


def test_a_refusal_is_not_paid_for() -> None:
    with stub_server(in_turn(status_only(422))) as server:
        asking = run(server, Budget())
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert asking.budget.billed == asking.counters.billable == 0


def test_a_request_that_is_sent_twice_is_paid_for_once() -> None:
    with stub_server(in_turn(status_only(503, retry_after="0"), OK)) as server:
        asking = run(server, Budget(max_requests=1))
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert len(server.posts) == 2
    assert asking.budget.billed == 1


def test_a_picture_that_should_have_been_refused_is_paid_for() -> None:
    with stub_server(in_turn(OK)) as server:
        asking = run(server, Budget())
        with pytest.raises(Failure):
            asking.check(INVALID_REQUEST)
    assert asking.budget.billed == asking.counters.billable == 1


def test_what_should_be_free_is_not_sent_once_it_has_cost_all_there_is() -> None:
    with stub_server(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=1))
        for number in range(5):
            asking.start_test(str(number))
            with pytest.raises(Failure if number == 0 else BudgetReached):
                asking.check(INVALID_REQUEST)
    assert len(server.posts) == asking.budget.billed == 1


@pytest.mark.parametrize("request_", [VALID_REQUEST, INVALID_REQUEST], ids=["right", "wrong"])
def test_making_a_failure_smaller_costs_little(request_: Request) -> None:
    with stub_server(in_turn(OK)) as server:
        asking = run(server, Budget())
        for number in range(40):
            with pytest.raises((Failure, ShrinkBudgetSpent)):
                asking.check(request_.with_headers(("X-Number", str(number))))
    assert len(server.posts) == asking.budget.billed == 1 + SHRINK_BILLABLE


def test_what_was_found_is_kept_though_nothing_more_can_be_paid_for() -> None:
    with stub_server(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=3))
        for number in range(10):
            with pytest.raises((Failure, Undecided)):
                asking.check(VALID_REQUEST.with_headers(("X-Number", str(number))))
    assert len(server.posts) == 3
    assert asking.counters.findings


def test_a_missing_id_is_kept_and_never_enough() -> None:
    with stub_server(in_turn(status_only(422))) as server:
        asking = run(server, Budget())
        for _ in range(SHRINK_REQUESTS + 10):
            asking.send(INVALID_REQUEST)
    assert len(server.posts) == SHRINK_REQUESTS + 10
    assert set(asking.counters.findings) == {"RES-6"}


def test_planning_sends_nothing() -> None:
    with stub_server(in_turn(OK)) as server:
        planning = Run(target(server), Policy(Level.STRICT), Budget(), planning=True)
        assert planning.check(VALID_REQUEST) is None
        assert planning.check(INVALID_REQUEST) is None
    assert server.seen == []
    assert (len(planning.counters.planned), planning.counters.billable) == (2, 1)


def test_two_implementations_are_both_paid_for() -> None:
    with stub_server(in_turn(OK)) as one, stub_server(in_turn(OK)) as two:
        asking = Run(target(one), Policy(Level.STRICT), Budget(), target(two))
        with pytest.raises(Failure):
            asking.check(VALID_REQUEST)
    assert asking.budget.billed == len(one.posts) + len(two.posts) == 2


def test_a_disagreement_is_told_though_a_rule_is_broken_too() -> None:
    with stub_server(in_turn(OK)) as one, stub_server(in_turn(status_only(422))) as two:
        asking = Run(target(one), Policy(Level.STRICT), Budget(), target(two))
        with pytest.raises(Failure) as raised:
            asking.check(INVALID_REQUEST)
        with pytest.raises(Failure) as again:
            asking.check(INVALID_REQUEST)
    assert raised.value is again.value
    assert asking.counters.findings["DIFF"].sentence.startswith("the status differs: 200 here")
    assert len(asking.counters.findings.keys() - {"RES-6"}) == 2
