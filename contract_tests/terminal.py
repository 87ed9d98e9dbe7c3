"""What the command prints, in place of pytest's own terminal: a line for each test, and a summary.

The cases of one test stand together on one line.
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
}
"""What a line begins with, by the worst outcome of its cases."""
CLEARED: Final = "\r\x1b[2K"


class Printer:
    """Writes lines, with colours where a person sees them."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.live and not os.environ.get("NO_COLOR")

    def line(self, text: str = "") -> None:
        # A terminal may lack the letters of what a target answers.
        encoding = self.out.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._write(f"{CLEARED if self.live else ''}{text}\n")

    def _write(self, text: str) -> None:
        try:
            self.out.write(text)
            self.out.flush()
        except BrokenPipeError:  # nobody reads on, as behind `| head`; the reports are made anyway
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def now(self, text: str) -> None:
        """Say for a while what is going on, if somebody watches."""
        if self.live:
            self._write(f"{CLEARED}{text[:78]}")

    def coloured_text(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text


class Quiet:
    """Takes pytest's own terminal away."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")


class Terminal(Quiet):
    """Prints a run while it goes on."""

    def __init__(self, session: Session, out: TextIO) -> None:
        self._session = session
        self._printer = Printer(out)
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
        self._printer.now(f"{self._number}/{self._all} {nodeid}")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and self._session.tests:
            self._heard(self._session.tests[-1])
        elif self._session.tests and self._session.tests[-1].outcome is Outcome.ERROR:
            self._errors.append(report.longreprtext)

    def _heard(self, result: TestResult) -> None:
        if self._cases and self._cases[0].function != result.function:
            self._tell_cases()
        self._cases.append(result)

    def _tell_cases(self) -> None:
        """Print the line of a test, now that all of its cases are known."""
        cases, self._cases = self._cases, []
        if not cases:
            return
        outcomes = {case.outcome for case in cases}
        word, colour = next(SIGNS[each] for each in SIGNS if each in outcomes)
        sign = self._printer.coloured_text(f"{word:13}", colour)
        requests = sum(case.requests for case in cases)
        broken = dict.fromkeys(found.rule for case in cases for found in case.findings)
        rules = " ".join(broken or cases[0].rules)
        self._printer.line(f"{sign}{cases[0].says:74}{requests:6} {rules}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._tell_cases()
        if self._session.refused:
            return
        report = self._session.report()
        for line in self._end(report):
            self._printer.line(line)
        colour = {0: GREEN, 1: RED}.get(report.status, YELLOW)
        self._printer.line(
            self._printer.coloured_text(console_report.sentence(report), f"{BOLD};{colour}")
        )

    def _end(self, report: Report) -> Iterator[str]:
        for error in self._errors:
            yield from ("", self._session.hide(error))
        yield from console_report.broken(report)
        if report.tests:
            yield from ("", *console_report.table(report), "", *console_report.summary(report), "")


class Plan(Quiet):
    """Prints what would be sent, and what that can cost."""

    def __init__(self, session: Session, out: TextIO, *, verbose: bool) -> None:
        self._session = session
        self._printer = Printer(out)
        self._verbose = verbose

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._session.refused:
            return
        for line in console_report.plan(self._session.report(), self._requests()):
            self._printer.line(line)

    def _requests(self) -> dict[str, list[str]]:
        """What would be sent by each test, if that is wanted."""
        counters_by_test = self._session.run.counters_by_test if self._verbose else {}
        return {
            name: [repr(each) for each in counters.planned]
            for name, counters in counters_by_test.items()
        }


class Listing(Quiet):
    """Prints the rules, and the tests of each."""

    def __init__(self, session: Session, out: TextIO) -> None:
        self._session = session
        self._printer = Printer(out)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for rule in RULES.values():
            covering = [item for item in session.items if rule.id in selection.rules(item)]
            self._printer.line(f"{rule.id:8}{rule.sentence}")
            for says, items in groupby(covering, selection.title):
                cost = "may cost money" if any(map(selection.is_billable, items)) else "free"
                self._printer.line(f"{'':8}- {says} ({cost})")
        for line in console_report.left_out(self._session.report()):
            self._printer.line(line)


def printing(session: Session, *, verbose: bool) -> Quiet:
    """What prints a session on the standard output."""
    if session.options.list:
        return Listing(session, sys.stdout)
    if session.options.plan:
        return Plan(session, sys.stdout, verbose=verbose)
    return Terminal(session, sys.stdout)
