"""The report as an HTML page: one file that loads nothing.

What the target responded may be hostile. Jinja2 escapes every value that the template inserts, and
a content security policy allows only the page's own style and script.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import jinja2

from contract_tests.report import console_report, svg
from contract_tests.report.report import Outcome, Report, RuleVerdict, TestResult

FOLDER: Final = Path(__file__).parent
RULE_ID: Final = re.compile(r"([A-Z]{3}-[0-9]+)")
TONES: Final = {0: "good", 1: "bad"}
"""By the exit status; all other statuses leave the verdict open."""
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
    Outcome.NOT_OFFERED: "\u2013",
}
"""Shown before a word, so that nobody depends on its colour."""
MOST_SEVERE_FIRST: Final = (
    Outcome.FAILED,
    Outcome.ERROR,
    Outcome.UNREACHABLE,
    Outcome.BUDGET,
    Outcome.INCONCLUSIVE,
    Outcome.PASSED,
    Outcome.PLANNED,
    Outcome.NOTHING,
    Outcome.NOT_OFFERED,
)
KINDS: Final = {"refused": "Refusals", "made": "Images"}
SHOWN_FAILURES: Final = 20
"""At most this many ways in which one rule is broken are shown."""
SHOWN_TESTS: Final = 5
"""At most this many of the tests that found one are named."""


@dataclass(frozen=True)
class TestRow:
    """One test with all of its cases; `notes` has a line for each case that did not pass."""

    __test__ = False

    title: str
    outcome: Outcome
    cases: int
    requests: int
    billable: int
    seconds: float
    notes: tuple[str, ...]


def write(report: Report, path: Path) -> None:
    """Write the page; raises OSError."""
    path.write_text(render(report), encoding="utf-8", errors="xmlcharrefreplace")


def render(report: Report) -> str:
    """The page, as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,  # by default jinja2 escapes nothing
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dollars": console_report.dollars, "duration": duration}
    style, script = (
        (FOLDER / f"html_report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    tone = TONES.get(report.status, "open")
    return environment.get_template("html_report.html").render(
        report=report,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        headline=console_report.headline(report),
        tone=tone,
        mark=MARKS[tone],
        signs=SIGNS,
        sentence=RULE_ID.split(console_report.sentence(report)),  # every other part is an id
        bar=svg.bar(report),
        requests=sum(test.requests for test in report.tests),
        count=console_report.count,
        shown_failures=SHOWN_FAILURES,
        shown_tests=SHOWN_TESTS,
        errors=[test for test in report.tests if test.outcome is Outcome.ERROR],
        undecided=report.undecided(),
        times=[
            (KINDS[kind], times, svg.distribution(times))
            for kind, times in report.times.items()
            if times.count
        ],
        chart=svg,
        tests=list(_test_rows(report.tests)),
        left_out=[line.capitalize() for line in console_report.left_out(report)],
    )


def _hash(source: str) -> str:
    """The source expression by which a content security policy allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _test_rows(tests: Sequence[TestResult]) -> Iterator[TestRow]:
    for _, group in groupby(tests, lambda test: test.function):
        cases = list(group)
        outcomes = {case.outcome for case in cases}
        notes = (_note(case) for case in cases if case.outcome is not Outcome.PASSED)
        yield TestRow(
            cases[0].says,
            next(each for each in MOST_SEVERE_FIRST if each in outcomes),
            len(cases),
            sum(case.requests for case in cases),
            sum(case.billable for case in cases),
            sum(case.seconds for case in cases),
            tuple(filter(None, notes)),
        )


def _note(case: TestResult) -> str:
    """The parameters of a case, and the rules that it found broken or else why it ended."""
    parameters = case.id.partition("[")[2].removesuffix("]")
    rules = ", ".join(found.rule for found in case.findings)
    return ": ".join(filter(None, (parameters, rules or case.sentence.partition("\n")[0])))
