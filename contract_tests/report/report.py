"""The results of a run as data: for the terminal, the HTML page, and as JSON for programs.

The JSON of `--report` is a `Report` under the names of its fields, which are therefore a public
interface; `schema` is incremented if a field ever changes its meaning or is removed. Times are in
seconds, costs in US dollars, `started` is UTC in ISO 8601. `verdict` and `outcome` have the values
of `RuleVerdict` and `Outcome`. The token is redacted everywhere as `$TOKEN`.
"""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from contract_tests.oracle.rules import CHECKED_IN_EVERY_RESPONSE, RULES, Rule

SCHEMA: Final = 1
DIFF: Final = Rule("DIFF", "Both implementations respond alike.", ())
"""What `--diff` judges in addition to the rules."""


class Outcome(StrEnum):
    """The outcome of a test."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    BUDGET = "budget reached"
    UNREACHABLE = "unreachable"
    ERROR = "error"
    """The test itself has a bug."""
    PLANNED = "planned"
    """Nothing was sent."""
    NOTHING = "nothing to send"
    """At this level, or with this token, every response to its requests is allowed."""
    NOT_OFFERED = "not offered"
    """The target lacks what is tested, which is an extension."""


class RuleVerdict(StrEnum):
    """The verdict on a rule."""

    CONFORMS = "conforms"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested"
    NOT_OFFERED = "not offered"
    """The target lacks it, as it may lack any extension."""


STATUSES: Final = {
    "interrupted": 130,
    Outcome.FAILED: 1,
    Outcome.ERROR: 1,
    Outcome.UNREACHABLE: 5,
    "no answer to a POST": 6,
    "redirected": 7,
    "unusable proxy": 8,
    "wrong URL": 9,
    "blocked": 10,
    "no HTTP/2": 11,
    Outcome.BUDGET: 4,
    Outcome.INCONCLUSIVE: 3,
    Outcome.PASSED: 0,
    Outcome.PLANNED: 0,
    Outcome.NOTHING: 3,
    Outcome.NOT_OFFERED: 3,
}
"""The exit status of a run in which a test has this outcome, or that ended so before any test: the
first one decides."""
HEADLINES: Final = {
    "interrupted": "interrupted",
    Outcome.FAILED: "does not conform",
    Outcome.ERROR: "the tests themselves failed",
    Outcome.UNREACHABLE: "unreachable",
    "no answer to a POST": "cannot be judged",
    "redirected": "cannot be judged",
    "unusable proxy": "cannot be judged",
    "wrong URL": "cannot be judged",
    "blocked": "cannot be judged",
    "no HTTP/2": "cannot be judged",
    Outcome.BUDGET: "budget reached",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.PASSED: "conforms",
    Outcome.PLANNED: "planned",
    Outcome.NOTHING: "inconclusive",
    Outcome.NOT_OFFERED: "inconclusive",
}
"""The verdict on the target, by the outcome that decides."""


UNDECIDED: Final = (Outcome.INCONCLUSIVE, Outcome.BUDGET, Outcome.UNREACHABLE)
"""The outcomes of tests that ended without a verdict."""


@dataclass(frozen=True)
class ReportedFinding:
    """A rule that the target breaks, and in a line or two each the request and the response.

    `curl` is a command for a POSIX shell that repeats the request, and `repeat` a shorter one where
    this package is installed, or empty.
    """

    rule: str
    sentence: str
    request: str
    answer: str
    curl: str
    repeat: str = ""


@dataclass(frozen=True)
class ReportedExchange:
    """The request at which a test ended undecided, as in a `ReportedFinding`.

    `answer` is empty if there was none.
    """

    request: str
    answer: str
    curl: str
    repeat: str = ""


@dataclass(frozen=True)
class TestResult:
    """The result of a test: of all its `requests` those that are `billable` may have cost money."""

    __test__ = False

    id: str
    says: str
    """What is tested, in words."""
    rules: tuple[str, ...]
    outcome: Outcome
    sentence: str
    """Why it is not decided, or what is wrong with the test itself."""
    requests: int
    billable: int
    seconds: float
    findings: tuple[ReportedFinding, ...] = ()
    undecided: ReportedExchange | None = None
    """Where it ended, if it is inconclusive because of a response, or the lack of one."""

    @property
    def function(self) -> str:
        """The id without the parameters of the case."""
        return self.id.partition("[")[0]


@dataclass(frozen=True)
class RuleResult:
    """The result for a rule; `tests` are the ids of those that cover it, or found it broken."""

    id: str
    sentence: str
    sources: tuple[str, ...]
    chosen: str
    verdict: RuleVerdict
    requests: int
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Money:
    """What was spent. `limit` is how many requests may be billed, or None for any number.

    `billed` counts `lost` ones, too: those to which no image came, although one may have been made.
    """

    price: float
    max_cost: float
    limit: int | None
    billed: int
    spent: float
    lost: int = 0


@dataclass(frozen=True)
class Times:
    """How long the responses of a kind took, in seconds."""

    count: int
    median: float | None
    p95: float | None
    longest: float | None
    all: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Times":
        ordered = sorted(round(each, 4) for each in seconds)
        if not ordered:
            return cls(0, None, None, None, ())
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        return cls(len(ordered), statistics.median(ordered), p95, ordered[-1], tuple(ordered))


@dataclass(frozen=True)
class Report:
    """The result of a run. `status` is the exit status that belongs to the verdict."""

    target: str
    other: str | None
    level: str
    http2: bool
    """Whether the requests were sent by HTTP/2."""
    seed: int | None
    """Of random choices; None if they are always the same."""
    max_examples: int
    versions: dict[str, str]
    started: str
    seconds: float
    verdict: str
    """One of `HEADLINES`."""
    status: int
    money: Money
    times: dict[str, Times]
    """By whether a request was `refused` or an image `made`."""
    reason: str
    """Why it ended before everything was tested, or empty."""
    left_out: dict[str, int]
    """How many tests were left out, by reason."""
    rules: tuple[RuleResult, ...]
    tests: tuple[TestResult, ...]
    recorded: bool = False
    """Whether it is recorded traffic that was judged, and nothing was sent."""
    schema: int = SCHEMA

    def broken(self) -> list[RuleResult]:
        return [rule for rule in self.rules if rule.verdict is RuleVerdict.BROKEN]

    def findings(self, rule: str) -> list[list[tuple[TestResult, ReportedFinding]]]:
        """The findings of a rule, grouped by sentence, the shortest curl command first."""
        found = [(test, each) for test in self.tests for each in test.findings if each.rule == rule]
        found.sort(key=lambda pair: len(pair[1].curl))
        sentences = dict.fromkeys(each.sentence for _, each in found)
        return [[pair for pair in found if pair[1].sentence == sentence] for sentence in sentences]

    def undecided(self) -> list[list[TestResult]]:
        """The tests without a verdict, grouped by why, the most common reason first.

        Of each group those come first that can be repeated, by the shortest command.
        """
        ended = [test for test in self.tests if test.outcome in UNDECIDED]
        ended.sort(key=lambda test: (test.undecided is None, len(_command(test))))
        sentences = dict.fromkeys(test.sentence for test in ended)
        groups = [[test for test in ended if test.sentence == each] for each in sentences]
        return sorted(groups, key=len, reverse=True)

    def not_offered(self) -> dict[str, int]:
        """How many tests the target has not what they are about, by what shows that."""
        return Counter(t.sentence for t in self.tests if t.outcome is Outcome.NOT_OFFERED)

    def write(self, path: Path) -> None:
        """Write the report as JSON; raises OSError."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _command(test: TestResult) -> str:
    return test.undecided.curl if test.undecided else ""


