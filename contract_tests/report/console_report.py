"""A report in plain text, for a terminal."""

import textwrap
from collections.abc import Iterator
from itertools import groupby

from contract_tests.judge.run import SHRINK_BILLABLE
from contract_tests.report.outcomes import finding_in_words, rule_in_words, support
from contract_tests.report.report import Report, RuleVerdict, Times

WIDTH = 96
SHOWN_FINDINGS = 3
"""Of a rule: the next ones are mostly the same again, in other tests."""
LONG_CURL = 6000
"""A longer command is not printed: it would fill the screen with a picture's digits."""
SIGNS = {
    RuleVerdict.CONFORMS: "ok",
    RuleVerdict.BROKEN: "BROKEN",
    RuleVerdict.INCONCLUSIVE: "inconclusive",
}


def count(number: int, thing: str) -> str:
    """A number of things, in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def dollars(amount: float) -> str:
    """An amount, to the cent unless a part of one counts."""
    exact = f"{amount:.4f}".rstrip("0")
    return "$" + max(exact, f"{amount:.2f}", key=len)


def header(report: Report) -> Iterator[str]:
    """What is judged, how, and what it may cost."""
    compared = f", and compared with {report.other}" if report.other else ""
    yield f"target    {report.target}, level {report.level}{compared}"
    money = report.money
    limit = "any number of requests" if money.limit is None else count(money.limit, "request")
    yield (
        f"budget    {limit} at {dollars(money.price)}, {dollars(money.max_cost)} in all; "
        "what must be refused comes first and is free"
    )
    seed = "the same each time" if report.seed is None else f"--seed {report.seed}"
    yield f"examples  {report.max_examples} of each property, {seed}"


def broken(report: Report) -> Iterator[str]:
    """What is broken, rule by rule, with the shortest requests that show it."""
    for rule in report.broken():
        found = report.findings(rule.id)
        yield from ("", *rule_in_words(found[0][0][1].rule))
        for alike in found[:SHOWN_FINDINGS]:
            test, first = alike[0]
            yield from ("", *map(_short, finding_in_words(first)), f"  test:    {test.id}")
            if len(alike) > 1:
                yield f"  The same comes of {count(len(alike) - 1, 'more test')}."
        if len(found) > SHOWN_FINDINGS:
            more = count(len(found) - SHOWN_FINDINGS, "more way")
            yield f"  It is broken in {more}: --report and --html have all."


def _short(line: str) -> str:
    if len(line) <= LONG_CURL:
        return line
    return f"{line[: LONG_CURL // 60]}... ({len(line)} characters: --report has all of them)"


def table(report: Report) -> Iterator[str]:
    """The rules and what is said of each."""
    tested = [rule for rule in report.rules if rule.verdict is not RuleVerdict.NOT_TESTED]
    others = [rule.id for rule in report.rules if rule.verdict is RuleVerdict.NOT_TESTED]
    yield f"{'rule':8}{'verdict':14}{'tests':>6}{'requests':>10}  source"
    for rule in tested:
        yield (
            f"{rule.id:8}{SIGNS[rule.verdict]:14}{len(rule.tests):>6}"
            f"{rule.requests:>10}  {support(rule)}"
        )
    if others:
        yield from textwrap.wrap(f"not tested: {', '.join(others)}", WIDTH)


def summary(report: Report) -> Iterator[str]:
    """What it took, and what was left out."""
    money = report.money
    requests = sum(test.requests for test in report.tests)
    yield (
        f"{count(requests, 'request')} in {report.seconds:.0f} s, "
        f"{money.billed} of them to pay for: {dollars(money.spent)} of {dollars(money.max_cost)}"
    )
    for kind, times in report.times.items():
        if times.count:
            yield f"time to the answer, {kind:8} {in_milliseconds(times)}"
    yield from left_out(report)


def left_out(report: Report) -> Iterator[str]:
    """What was not run, and why."""
    for reason, number in report.left_out.items():
        yield f"left out: {count(number, 'test')} {reason}"


def in_milliseconds(times: Times) -> str:
    """What there is to say of some times."""
    assert times.median is not None, "there are some"
    assert times.p95 is not None, "there are some"
    return f"median {1000 * times.median:.0f} ms, 95% within {1000 * times.p95:.0f} ms"


def sentence(report: Report) -> str:
    """The verdict."""
    rules = [rule.id for rule in report.broken()]
    why = next((test.sentence for test in report.tests if test.outcome == report.verdict), "")
    judged = sum(rule.verdict is RuleVerdict.CONFORMS for rule in report.rules)
    told = {
        "conforms": f"Conforms to {count(judged, 'rule')}, at the level {report.level}.",
        "does not conform": f"Does not conform: {', '.join(rules)} "
        f"{'is' if len(rules) == 1 else 'are'} broken.",
        "the tests themselves failed": "The tests themselves failed: "
        "this is a fault of theirs, not of the target.",
        "unreachable": f"Unreachable: {report.reason or why}.",
        "budget reached": f"The budget was reached before all was tested: {why}.",
        "inconclusive": f"Inconclusive: {report.reason or why or 'nothing was tested'}.",
        "interrupted": "Interrupted before all was tested.",
        "planned": "Nothing was sent.",
    }
    return told[report.verdict]


def plan(report: Report, requests: dict[str, list[str]]) -> Iterator[str]:
    """What would be sent, by test, and what that can cost; `requests` are by the tests' ids."""
    price = report.money.price
    yield f"{'free':>6}{'to pay':>8}{'cost':>9}  test"
    for says, cases in groupby(report.tests, lambda test: test.says):
        tests = list(cases)
        paid = sum(test.billable for test in tests)
        free = sum(test.requests for test in tests) - paid
        yield f"{free:6}{paid:8}{dollars(paid * price):>9}  {says}"
        for test in tests:
            yield from (f"{'':25}{each}" for each in requests.get(test.id, ()))
    yield ""
    yield from left_out(report)
    yield from _plan_costs(report)


def _plan_costs(report: Report) -> Iterator[str]:
    money = report.money
    paid = sum(test.billable for test in report.tests)
    free = sum(test.requests for test in report.tests) - paid
    most = worst_case(report)
    yield f"{count(free, 'request')} that must be refused, and cost nothing"
    yield f"{count(paid, 'request')} to pay for: {dollars(paid * money.price)} if all conforms"
    yield (
        f"at most {dollars(most * money.price)}, whatever is found: with what makes failures "
        f"smaller, {count(most, 'request')} to pay for"
    )
    if money.limit is not None and paid > money.limit:
        yield f"The budget is reached before all is tested: --max-cost {dollars(money.max_cost)}"


def worst_case(report: Report) -> int:
    """How many requests may have to be paid for, whatever the target does.

    A test that finds something asks for more, to make it smaller; one that gets a picture instead
    of a refusal has paid for that, too. The budget ends it all.
    """
    worst = sum(test.billable + 1 + SHRINK_BILLABLE for test in report.tests)
    return worst if report.money.limit is None else min(worst, report.money.limit)
