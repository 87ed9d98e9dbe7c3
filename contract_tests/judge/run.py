"""One run of the tests against one target: what was sent, what it cost, and what was found."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from contract_tests.failures import Failure, Inconclusive, ShrinkBudgetSpent, Unreachable
from contract_tests.judge.checks import check_request_id, check_response
from contract_tests.judge.diff import compare_responses
from contract_tests.judge.expectations import SUCCESS, ExpectedResponse, Policy, expect_response
from contract_tests.requests.request import Request
from contract_tests.target.budget import Budget
from contract_tests.target.client import FINAL, Target, retry_after_s
from contract_tests.target.response import Response

SHRINK_REQUESTS: Final = 100
"""Once a test has found a failure, it may send this many requests to make it smaller."""
SHRINK_BILLABLE: Final = 10
"""This many of them may cost money."""
LOST_BY_GATEWAYS: Final = frozenset({303, 502, 504})
"""Statuses after which an image may exist even of an invalid request: a gateway speaks here, or
Modal's proxy to whom it has redirected too often, and neither knows what became of it."""
LOST: Final = LOST_BY_GATEWAYS | frozenset(range(500, 600)) - FINAL
"""Statuses after which an image of a valid request may exist, which no response brings."""


FREE_POSTS: Final = frozenset({"/v1/webhooks/test"})
"""Paths at which a POST that succeeds makes no image (EXT-5)."""


@dataclass(frozen=True)
class Finding:
    """A rule that the target breaks, and the smallest request seen that shows it."""

    rule: str
    sentence: str
    request: Request
    response: str
    """In a line or two."""


@dataclass(frozen=True)
class LastExchange:
    """The request at which a test ended undecided, where it was sent, and what came of it."""

    request: Request
    response: str
    """In a line or two; empty if there was none."""
    base_url: str


@dataclass
class Counters:
    """What one test has sent and found so far."""

    requests: int = 0
    billable: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"refused": [], "made": []})
    """Response times, by whether a request was refused or an image made."""
    findings: dict[str, Finding] = field(default_factory=dict)
    """By rule."""
    undecided: LastExchange | None = None
    """Where it ended, if it is inconclusive or the target has gone."""
    planned: list[Request] = field(default_factory=list)
    unexpected_charge: bool = False
    """Whether an image came that should have been refused: any further one may cost money."""
    shrink_requests_left: int = SHRINK_REQUESTS
    shrink_billable_left: int = SHRINK_BILLABLE


