"""What pytest's own terminal prints about a session in addition."""

import pytest

from contract_tests.report import console_report
from contract_tests.session import Session


class Summary:
    """Adds to the header and the end of pytest's output."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_report_header(self) -> list[str]:
        return list(console_report.header(self._session.report()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        report = self._session.report()
        terminalreporter.section("contract of the Upscaling API")
        lines: list[str] = []
        if self._session.options.plan:
            lines = [*console_report.plan_lines(report, {}), ""]
        elif report.tests:
            lines = [*console_report.table(report), "", *console_report.summary(report), ""]
        for line in (*lines, console_report.sentence(report)):
            terminalreporter.write_line(line)