def judge_rules(
    tests: Sequence[TestResult], skipped: Container[str], *, diff: bool
) -> tuple[RuleResult, ...]:
    """The verdict on each rule that is not skipped, and with `diff` on `DIFF`."""
    rules = [*RULES.values(), *([DIFF] if diff else [])]
    return tuple(_judge_rule(rule, [] if rule.id in skipped else tests) for rule in rules)


def _judge_rule(rule: Rule, tests: Sequence[TestResult]) -> RuleResult:
    sending = [test for test in tests if test.outcome is not Outcome.NOTHING]
    # Whatever finds a rule broken has tested it.
    covering = [
        test
        for test in sending
        if rule is DIFF or rule.id in (*test.rules, *(found.rule for found in test.findings))
    ]
    return RuleResult(
        rule.id,
        rule.sentence,
        tuple(map(str, rule.sources)),
        rule.chosen,
        _verdict(rule.id, covering, tests),
        sum(test.requests for test in covering),
        tuple(test.id for test in covering),
    )


def _verdict(rule: str, covering: Sequence[TestResult], tests: Sequence[TestResult]) -> RuleVerdict:
    """A rule may be found broken by a test that is not about it.

    A test that found another rule broken ended early, and says nothing about this one.
    """
    if any(found.rule == rule for test in tests for found in test.findings):
        return RuleVerdict.BROKEN
    outcomes = {_outcome_for_other_rules(test) for test in covering} - {Outcome.PLANNED}
    if outcomes == {Outcome.NOT_OFFERED}:
        return RuleVerdict.NOT_OFFERED
    outcomes -= {Outcome.NOT_OFFERED}
    if not outcomes:
        return RuleVerdict.NOT_TESTED
    undecided = {Outcome.INCONCLUSIVE, Outcome.BUDGET, Outcome.UNREACHABLE, Outcome.ERROR}
    if outcomes & undecided or Outcome.PASSED not in outcomes:
        return RuleVerdict.INCONCLUSIVE
    return RuleVerdict.CONFORMS


def _outcome_for_other_rules(test: TestResult) -> Outcome:
    """The outcome of a test for the rules that it did not find broken."""
    ended = not test.sentence and all(
        found.rule in CHECKED_IN_EVERY_RESPONSE for found in test.findings
    )
    return Outcome.PASSED if test.outcome is Outcome.FAILED and ended else test.outcome