@dataclass(repr=False)  # pytest and Hypothesis would print everything that was sent
class Run:
    """Sends the tests' requests, and counts and records what comes of them; one for all tests.

    `check` derives the allowed responses itself. For what depends on earlier responses, tests use
    `send` and `require`. `other` is a second implementation that gets every request, too, and must
    respond alike. While `planning` nothing is sent, and every response is None.

    All methods that send raise Failure if a rule is broken, and Undecided if that is not known.
    """

    target: Target
    policy: Policy
    budget: Budget
    other: Target | None = None
    planning: bool = False
    concurrency: int = 1
    models: Sequence[str] = ()
    """The only models to request, the first of them where it does not matter; empty: all."""
    image_url: tuple[str, int, int] | None = None
    """A URL from which the target can download an image, and the width and height of that."""
    counters_by_test: dict[str, Counters] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._failed: dict[Request, Failure] = {}
        self._lock = threading.Lock()
        self._last = threading.local()  # tests of concurrency share a Run between threads
        self.start_test("")

    def start_test(self, test: str) -> None:
        """Count what follows as sent by `test`."""
        self._failed = {}
        self.counters = self.counters_by_test.setdefault(test, Counters())

    def check(self, request: Request) -> Response | None:
        """Send a request, and require that the response is allowed.

        A request that has failed before is not sent again, as Hypothesis repeats failures to see
        whether they are stable: it fails with the same Failure.
        """
        if request in self._failed:
            raise self._failed[request]
        expected = expect_response(request, self.policy)
        response = self._send(request, int(expected.billable))
        if response is None:
            self.counters.billable += bool(expected.billable and self.other)
            return None
        self._judge(request, response, expected)
        return response

    def check_recorded(self, request: Request, response: Response) -> None:
        """Require that the response which a request once got is allowed; nothing is sent."""
        self.counters.requests += 1
        self._last.exchange = request, response
        self._last.attempted = request, response.summary, self.target.base_url
        self._check_id(request, response)
        self._judge(request, response, expect_response(request, self.policy))

    def check_refused(self, request: Request) -> Response | None:
        """Check a request that must be refused; it is not sent if this level may accept it."""
        return None if expect_response(request, self.policy).billable else self.check(request)

    def check_any_model(self, request: Request) -> Response | None:
        """Check a request to which the model does not matter, with one that may be requested."""
        return self.check(request.with_model(self.models))

    def check_response_to(
        self,
        request: Request,
        response: Response,
        rule: str,
        expected: ExpectedResponse | None = None,
    ) -> None:
        """Require that `response`, from elsewhere, could be the response to `request`.

        Otherwise `rule` is broken, and the finding shows the last exchange. `expected` is what is
        allowed, by default what the rules allow.
        """
        # All rules count here: any mistake breaks `rule`, and only that one may be skipped.
        all_rules = replace(self.policy, skipped=frozenset())
        expected = expected or expect_response(request, self.policy)
        try:
            check_response(request, response, expected, all_rules)
        except Failure as failure:
            self.require(False, rule, failure.sentence)

    def send(self, request: Request, images: int = 0) -> Response | None:
        """Send something that may make so many images, and let the test judge the response."""
        return self._send(request, images)

    def require(self, holds: bool, rule: str, sentence: str) -> None:
        """Raise a Failure of `rule` about the last exchange of this thread, unless `holds`.

        While planning there is none, and everything holds.
        """
        if holds or self.planning:
            return
        try:
            self.policy.fail(rule, sentence)
        except Failure as failure:
            self._record_failed(failure, *self._last.exchange)
            raise

    def require_or_stop(self, holds: bool, rule: str, sentence: str) -> None:
        """Require what a test cannot go on without: it ends even if `rule` is not judged."""
        self.require(holds, rule, sentence)
        if not holds:
            with self._noting_where_it_ends():
                raise Inconclusive(f"{sentence}, by a rule that is not judged")

    def record(self, failure: Failure) -> None:
        """Record a failure that a test raised by itself about its last exchange."""
        if failure.rule not in self.counters.findings:
            self._record_failed(failure, *self._last.exchange)

    def _send(self, request: Request, images: int) -> Response | None:
        """The response, each attempt at which is reserved beforehand if it may cost money."""
        if self.planning:
            self.counters.planned.append(request)
            self.counters.billable += images
            return None
        self._spend_shrink_budget(billable=bool(images) or self.counters.unexpected_charge)
        begin, end = self._attempts(request, images, of=self.target)
        with self._noting_where_it_ends():
            response = self.target.send(request, begin, end)
        self._check_id(request, response)
        return response

    def _check_id(self, request: Request, response: Response) -> None:
        try:
            check_request_id(request, response, self.policy)
        except Failure as failure:
            # Recorded, but the test goes on: a response without an id may be right in all else.
            self._record(failure, request, response)

    def _spend_shrink_budget(self, *, billable: bool) -> None:
        if not self._failed:
            return
        counters = self.counters
        counters.shrink_requests_left -= 1
        counters.shrink_billable_left -= billable
        if min(counters.shrink_requests_left, counters.shrink_billable_left) < 0:
            raise ShrinkBudgetSpent("a failure was found, and made as small as the limits allow")

    def _attempts(
        self, request: Request, images: int, *, of: Target
    ) -> tuple[Callable[[], None], Callable[[Response | None], None]]:
        """What counts each attempt at a request of a target: before it, and once it has ended.

        An image may have been made although no response has it, as after a reset or a gateway's
        504. So what is sent again is reserved again, and only a refusal gives it back.
        """
        reserved = 0
        may_charge = request.method == "POST" and request.path not in FREE_POSTS

        def begin() -> None:
            nonlocal reserved
            # A target that made an image instead of a refusal will do so again while Hypothesis
            # shrinks: from then on each attempt of the test counts as billable.
            reserved = images or int(may_charge and self.counters.unexpected_charge)
            if reserved:
                self.budget.reserve(reserved)
            elif may_charge:
                self.budget.allow_free()
            self._last.attempted = request, "", of.base_url
            with self._lock:
                self.counters.requests += 1
                self.counters.billable += reserved

        def end(response: Response | None) -> None:
            made = response is not None and response.status in SUCCESS
            lost = response is None or response.status in (LOST if reserved else LOST_BY_GATEWAYS)
            charged = (reserved or 1) if may_charge and (made or lost) else 0
            if charged and lost:
                self.budget.record_lost(charged)
            if reserved and not charged:
                self.budget.release(reserved)
            elif charged and not reserved:
                self.budget.record_unexpected_charge()
                self.counters.unexpected_charge = True
            with self._lock:
                self.counters.billable += charged - reserved
            if response is not None:
                self._last.attempted = request, response.summary, of.base_url
            if response is not None and of is self.target:
                self._on_response(request, response)

        return begin, end

    def _on_response(self, request: Request, response: Response) -> None:
        """Remember the exchange, and check what is retried and so never judged (RES-5)."""
        self._last.exchange = request, response
        if self.policy.strict and response.status in (429, 503):
            told = retry_after_s(response) is not None
            self.require(told, "RES-5", f"a {response.status} has no valid Retry-After")

    def _judge(self, request: Request, response: Response, expected: ExpectedResponse) -> None:
        """Raise a Failure if a rule is broken, or the other implementation responds otherwise.

        Both are checked in any case, so that a report has both.
        """
        kind = "made" if response.status in SUCCESS else "refused"
        self.counters.seconds[kind].append(response.seconds)
        failed: Failure | None = None
        for check in (check_response, self._check_other):
            try:
                with self._noting_where_it_ends():
                    check(request, response, expected, self.policy)
            except Failure as failure:
                self._record_failed(failure, request, response)
                failed = failure
        if failed:
            raise failed

    def _check_other(
        self, request: Request, response: Response, expected: ExpectedResponse, policy: Policy
    ) -> None:
        if self.other is None:
            return
        attempts = self._attempts(request, int(expected.billable), of=self.other)
        theirs = self.other.send(request, *attempts)
        self._last.attempted = request, response.summary, self.target.base_url
        difference = compare_responses(request, response, theirs)
        if difference:
            policy.fail("DIFF", difference)

    @contextmanager
    def _noting_where_it_ends(self) -> Iterator[None]:
        """Keep the last exchange of this thread if the block finds that nothing can be decided.

        A test's other threads may send more before its outcome is known.
        """
        try:
            yield
        except (Inconclusive, Unreachable):
            self.counters.undecided = LastExchange(*self._last.attempted)
            raise

    def _record_failed(self, failure: Failure, request: Request, response: Response) -> None:
        """Record a failure that the request raises again from now on."""
        self._failed[request] = failure
        self._record(failure, request, response)

    def _record(self, failure: Failure, request: Request, response: Response) -> None:
        """Record what was found, unless a smaller request has shown it before."""
        before = self.counters.findings.get(failure.rule)
        if before is None or len(request.body) <= len(before.request.body):
            found = Finding(failure.rule, failure.sentence, request, response.summary)
            self.counters.findings[failure.rule] = found
