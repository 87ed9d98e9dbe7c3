"""One run of the tests against one target: what was asked, what it cost, and what was found."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from contract_tests.failures import Failure, Inconclusive, ShrinkBudgetSpent
from contract_tests.judge.checks import check, check_id
from contract_tests.judge.diff import compare_responses
from contract_tests.judge.expectations import (
    SUCCESS,
    ExpectedResponse,
    Policy,
    expect_response,
)
from contract_tests.requests.request import Request
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from contract_tests.target.response import Response

SHRINKING_REQUESTS: Final = 100
"""So many requests are spent on making a failure smaller, once a test has found one."""
SHRINKING_IMAGES: Final = 10
"""So many of them may cost money."""


@dataclass(frozen=True)
class Finding:
    """A rule that the target breaks, and the smallest request seen that shows it."""

    rule: str
    sentence: str
    request: Request
    shown: str
    """The answer, in a line or two."""


@dataclass
class Counters:
    """What a test has asked so far. Findings are by their rules."""

    requests: int = 0
    billable: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"refused": [], "made": []})
    """How long the answers took, by whether a picture was refused or made."""
    findings: dict[str, Finding] = field(default_factory=dict)
    planned: list[Request] = field(default_factory=list)
    unexpected_charge: bool = False
    """Whether a picture came that should have been refused: any further one may cost money."""
    left: list[int] = field(default_factory=lambda: [SHRINKING_REQUESTS, SHRINKING_IMAGES])
    """How many requests, and how many that cost money, may follow once something is found."""


@dataclass(repr=False)  # pytest and Hypothesis would print all that was asked
class Run:
    """What the tests ask with. One for all tests; they call `check`, and `require` for the rest.

    `other` is a second implementation that gets every request, too, and must answer alike. While
    `planning` nothing is sent, and there are no answers.
    """

    target: Target
    policy: Policy
    budget: Budget
    other: Target | None = None
    planning: bool = False
    concurrency: int = 1
    models: Sequence[str] = ()
    """The only models to ask for, the first of them where it does not matter; none: all six."""
    image: tuple[str, int, int] | None = None
    """A URL from which the target can download a picture, and that one's width and height."""
    counters_by_test: dict[str, Counters] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known: dict[Request, Failure] = {}
        self._lock = threading.Lock()
        self._last = threading.local()
        self.start_test("")

    def start_test(self, test: str) -> None:
        """Count what follows as that of `test`."""
        self._known = {}
        self.counters = self.counters_by_test.setdefault(test, Counters())

    def check(self, request: Request) -> Response | None:
        """Ask, and raise a Failure if the answer is none of those that may be given.

        The answer is None while planning. A request that has failed is not sent again: it fails
        with what it failed with. Raises Undecided if nothing can be said.
        """
        if request in self._known:
            raise self._known[request]
        expected = expect_response(request, self.policy)
        response = self._send(request, billable=expected.billable)
        if response is None:
            return None
        self._note_time(response)
        self._judge(request, response, expected)
        return response

    def _judge(self, request: Request, response: Response, expected: ExpectedResponse) -> None:
        """Raise a Failure if a rule is broken, or the other implementation answers otherwise.

        Whichever it is, both are looked at.
        """
        failed: Failure | None = None
        for check_response in (check, self._compare):
            try:
                check_response(request, response, expected, self.policy)
            except Failure as failure:
                self._found(failure, request, response)
                failed = failure
        if failed:
            raise failed

    def check_refused(self, request: Request) -> Response | None:
        """Check a request that must be refused; one that may be taken at this level is not sent."""
        return None if expect_response(request, self.policy).billable else self.check(request)

    def check_response(self, request: Request, response: Response, rule: str) -> None:
        """Raise a Failure of `rule` unless `response` could be the one to `request`.

        What is shown of it is what was asked last.
        """
        try:
            check(
                request,
                response,
                expect_response(request, self.policy),
                replace(self.policy, skipped=frozenset()),
            )
        except Failure as failure:
            self.require(False, rule, failure.sentence)

    def check_any_model(self, request: Request) -> Response | None:
        """Check a request to which the model does not matter, by one of those to ask for."""
        return self.check(request.with_model(self.models))

    def send(self, request: Request) -> Response | None:
        """Ask for something that costs nothing, and let the test judge the answer."""
        return self._send(request, billable=False)

    def require(self, holds: bool, rule: str, sentence: str) -> None:
        """Raise a Failure of what was asked last, by this thread, unless `holds`."""
        if holds:
            return
        try:
            self.policy.fail(rule, sentence)
        except Failure as failure:
            self._found(failure, *self._last.exchange)
            raise

    def record(self, failure: Failure) -> None:
        """Keep what a test found by itself in what it asked last."""
        if failure.rule not in self.counters.findings:
            self._found(failure, *self._last.exchange)

    def require_or_stop(self, holds: bool, rule: str, sentence: str) -> None:
        """Demand what a test cannot go on without: it ends, too, if nothing is said of `rule`."""
        self.require(holds, rule, sentence)
        if not holds:
            raise Inconclusive(f"{sentence}, by a rule that is not judged")

    def _send(self, request: Request, *, billable: bool) -> Response | None:
        """The answer, paid for beforehand if it may cost money."""
        if self.planning:
            self.counters.planned.append(request)
            self.counters.billable += billable * (2 if self.other else 1)
            return None
        paid = billable or self.counters.unexpected_charge
        if request.method == "POST" and not paid:
            self.budget.allow_free()
        self._enough(paid=paid)
        response = self.target.send(
            request, self._counter(paid=paid), partial(self._on_response, request)
        )
        made = _is_billed(request, response)
        if paid and not made:
            self._unbilled()
        if made and not paid:
            self.budget.record_unexpected_charge()
            self.counters.billable += 1
            self.counters.unexpected_charge = True
        self._look_for_id(request, response)
        return response

    def _look_for_id(self, request: Request, response: Response) -> None:
        """Keep it if the id is wrong, and go on: what has none may be right in all else."""
        try:
            check_id(request, response, self.policy)
        except Failure as failure:
            self._keep(failure, request, response)

    def _on_response(self, request: Request, response: Response) -> None:
        """Keep what was answered, and see to it that whoever asks for patience says how long."""
        self._last.exchange = request, response
        silent = self.policy.strict and "retry-after" not in response.headers
        self.require(not (response.status == 429 and silent), "RES-5", "a 429 has no Retry-After")

    def _counter(self, *, paid: bool) -> Callable[[], None]:
        """What counts each attempt of a request, the ones before it being answered without one."""
        attempts = 0

        def count() -> None:
            nonlocal attempts
            attempts += 1
            if paid and attempts == 1:
                self.budget.reserve()
                self.counters.billable += 1
            with self._lock:
                self.counters.requests += 1

        return count

    def _unbilled(self) -> None:
        self.budget.release()
        self.counters.billable -= 1

    def _enough(self, *, paid: bool) -> None:
        """Raise Enough once a failure was made smaller for long."""
        if not self._known:
            return
        left = self.counters.left
        left[0] -= 1
        left[1] -= paid
        if min(left) < 0:
            raise ShrinkBudgetSpent("a failure was found, and made as small as it could be")

    def _note_time(self, response: Response) -> None:
        kind = "made" if response.status in SUCCESS else "refused"
        self.counters.seconds[kind].append(response.seconds)

    def _compare(
        self, request: Request, response: Response, expected: ExpectedResponse, policy: Policy
    ) -> None:
        """Raise a Failure if there is another implementation, and it answers otherwise."""
        if self.other is None:
            return
        theirs = self.other.send(request, self._counter(paid=expected.billable))
        told = compare_responses(request, response, theirs)
        if told:
            policy.fail("DIFF", told)

    def _found(self, failure: Failure, request: Request, response: Response) -> None:
        """Keep what was found, and what the request fails with from now on."""
        self._known[request] = failure
        self._keep(failure, request, response)

    def _keep(self, failure: Failure, request: Request, response: Response) -> None:
        """Keep what was found, if no smaller request has shown it before."""
        before = self.counters.findings.get(failure.rule)
        if before is None or len(request.body) <= len(before.request.body):
            found = Finding(failure.rule, failure.sentence, request, response.shown)
            self.counters.findings[failure.rule] = found


def _is_billed(request: Request, response: Response) -> bool:
    """Whether the answer is one that is paid for."""
    return request.method == "POST" and response.status in SUCCESS
