"""The report as plain text, for a terminal."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from contract_tests.judge.run import SHRINK_BILLABLE
from contract_tests.report.outcomes import (
    finding_lines,
    format_support,
    rule_lines,
    undecided_lines,
)
from contract_tests.report.report import DIFF, HEADLINES, Outcome, Report, RuleVerdict, Times

WIDTH: Final = 96
SHOWN_FAILURES: Final = 3
"""Per rule, or per reason why tests were not decided: others are mostly the same again."""
SHOWN_REASONS: Final = 5
"""Why tests were not decided: mostly they have few reasons in common."""
MAX_LINE: Final = 6000
"""A longer line is cut off: the base64 of an image would fill the screen."""
TWO_DIFFER: Final = "The two differ"
SIGNS: Final = {
    RuleVerdict.CONFORMS: "ok",
    RuleVerdict.BROKEN: "BROKEN",
    RuleVerdict.INCONCLUSIVE: "inconclusive",
}


def count(number: int, thing: str) -> str:
    """A number of things, such as "2 tests"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def dollars(amount: float) -> str:
    """An amount to the cent, or to a hundredth of a cent if it has a fraction of one."""
    exact = f"{amount:.4f}".rstrip("0")
    return "$" + max(exact, f"{amount:.2f}", key=len)


def header(report: Report) -> Iterator[str]:
    """What is judged, how, and what it may cost."""
    compared = f", and compared with {report.other}" if report.other else ""
    by = ", by HTTP/2" if report.http2 else ""
    yield f"target    {report.target}, level {report.level}{by}{compared}"
    money = report.money
    limit = "any number of requests" if money.limit is None else count(money.limit, "request")
    yield (
        f"budget    {limit} at {dollars(money.price)}, {dollars(money.max_cost)} in total; "
        "what must be refused is sent first and is free"
    )
    seed = "the same each time" if report.seed is None else f"--seed {report.seed}"
    yield f"examples  {report.max_examples} per property, {seed}"


def broken(report: Report) -> Iterator[str]:
    """The broken rules, each with the shortest requests that show it."""
    for rule in report.broken():
        found = report.findings(rule.id)
        yield from ("", *rule_lines(found[0][0][1].rule))
        for same in found[:SHOWN_FAILURES]:
            test, finding = same[0]
            yield from ("", *map(_cut_off, finding_lines(finding)), f"  test:     {test.id}")
            if len(same) > 1:
                yield f"  {count(len(same) - 1, 'more test')} found the same."
        if len(found) > SHOWN_FAILURES:
            more = count(len(found) - SHOWN_FAILURES, "more way")
            yield f"  It is broken in {more}: see --report or --html."


