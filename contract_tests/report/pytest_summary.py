"""What pytest's own terminal says of a session, besides what it says of any."""

import pytest

from contract_tests import text
from contract_tests.session import Session


class Summary:
    """The header and the end of what pytest prints."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_report_header(self) -> list[str]:
        return list(text.header(self._session.report()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        report = self._session.report()
        terminalreporter.section("contract of the Upscaling API")
        lines = [*text.table(report), "", *text.summary(report), ""] if report.tests else []
        if self._session.options.plan:
            lines = [*text.plan(report, {}), ""]
        for line in (*lines, text.sentence(report)):
            terminalreporter.write_line(line)
