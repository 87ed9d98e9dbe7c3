"""One run of the tests against one target: what was asked, what it cost, and what was found."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from contract_tests.failures import Enough, Inconclusive, Violation
from contract_tests.judge.checks import check, check_id
from contract_tests.judge.diff import difference
from contract_tests.judge.expectations import SUCCESS, Expected, Terms, expect
from contract_tests.requests.request import Request
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from contract_tests.target.response import Answer

SHRINKING_REQUESTS: Final = 100
"""So many requests are spent on making a failure smaller, once a test has found one."""
SHRINKING_PICTURES: Final = 10
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
class Tally:
    """What a test has asked so far. Findings are by their rules."""

    requests: int = 0
    billable: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"refused": [], "made": []})
    """How long the answers took, by whether a picture was refused or made."""
    findings: dict[str, Finding] = field(default_factory=dict)
    planned: list[Request] = field(default_factory=list)
    surprised: bool = False
    """Whether a picture came that should have been refused: any further one may cost money."""
    left: list[int] = field(default_factory=lambda: [SHRINKING_REQUESTS, SHRINKING_PICTURES])
    """How many requests, and how many that cost money, may follow once something is found."""


@dataclass(repr=False)  # pytest and Hypothesis would print all that was asked
class Run:
    """What the tests ask with. One for all tests; they call `check`, and `demand` for the rest.

    `other` is a second implementation that gets every request, too, and must answer alike. While
    `planning` nothing is sent, and there are no answers.
    """

    target: Target
    terms: Terms
    budget: Budget
    other: Target | None = None
    planning: bool = False
    concurrency: int = 1
    models: Sequence[str] = ()
    """The only models to ask for, the first of them where it does not matter; none: all six."""
    image: tuple[str, int, int] | None = None
    """A URL from which the target can download a picture, and that one's width and height."""
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known: dict[Request, Violation] = {}
        self._lock = threading.Lock()
        self._last = threading.local()
        self.begin("")

    def begin(self, test: str) -> None:
        """Count what follows as that of `test`."""
        self._known = {}
        self.tally = self.tallies.setdefault(test, Tally())

    def check(self, request: Request) -> Answer | None:
        """Ask, and raise a Violation if the answer is none of those that may be given.

        The answer is None while planning. A request that has failed is not sent again: it fails
        with what it failed with. Raises Undecided if nothing can be said.
        """
        if request in self._known:
            raise self._known[request]
        expected = expect(request, self.terms)
        answer = self._sent(request, billable=expected.billable)
        if answer is None:
            return None
        self._note_time(answer)
        self._judge(request, answer, expected)
        return answer

    def _judge(self, request: Request, answer: Answer, expected: Expected) -> None:
        """Raise a Violation if a rule is broken, or the other implementation answers otherwise.

        Whichever it is, both are looked at.
        """
        failed: Violation | None = None
        for judge in (check, self._compare):
            try:
                judge(request, answer, expected, self.terms)
            except Violation as violation:
                self._found(violation, request, answer)
                failed = violation
        if failed:
            raise failed

    def refuse(self, request: Request) -> Answer | None:
        """Check a request that must be refused; one that may be taken at this level is not sent."""
        return None if expect(request, self.terms).billable else self.check(request)

    def judge(self, request: Request, answer: Answer, rule: str) -> None:
        """Raise a Violation of `rule` unless `answer` could be the one to `request`.

        What is shown of it is what was asked last.
        """
        try:
            check(
                request,
                answer,
                expect(request, self.terms),
                replace(self.terms, skipped=frozenset()),
            )
        except Violation as violation:
            self.demand(False, rule, violation.sentence)

    def cheaply(self, request: Request) -> Answer | None:
        """Check a request to which the model does not matter, by one of those to ask for."""
        return self.check(request.by(self.models))

    def ask(self, request: Request) -> Answer | None:
        """Ask for something that costs nothing, and let the test judge the answer."""
        return self._sent(request, billable=False)

    def demand(self, holds: bool, rule: str, sentence: str) -> None:
        """Raise a Violation of what was asked last, by this thread, unless `holds`."""
        if holds:
            return
        try:
            self.terms.tell(rule, sentence)
        except Violation as violation:
            self._found(violation, *self._last.exchange)
            raise

    def keep(self, violation: Violation) -> None:
        """Keep what a test found by itself in what it asked last."""
        if violation.rule not in self.tally.findings:
            self._found(violation, *self._last.exchange)

    def need(self, holds: bool, rule: str, sentence: str) -> None:
        """Demand what a test cannot go on without: it ends, too, if nothing is said of `rule`."""
        self.demand(holds, rule, sentence)
        if not holds:
            raise Inconclusive(f"{sentence}, by a rule that is not judged")

    def _sent(self, request: Request, *, billable: bool) -> Answer | None:
        """The answer, paid for beforehand if it may cost money."""
        if self.planning:
            self.tally.planned.append(request)
            self.tally.billable += billable * (2 if self.other else 1)
            return None
        paid = billable or self.tally.surprised
        if request.method == "POST" and not paid:
            self.budget.trust()
        self._enough(paid=paid)
        answer = self.target.ask(request, self._counter(paid=paid), partial(self._heard, request))
        made = _makes_a_picture(request, answer)
        if paid and not made:
            self._unbilled()
        if made and not paid:
            self.budget.surprise()
            self.tally.billable += 1
            self.tally.surprised = True
        self._look_for_id(request, answer)
        return answer

    def _look_for_id(self, request: Request, answer: Answer) -> None:
        """Keep it if the id is wrong, and go on: what has none may be right in all else."""
        try:
            check_id(request, answer, self.terms)
        except Violation as violation:
            self._keep(violation, request, answer)

    def _heard(self, request: Request, answer: Answer) -> None:
        """Keep what was answered, and see to it that whoever asks for patience says how long."""
        self._last.exchange = request, answer
        silent = self.terms.strict and "retry-after" not in answer.headers
        self.demand(not (answer.status == 429 and silent), "RES-5", "a 429 has no Retry-After")

    def _counter(self, *, paid: bool) -> Callable[[], None]:
        """What counts each attempt of a request, the ones before it being answered without one."""
        attempts = 0

        def count() -> None:
            nonlocal attempts
            attempts += 1
            if paid and attempts == 1:
                self.budget.reserve()
                self.tally.billable += 1
            with self._lock:
                self.tally.requests += 1

        return count

    def _unbilled(self) -> None:
        self.budget.release()
        self.tally.billable -= 1

    def _enough(self, *, paid: bool) -> None:
        """Raise Enough once a failure was made smaller for long."""
        if not self._known:
            return
        left = self.tally.left
        left[0] -= 1
        left[1] -= paid
        if min(left) < 0:
            raise Enough("a failure was found, and made as small as it could be")

    def _note_time(self, answer: Answer) -> None:
        kind = "made" if answer.status in SUCCESS else "refused"
        self.tally.seconds[kind].append(answer.seconds)

    def _compare(self, request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
        """Raise a Violation if there is another implementation, and it answers otherwise."""
        if self.other is None:
            return
        theirs = self.other.ask(request, self._counter(paid=expected.billable))
        told = difference(request, answer, theirs)
        if told:
            terms.tell("DIFF", told)

    def _found(self, violation: Violation, request: Request, answer: Answer) -> None:
        """Keep what was found, and what the request fails with from now on."""
        self._known[request] = violation
        self._keep(violation, request, answer)

    def _keep(self, violation: Violation, request: Request, answer: Answer) -> None:
        """Keep what was found, if no smaller request has shown it before."""
        before = self.tally.findings.get(violation.rule)
        if before is None or len(request.body) <= len(before.request.body):
            found = Finding(violation.rule, violation.sentence, request, answer.shown)
            self.tally.findings[violation.rule] = found


def _makes_a_picture(request: Request, answer: Answer) -> bool:
    """Whether the answer is one that is paid for."""
    return request.method == "POST" and answer.status in SUCCESS