def _cut_off(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    return f"{line[: MAX_LINE // 60]}... ({len(line)} characters: see --report for all of them)"


def table(report: Report) -> Iterator[str]:
    """The rules with their verdicts."""
    tested = [rule for rule in report.rules if rule.verdict in SIGNS]
    yield f"{'rule':8}{'verdict':14}{'tests':>6}{'requests':>10}  source"
    for rule in tested:
        yield (
            f"{rule.id:8}{SIGNS[rule.verdict]:14}{len(rule.tests):>6}"
            f"{rule.requests:>10}  {format_support(rule)}"
        )
    for verdict in (RuleVerdict.NOT_TESTED, RuleVerdict.NOT_OFFERED):
        others = [rule.id for rule in report.rules if rule.verdict is verdict]
        if others:
            yield from textwrap.wrap(f"{verdict}: {', '.join(others)}", WIDTH)


def summary(report: Report) -> Iterator[str]:
    """What was sent, what it cost, how long responses took, and what was left out."""
    money = report.money
    requests = sum(test.requests for test in report.tests)
    yield (
        f"{count(requests, 'request')} in {report.seconds:.0f} s, "
        f"{money.billed} billable: {dollars(money.spent)} of {dollars(money.max_cost)}"
    )
    if money.lost:
        yield f"{count(money.lost, 'request')} of these may have got an image that was lost"
    yield from undecided(report)
    if report.reason:
        yield f"stopped early: {report.reason}"
    for kind, times in report.times.items():
        if times.count:
            yield f"response time, {kind:8} {_format_times(times)}"
    yield from left_out(report)


def undecided(report: Report) -> Iterator[str]:
    """Why tests ended without a verdict, the most common reason first, and at which requests."""
    groups = report.undecided()
    for tests in groups[:SHOWN_REASONS]:
        yield f"not decided: {count(len(tests), 'test')}: {tests[0].sentence}"
        shown = [test for test in tests if test.undecided][:SHOWN_FAILURES]
        for test in shown:
            yield from (*map(_cut_off, undecided_lines(test)), f"  test:     {test.id}")
        if shown and len(tests) > len(shown):
            more = count(len(tests) - len(shown), "more test")
            yield f"  {more} ended the same: see --report or --html"
    others = sum(map(len, groups[SHOWN_REASONS:]))
    if others:
        yield f"not decided: {count(others, 'more test')}: see --report or --html"


def left_out(report: Report) -> Iterator[str]:
    """The tests that were not run, or the exchanges that were not judged, and why."""
    for reason, number in report.left_out.items():
        yield f"left out: {count(number, 'exchange' if report.recorded else 'test')} {reason}"
    for reason, number in report.not_offered().items():
        yield f"not offered: {count(number, 'test')}: {reason}"


def _format_times(times: Times) -> str:
    assert times.median is not None, "there is at least one"
    assert times.p95 is not None, "there is at least one"
    return f"median {1000 * times.median:.0f} ms, 95% within {1000 * times.p95:.0f} ms"


def sentence(report: Report) -> str:
    """The verdict as a sentence."""
    rules = [rule.id for rule in report.broken()]
    why = next((test.sentence for test in report.tests if test.outcome == report.verdict), "")
    conforming = sum(rule.verdict is RuleVerdict.CONFORMS for rule in report.rules)
    sentences = {
        "conforms": f"Conforms to {count(conforming, 'rule')} at the level {report.level}.",
        "does not conform": _what_is_wrong(rules),
        "the tests themselves failed": "The tests themselves failed: "
        "this is a bug in them, not in the target.",
        "unreachable": f"Unreachable: {report.reason or why}.",
        "cannot be judged": f"Cannot be judged: {report.reason}.",
        "budget reached": f"The budget was reached before everything was tested: {why}.",
        "inconclusive": f"Inconclusive: {report.reason or why or 'nothing was tested'}.",
        "interrupted": "Interrupted before everything was tested.",
        "planned": "Nothing was sent.",
    }
    return sentences[report.verdict]


def headline(report: Report) -> str:
    """The verdict in a few words."""
    only_differ = [rule.id for rule in report.broken()] == [DIFF.id]
    failed = report.verdict == HEADLINES[Outcome.FAILED]
    return TWO_DIFFER if only_differ and failed else report.verdict.capitalize()


def _what_is_wrong(rules: list[str]) -> str:
    """That two targets differ says of neither that it is wrong."""
    broken = [rule for rule in rules if rule != DIFF.id]
    are = "is" if len(broken) == 1 else "are"
    wrong = [f"Does not conform: {', '.join(broken)} {are} broken."] if broken else []
    return " ".join([*wrong, *([f"{TWO_DIFFER}."] if DIFF.id in rules else [])])


def plan_lines(report: Report, requests: dict[str, list[str]]) -> Iterator[str]:
    """What would be sent by each test, and what that can cost; `requests` are by test id."""
    money = report.money
    yield f"{'free':>6}{'paid':>8}{'cost':>9}  test"
    for title, group in groupby(report.tests, lambda test: test.says):
        tests = list(group)
        paid = sum(test.billable for test in tests)
        free = sum(test.requests for test in tests) - paid
        yield f"{free:6}{paid:8}{dollars(paid * money.price):>9}  {title}"
        for test in tests:
            yield from (f"{'':25}{each}" for each in requests.get(test.id, ()))
    yield ""
    yield from left_out(report)
    paid = sum(test.billable for test in report.tests)
    free = sum(test.requests for test in report.tests) - paid
    most = worst_case(report)
    yield f"{count(free, 'request')} that must be refused, and cost nothing"
    yield f"{count(paid, 'billable request')}: {dollars(paid * money.price)} if the target conforms"
    yield (
        f"at most {dollars(most * money.price)}, whatever is found: "
        f"{count(most, 'billable request')} with those that make failures smaller"
    )
    yield f"images that are lost on the way cost as much, up to {dollars(money.max_cost)} in total"
    if money.limit is not None and paid > money.limit:
        limit = f"--max-cost {dollars(money.max_cost)}"
        yield f"The budget is reached before everything is tested: {limit}"


def worst_case(report: Report) -> int:
    """The most requests that may be billed, whatever the target does.

    A test that finds a failure sends more to make it smaller, and one that gets an image instead
    of a refusal has paid for that, too. The budget limits them all.
    """
    worst = sum(test.billable + 1 + SHRINK_BILLABLE for test in report.tests)
    return worst if report.money.limit is None else min(worst, report.money.limit)
