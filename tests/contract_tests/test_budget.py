"""What the kit pays for, and what it does not send."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from contract_tests.failures import BudgetReached, Enough, Undecided, Violation
from contract_tests.judge.expectations import Terms
from contract_tests.judge.run import SHRINKING_PICTURES, SHRINKING_REQUESTS, Run
from contract_tests.oracle.oracle import Level
from contract_tests.requests.images import Picture
from contract_tests.requests.request import Request, upscaling
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from tests.support.stub_servers import OK, Stub, busy, in_turn, stub

WRONG = upscaling({"scale": "two"})
RIGHT = upscaling({"scale": 1}, Picture(256, 256, "png", 1, "palette"))
OPENED: list[Target] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No test leaves a connection open."""
    yield
    while OPENED:
        OPENED.pop().close()


def target(server: Stub) -> Target:
    OPENED.append(Target(server.url, "the-token"))
    return OPENED[-1]


def run(server: Stub, budget: Budget) -> Run:
    return Run(target(server), Terms(Level.STRICT), budget)


def test_a_budget_allows_what_can_be_paid_for() -> None:
    assert Budget(Decimal("0.01"), Decimal("0.004")).limit == 2
    assert Budget(Decimal(1), Decimal("0.004"), 7).limit == 7
    assert Budget(Decimal(1), Decimal(0)).limit is None
    assert Budget(Decimal(0), Decimal("0.004")).limit == 0


def test_a_request_is_counted_before_it_is_sent() -> None:
    with stub(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=0))
        with pytest.raises(BudgetReached, match="--max-cost"):
            asking.check(RIGHT)
    assert server.seen == []
    assert asking.tally.requests == 0


def test_a_refusal_is_not_paid_for() -> None:
    with stub(in_turn(busy(422))) as server:
        asking = run(server, Budget())
        with pytest.raises(Violation):
            asking.check(RIGHT)
    assert asking.budget.billed == asking.tally.billable == 0


def test_a_request_that_is_sent_twice_is_paid_for_once() -> None:
    with stub(in_turn(busy(503, retry_after="0"), OK)) as server:
        asking = run(server, Budget(max_requests=1))
        with pytest.raises(Violation):
            asking.check(RIGHT)
    assert len(server.posts) == 2
    assert asking.budget.billed == 1


def test_a_picture_that_should_have_been_refused_is_paid_for() -> None:
    with stub(in_turn(OK)) as server:
        asking = run(server, Budget())
        with pytest.raises(Violation):
            asking.check(WRONG)
    assert asking.budget.billed == asking.tally.billable == 1


def test_what_should_be_free_is_not_sent_once_it_has_cost_all_there_is() -> None:
    with stub(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=1))
        for number in range(5):
            asking.begin(str(number))
            with pytest.raises(Violation if number == 0 else BudgetReached):
                asking.check(WRONG)
    assert len(server.posts) == asking.budget.billed == 1


@pytest.mark.parametrize("request_", [RIGHT, WRONG], ids=["right", "wrong"])
def test_making_a_failure_smaller_costs_little(request_: Request) -> None:
    with stub(in_turn(OK)) as server:
        asking = run(server, Budget())
        for number in range(40):
            with pytest.raises((Violation, Enough)):
                asking.check(request_.also(("X-Number", str(number))))
    assert len(server.posts) == asking.budget.billed == 1 + SHRINKING_PICTURES


def test_what_was_found_is_kept_though_nothing_more_can_be_paid_for() -> None:
    with stub(in_turn(OK)) as server:
        asking = run(server, Budget(max_requests=3))
        for number in range(10):
            with pytest.raises((Violation, Undecided)):
                asking.check(RIGHT.also(("X-Number", str(number))))
    assert len(server.posts) == 3
    assert asking.tally.findings


def test_a_missing_id_is_kept_and_never_enough() -> None:
    with stub(in_turn(busy(422))) as server:
        asking = run(server, Budget())
        for _ in range(SHRINKING_REQUESTS + 10):
            asking.ask(WRONG)
    assert len(server.posts) == SHRINKING_REQUESTS + 10
    assert set(asking.tally.findings) == {"RES-6"}


def test_planning_sends_nothing() -> None:
    with stub(in_turn(OK)) as server:
        planning = Run(target(server), Terms(Level.STRICT), Budget(), planning=True)
        assert planning.check(RIGHT) is None
        assert planning.check(WRONG) is None
    assert server.seen == []
    assert (len(planning.tally.planned), planning.tally.billable) == (2, 1)


def test_two_implementations_are_both_paid_for() -> None:
    with stub(in_turn(OK)) as one, stub(in_turn(OK)) as two:
        asking = Run(target(one), Terms(Level.STRICT), Budget(), target(two))
        with pytest.raises(Violation):
            asking.check(RIGHT)
    assert asking.budget.billed == len(one.posts) + len(two.posts) == 2


def test_a_disagreement_is_told_though_a_rule_is_broken_too() -> None:
    with stub(in_turn(OK)) as one, stub(in_turn(busy(422))) as two:
        asking = Run(target(one), Terms(Level.STRICT), Budget(), target(two))
        with pytest.raises(Violation) as raised:
            asking.check(WRONG)
        with pytest.raises(Violation) as again:
            asking.check(WRONG)
    assert raised.value is again.value
    assert asking.tally.findings["DIFF"].sentence.startswith("the status differs: 200 here")
    assert len(asking.tally.findings.keys() - {"RES-6"}) == 2
