"""A report as a page for people: one file, which asks nobody for anything.

What a target answered is text that anybody may have written: all of it is escaped, and a policy
keeps the page from running or loading what it did not bring.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Final

from contract_tests.oracle.rules import Source
from contract_tests.report import console_report
from contract_tests.report.report import (
    Outcome,
    Report,
    ReportedFinding,
    RuleResult,
    RuleVerdict,
    TestResult,
)
from contract_tests.report.svg import bar, distribution, in_time

FOLDER: Final = Path(__file__).parent
ID: Final = re.compile(r"[A-Z]{3}-[0-9]+")
TONES: Final = {0: "good", 1: "bad"}
"""By the exit status; of the others nothing is certain."""
MARKS: Final = {"good": "\u2713", "bad": "\u2715", "open": "?"}
SIGNS: Final = {
    RuleVerdict.CONFORMS: "\u2713",
    RuleVerdict.BROKEN: "\u2715",
    RuleVerdict.INCONCLUSIVE: "?",
    RuleVerdict.NOT_TESTED: "\u2013",
    Outcome.PASSED: "\u2713",
    Outcome.FAILED: "\u2715",
    Outcome.ERROR: "!",
    Outcome.PLANNED: "\u2013",
    Outcome.NOTHING: "\u2013",
}
"""What stands before a word, so that nobody depends on its colour."""
GRAVEST: Final = (
    Outcome.FAILED,
    Outcome.ERROR,
    Outcome.UNREACHABLE,
    Outcome.BUDGET,
    Outcome.INCONCLUSIVE,
    Outcome.PASSED,
    Outcome.PLANNED,
    Outcome.NOTHING,
)
KINDS: Final = {"refused": "Refusals", "made": "Pictures"}
SHOWN: Final = 20
"""So many ways in which a rule is broken are shown."""
SHOWN_TESTS: Final = 5
"""So many of the tests that found one are named."""


def write(report: Report, path: Path) -> None:
    """Write the page; raises OSError."""
    path.write_text(page(report), encoding="utf-8", errors="xmlcharrefreplace")


def page(report: Report) -> str:
    """The page, as HTML."""
    tone = TONES.get(report.status, "open")
    style, script = _read("html_report.css"), _read("html_report.js")
    return Template(_read("html_report.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        title=escape(f"{report.verdict}: {report.target}"),
        style=style,
        script=script,
        tone=tone,
        mark=MARKS[tone],
        headline=escape(report.verdict.capitalize()),
        target=escape(report.target) + (f" and {escape(report.other)}" if report.other else ""),
        sentence=ID.sub(
            r'<span class="whole">\g<0></span>', escape(console_report.sentence(report))
        ),
        bar=bar(report),
        facts="".join(_facts(report)),
        failures=_failures(report),
        rules="\n".join(map(_rule, report.rules)),
        times=_times(report),
        tests="\n".join(_tests(report.tests)),
        left_out="".join(_left_out(report)),
        footer=escape(_footer(report)),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """What lets a policy allow exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _facts(report: Report) -> Iterator[str]:
    """What was done, and what it took."""
    money = report.money
    requests = sum(test.requests for test in report.tests)
    of = f"of {console_report.dollars(money.max_cost)}"
    seed = "the same each time" if report.seed is None else f"seed {report.seed}"
    for name, value, more in (
        ("Level", report.level, "what is asked of it"),
        ("Started", report.started.replace("T", " ").replace("+00:00", ""), "UTC"),
        ("Took", in_time(report.seconds), console_report.count(len(report.tests), "test")),
        ("Requests", str(requests), f"{money.billed} to pay for"),
        (
            "Spent",
            console_report.dollars(money.spent),
            f"{of}, at {console_report.dollars(money.price)} each",
        ),
        ("Examples", f"{report.max_examples} a property", seed),
    ):  # fmt: skip
        yield f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"


def _word(name: RuleVerdict | Outcome) -> str:
    """A verdict or an outcome, with its sign and colour."""
    return (
        f'<span class="verdict is-{name.replace(" ", "-")}">'
        f'<span aria-hidden="true">{SIGNS.get(name, "?")}</span> {name}</span>'
    )


def _rule(rule: RuleResult) -> str:
    return (
        f'<tr><td><span class="id">{rule.id}</span><small>{escape(rule.sentence)}</small></td>'
        f'<td>{_word(rule.verdict)}</td><td class="wide">{_support(rule)}</td>'
        f"{_number(len(rule.tests), 'tests')}{_number(rule.requests, 'requests')}</tr>"
    )


def _number(number: int, of: str) -> str:
    return f'<td class="n" data-is="{of}">{number or "&ndash;"}</td>'


