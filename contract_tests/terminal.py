"""What the command prints, in place of pytest's own terminal: a line for each test, and a summary.

All cases of a test share its line.
"""

import os
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Final, TextIO

import pytest

from contract_tests import selection
from contract_tests.oracle.rules import RULES
from contract_tests.report import console_report
from contract_tests.report.report import Outcome, Report, TestResult
from contract_tests.session import Session

RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"
SIGNS: Final = {
    Outcome.FAILED: ("BROKEN", RED),
    Outcome.ERROR: ("ERROR", RED),
    Outcome.UNREACHABLE: ("unreachable", YELLOW),
    Outcome.BUDGET: ("budget", YELLOW),
    Outcome.INCONCLUSIVE: ("inconclusive", YELLOW),
    Outcome.PASSED: ("ok", GREEN),
    Outcome.PLANNED: ("planned", GREEN),
    Outcome.NOTHING: ("left out", YELLOW),
    Outcome.NOT_OFFERED: ("not offered", YELLOW),
}
"""The start of a test's line, by the worst outcome of its cases."""
CLEAR_LINE: Final = "\r\x1b[2K"


class Printer:
    """Writes lines, with colours and a status line if `out` is a terminal."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.live and not os.environ.get("NO_COLOR")

    def line(self, text: str = "") -> None:
        # Text of the target may have characters that the terminal's encoding lacks.
        encoding = self.out.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._write(f"{CLEAR_LINE if self.live else ''}{text}\n")

    def status(self, text: str) -> None:
        """Show what is going on until the next line is printed."""
        if self.live:
            self._write(f"{CLEAR_LINE}{text[:78]}")

    def colour(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text

    def _write(self, text: str) -> None:
        try:
            self.out.write(text)
            self.out.flush()
        except BrokenPipeError:  # as behind `| head`; the reports are written all the same
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


class Reporter:
    """Replaces pytest's own terminal."""

    def __init__(self, session: Session, out: TextIO) -> None:
        self._session = session
        self._printer = Printer(out)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")


class RunReporter(Reporter):
    """Prints a run while it goes on."""

    def __init__(self, session: Session, out: TextIO) -> None:
        super().__init__(session, out)
        self._cases: list[TestResult] = []
        self._errors: list[str] = []
        self._number = self._all = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._all = len(session.items)
        for line in console_report.header(self._session.report()):
            self._printer.line(line)
        self._printer.line()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._errors.append(report.longreprtext)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._number += 1
        self._printer.status(f"{self._number}/{self._all} {nodeid}")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and self._session.tests:
            result = self._session.tests[-1]
            if self._cases and self._cases[0].function != result.function:
                self._emit_line()
            self._cases.append(result)
        elif self._session.tests and self._session.tests[-1].outcome is Outcome.ERROR:
            self._errors.append(report.longreprtext)

    def _emit_line(self) -> None:
        """Print the line of a test once all of its cases are known."""
        cases, self._cases = self._cases, []
        if not cases:
            return
        outcomes = {case.outcome for case in cases}
        word, colour = next(SIGNS[each] for each in SIGNS if each in outcomes)
        sign = self._printer.colour(f"{word:13}", colour)
        requests = sum(case.requests for case in cases)
        broken = dict.fromkeys(found.rule for case in cases for found in case.findings)
        rules = " ".join(broken or cases[0].rules)
        self._printer.line(f"{sign}{cases[0].says:74}{requests:6} {rules}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._emit_line()
        if self._session.refused:
            return
        report = self._session.report()
        for line in self._summary(report):
            self._printer.line(line)
        colour = {0: GREEN, 1: RED}.get(report.status, YELLOW)
        sentence = console_report.sentence(report)
        self._printer.line(self._printer.colour(sentence, f"{BOLD};{colour}"))

    def _summary(self, report: Report) -> Iterator[str]:
        for error in self._errors:
            yield from ("", self._session.clean(error))
        yield from console_report.broken(report)
        if report.tests:
            yield from ("", *console_report.table(report), "", *console_report.summary(report), "")


class PlanReporter(Reporter):
    """Prints what would be sent, and what that can cost."""

    def __init__(self, session: Session, out: TextIO, *, verbose: bool) -> None:
        super().__init__(session, out)
        self._verbose = verbose

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._session.refused:
            return
        counters = self._session.run.counters_by_test if self._verbose else {}
        requests = {test: [repr(each) for each in c.planned] for test, c in counters.items()}
        for line in console_report.plan_lines(self._session.report(), requests):
            self._printer.line(line)


class RuleLister(Reporter):
    """Prints the rules, and the tests of each."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for rule in RULES.values():
            covering = [item for item in session.items if rule.id in selection.rules(item)]
            self._printer.line(f"{rule.id:8}{rule.sentence}")
            for title, items in groupby(covering, selection.title):
                cost = "may cost money" if any(map(selection.is_billable, items)) else "free"
                self._printer.line(f"{'':8}- {title} ({cost})")
        for line in console_report.left_out(self._session.report()):
            self._printer.line(line)


def create_reporter(session: Session, *, verbose: bool) -> Reporter:
    """The reporter that a session's options ask for, on the standard output."""
    if session.options.list:
        return RuleLister(session, sys.stdout)
    if session.options.plan:
        return PlanReporter(session, sys.stdout, verbose=verbose)
    return RunReporter(session, sys.stdout)
