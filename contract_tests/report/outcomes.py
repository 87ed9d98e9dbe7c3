"""The outcome of a test, by what it raised and what was found meanwhile."""

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from contract_tests.failures import Failure, ShrinkBudgetSpent, Undecided
from contract_tests.judge.run import Run
from contract_tests.oracle.rules import RULES, Rule, Source
from contract_tests.report.report import (
    DIFF,
    UNDECIDED,
    Outcome,
    ReportedExchange,
    ReportedFinding,
    RuleResult,
    TestResult,
)
from contract_tests.requests.request import Request
from contract_tests.text import printable

SHORT_BYTES: Final = 300
"""The longest body that a terminal shows in a command."""


def outcome(raised: BaseException | None, run: Run) -> tuple[Outcome, str]:
    """The outcome of the test that `run` was last used by, and a reason if it needs one.

    A test that has found something has failed, whatever it raised after that.
    """
    errors = list(_leaves(raised)) if raised else []
    for error in errors:
        if isinstance(error, Failure):
            run.record(error)
    others = [error for error in errors if not isinstance(error, Failure | Undecided)]
    fault = f"{type(others[0]).__name__}: {others[0]}" if others else ""
    if run.counters.findings:
        stopped_by = [e for e in errors if not isinstance(e, Failure | ShrinkBudgetSpent)]
        return Outcome.FAILED, fault or "".join(map(str, stopped_by[:1]))
    if others:
        return Outcome.ERROR, fault
    if errors:
        return Outcome(getattr(errors[0], "outcome", "error")), str(errors[0])
    if not run.counters.requests:
        return Outcome.NOTHING, "every response would be allowed to all of its requests"
    return Outcome.PASSED, ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group: Hypothesis raises one if it finds several."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)


def report_findings(run: Run, clean: Callable[[str], str]) -> tuple[ReportedFinding, ...]:
    """What the test has found, by rule; `clean` removes the token from a text."""

    def line(text: str) -> str:
        # A response may have been made to look like further lines of the report.
        return printable(clean(text))

    return tuple(
        ReportedFinding(
            each.rule,
            line(each.sentence),
            line(repr(each.request)),
            line(each.response),
            *map(line, _commands(each.request, run.target.base_url)),
        )
        for each in run.counters.findings.values()
    )


def report_undecided(
    outcome: Outcome, run: Run, clean: Callable[[str], str]
) -> ReportedExchange | None:
    """Where a test of this outcome ended, if it was undecided at a request."""
    last = run.counters.undecided
    if last is None or outcome not in UNDECIDED:
        return None
    texts = (repr(last.request), last.response, *_commands(last.request, last.base_url))
    return ReportedExchange(*(printable(clean(text)) for text in texts))


def _commands(request: Request, base_url: str) -> tuple[str, str]:
    """The command that repeats a request, and a shorter one or an empty string."""
    whole = request.curl(base_url)
    short = request.curl(base_url, max_inline_bytes=SHORT_BYTES)
    return whole, short if len(short) < len(whole) else ""


def format_report(
    pytest_report: pytest.TestReport, result: TestResult, clean: Callable[[str], str]
) -> None:
    """Put the outcome into pytest's own report; errors of a test keep their traceback, cleaned."""
    if result.outcome is Outcome.FAILED:
        pytest_report.outcome = "failed"
        pytest_report.longrepr = "\n\n".join(map(format_finding, result.findings))
    elif result.outcome is Outcome.ERROR:
        pytest_report.longrepr = clean(pytest_report.longreprtext)
        pytest_report.sections.append(("note", "the test itself failed, not the target"))
    elif result.outcome not in (Outcome.PASSED, Outcome.PLANNED):
        path, line, _ = pytest_report.location
        pytest_report.outcome = "skipped"
        lines = (f"{result.outcome}: {result.sentence}", *undecided_lines(result))
        pytest_report.longrepr = (path, line or 0, "\n".join(lines))


def format_finding(found: ReportedFinding) -> str:
    """A finding with its rule, and all that a person needs to reproduce it."""
    return "\n".join((*rule_lines(found.rule), *finding_lines(found)))


def rule_lines(name: str) -> Iterator[str]:
    """A rule, and what supports it."""
    rule = RULES.get(name, DIFF)
    yield f"{rule.id}: {rule.sentence}"
    if rule.sources:
        yield f"  source:   {format_support(rule)}"


def format_support(rule: Rule | RuleResult) -> str:
    """The sources of a rule, and what of it is somebody's choice."""
    labels = [str(label) for label in rule.sources if label != Source.CHOICE]
    choice = [f"choice: {rule.chosen}" if rule.chosen else "choice"]
    return ", ".join(labels + (choice if Source.CHOICE in rule.sources else []))


def finding_lines(found: ReportedFinding) -> Iterator[str]:
    """What is wrong, and how to reproduce it."""
    yield f"  broken:   {found.sentence}"
    yield f"  request:  {found.request}"
    yield f"  response: {found.answer}"
    yield f"  repeat:   {found.repeat or found.curl}"


def undecided_lines(test: TestResult) -> Iterator[str]:
    """The request at which a test ended undecided, if any, and how to repeat it."""
    if test.undecided:
        yield f"  request:  {test.undecided.request}"
        yield f"  response: {test.undecided.answer or 'none'}"
        yield f"  repeat:   {test.undecided.repeat or test.undecided.curl}"