def _support(rule: RuleResult) -> str:
    """A label for each source, and what of the rule is somebody's choice."""
    labels = [f'<span class="tag">{each}</span>' for each in rule.sources if each != Source.CHOICE]
    if Source.CHOICE in rule.sources:
        told = f"choice: {rule.chosen}" if rule.chosen else "choice"
        labels.append(f'<span class="tag ours">{escape(told)}</span>')
    return "".join(labels)


def _failures(report: Report) -> str:
    """A card for each broken rule, and one for all that is wrong with the tests."""
    cards = [_card(rule, report.findings(rule.id)) for rule in report.broken()]
    cards += [_fault(test) for test in report.tests if test.outcome is Outcome.ERROR]
    return f"<section><h2>What is broken</h2>{''.join(cards)}</section>" if cards else ""


def _card(rule: RuleResult, found: list[list[tuple[TestResult, ReportedFinding]]]) -> str:
    shown = "".join(
        _finding(f"{rule.id}-{number}", alike, opened=number == 0)
        for number, alike in enumerate(found[:SHOWN])
    )
    more = len(found) - SHOWN
    rest = (
        f'<p class="more">and in {console_report.count(more, "more way")}</p>' if more > 0 else ""
    )
    return (
        f'<article class="card"><h3><span class="id">{rule.id}</span> {escape(rule.sentence)}</h3>'
        f"<p>{_support(rule)}</p>{shown}{rest}</article>"
    )


def _finding(name: str, alike: list[tuple[TestResult, ReportedFinding]], *, opened: bool) -> str:
    """What is wrong in one way: the shortest request that shows it, and all tests that saw it."""
    found = alike[0][1]
    tests = "<br>".join(escape(test.id) for test, _ in alike[:SHOWN_TESTS])
    more = f"<br>and {len(alike) - SHOWN_TESTS} more" if len(alike) > SHOWN_TESTS else ""
    return (
        f"<details{' open' if opened else ''}><summary>{escape(found.sentence)}"
        f' <span class="more">{console_report.count(len(alike), "test")}</span></summary>'
        f'<p class="part">sent</p><pre>{escape(found.request)}</pre>'
        f'<p class="part">came</p><pre>{escape(found.answer)}</pre>'
        '<div class="line"><p class="part">the same again, the token being in $TOKEN</p>'
        f'<button type="button" data-copies="{name}">copy</button></div>'
        f'<pre id="{name}">{escape(found.curl)}</pre>'
        f'<p class="part">found by</p><p class="case">{tests}{more}</p></details>'
    )


def _fault(test: TestResult) -> str:
    return (
        f'<article class="card"><h3>The test itself failed: {escape(test.says)}</h3>'
        f"<pre>{escape(test.sentence)}</pre></article>"
    )


def _times(report: Report) -> str:
    """How long the answers took, by kind."""
    figures = [
        f"<figure><figcaption><strong>{KINDS[kind]}</strong>{times.count} answers: half within "
        f"{in_time(times.median)}, 95% within {in_time(times.p95)}, the longest "
        f"{in_time(times.longest)}</figcaption>{distribution(times)}</figure>"
        for kind, times in report.times.items()
        if times.median is not None and times.p95 is not None and times.longest is not None
    ]
    if not figures:
        return ""
    return (
        "<section><h2>Time to the answer</h2>"
        f'<div class="figures">{"".join(figures)}</div></section>'
    )


def _tests(tests: Iterable[TestResult]) -> Iterator[str]:
    """A row for each test, all of its cases together, and below it those that did not pass."""
    for _, group in groupby(tests, lambda test: test.function):
        cases = list(group)
        outcome = next(each for each in GRAVEST if each in {case.outcome for case in cases})
        others = "".join(_case(case) for case in cases if case.outcome is not Outcome.PASSED)
        yield (
            f"<tr><td>{escape(cases[0].says)}{others}</td><td>{_word(outcome)}</td>"
            f"{_number(len(cases), 'cases')}"
            f"{_number(sum(case.requests for case in cases), 'requests')}"
            f"{_number(sum(case.billable for case in cases), 'to pay')}"
            f'<td class="n" data-is="">{in_time(sum(case.seconds for case in cases))}</td></tr>'
        )


def _case(case: TestResult) -> str:
    parameters = case.id.partition("[")[2].removesuffix("]")
    rules = ", ".join(found.rule for found in case.findings)
    told = ": ".join(filter(None, (parameters, rules or case.sentence.partition("\n")[0])))
    return f'<div class="case">{escape(told)}</div>' if told else ""


def _left_out(report: Report) -> Iterator[str]:
    for line in console_report.left_out(report):
        yield f'<p class="more">{escape(line.capitalize())}</p>'


def _footer(report: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in report.versions.items())
