"""What a test says of the target, by what it raised and what was found meanwhile."""

from collections.abc import Callable, Iterator

import pytest

from contract_tests.failures import Failure, ShrinkBudgetSpent, Undecided
from contract_tests.judge.run import Run
from contract_tests.oracle.rules import RULES, Rule, Source
from contract_tests.report.report import DIFF, Outcome, ReportedFinding, RuleResult, TestResult


def outcome(raised: BaseException | None, run: Run) -> tuple[Outcome, str]:
    """What came of the test that `run` has just been used by, and why if it is not plain.

    What was found stands, whatever came after it.
    """
    errors = list(_leaves(raised)) if raised else []
    for error in errors:
        if isinstance(error, Failure):
            run.record(error)
    others = [error for error in errors if not isinstance(error, Failure | Undecided)]
    told = f"{type(others[0]).__name__}: {others[0]}" if others else ""
    if run.counters.findings:
        stopped = [each for each in errors if not isinstance(each, Failure | ShrinkBudgetSpent)]
        return Outcome.FAILED, told or "".join(map(str, stopped[:1]))
    if others:
        return Outcome.ERROR, told
    if errors:
        return Outcome(getattr(errors[0], "outcome", "error")), str(errors[0])
    if not run.counters.requests:
        return Outcome.NOTHING, "all that it has may be answered in any way"
    return Outcome.PASSED, ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, as Hypothesis raises if it finds several."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)


def found(run: Run, hide: Callable[[str], str]) -> tuple[ReportedFinding, ...]:
    """What the test has found, by rule; `hide` takes the token out of a text."""
    return tuple(
        ReportedFinding(
            each.rule,
            hide(each.sentence),
            hide(repr(each.request)),
            hide(each.response),
            hide(each.request.curl(run.target.base_url)),
        )
        for each in run.counters.findings.values()
    )


def tell(told: pytest.TestReport, result: TestResult) -> None:
    """Put into pytest's report what the outcome is, in words; errors keep their traceback."""
    if result.outcome is Outcome.FAILED:
        told.outcome = "failed"
        told.longrepr = "\n\n".join(map(in_words, result.findings))
    elif result.outcome is Outcome.ERROR:
        told.sections.append(("what this is", "the test itself failed, not the target"))
    elif result.outcome not in (Outcome.PASSED, Outcome.PLANNED):
        told.outcome = "skipped"
        told.longrepr = (told.location[0], told.location[1] or 0, _sentence(result))


def _sentence(result: TestResult) -> str:
    return f"{result.outcome}: {result.sentence}"


def in_words(found: ReportedFinding) -> str:
    """What was found, with all that a person needs to see it again."""
    return "\n".join((*rule_in_words(found.rule), *finding_in_words(found)))


def rule_in_words(name: str) -> Iterator[str]:
    """The lines of a rule, and of what supports it."""
    rule = RULES.get(name, DIFF)
    yield f"{rule.id}: {rule.sentence}"
    if rule.sources:
        yield f"  source:  {support(rule)}"


def support(rule: Rule | RuleResult) -> str:
    """Where a rule is from, and what of it is somebody's choice, in a few words."""
    labels = [str(label) for label in rule.sources if label != Source.CHOICE]
    choice = [f"choice: {rule.chosen}" if rule.chosen else "choice"]
    return ", ".join(labels + (choice if Source.CHOICE in rule.sources else []))


def finding_in_words(found: ReportedFinding) -> Iterator[str]:
    """The lines of what is wrong, and of how to see it again."""
    yield f"  broken:  {found.sentence}"
    yield f"  sent:    {found.request}"
    yield f"  came:    {found.answer}"
    yield f"  again:   {found.curl}"
