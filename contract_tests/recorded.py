"""Judges recorded traffic by the rules, and sends nothing: `upscaler-contract --har FILE`."""

import sys
from dataclasses import replace
from typing import Final

from contract_tests.failures import Failure, Undecided
from contract_tests.judge.expectations import SUCCESS, expect_response
from contract_tests.judge.har import Exchange, InvalidHar, read_har
from contract_tests.options import NO_TARGET, USAGE_ERROR, Options
from contract_tests.oracle.rules import RULES
from contract_tests.report import console_report, outcomes
from contract_tests.report.report import Outcome, Report, TestResult
from contract_tests.session import Session
from contract_tests.terminal import Printer

SAYS: Final = "what was recorded is allowed"
OF_IMAGES: Final = ("REQ-1", "REQ-2", "REQ-16", "RES-1", "RES-2", "RES-3")
"""The rules that every image in a response is judged by, as by the suite's own test of it."""


def judge(options: Options) -> int:
    """Judge the file `options.har`, print and write the reports; return the exit status."""
    assert options.har is not None, "only called with a file"
    given = None if options.url == NO_TARGET else options.url
    try:
        recording = read_har(options.har, given)
    except (InvalidHar, OSError) as error:
        why = str(error)
        if isinstance(error, OSError) and error.strerror:
            why = f"{options.har} cannot be read: {error.strerror}"
        sys.stderr.write(f"upscaler-contract: {why}\n")
        return USAGE_ERROR
    session = Session(options)
    session.left_out.update(recording.left_out)
    for exchange in recording.exchanges:
        session.tests.append(_result(session, exchange))
    report = replace(session.report(), target=given or options.har.name, recorded=True)
    _print(report, Printer(sys.stdout))
    session.write(report)
    return report.status


def _result(session: Session, exchange: Exchange) -> TestResult:
    """The result for one exchange, as of a test of its own."""
    run, name = session.run, f"recorded[{exchange.number}]"
    run.start_test(name)
    run.target.base_url = exchange.base_url  # for the command that repeats the request
    raised: Failure | Undecided | None = None
    try:
        run.check_recorded(exchange.request, exchange.response)
    except (Failure, Undecided) as error:
        raised = error
    outcome, sentence = outcomes.outcome(raised, run)
    return TestResult(
        name,
        SAYS,
        _covered(session, exchange),
        outcome,
        session.clean(sentence),
        1,
        0,
        round(exchange.response.seconds, 4),
        outcomes.report_findings(run, session.clean),
        outcomes.report_undecided(outcome, run, session.clean),
    )


def _covered(session: Session, exchange: Exchange) -> tuple[str, ...]:
    """The rules that an exchange is an example of, in the order of the rules."""
    expected = expect_response(exchange.request, session.run.policy)
    covered = {*expected.rules, "RES-6"}
    if exchange.response.status == 422:
        covered.add("RES-4")
    elif exchange.response.status not in SUCCESS:
        covered.add("RES-7")
    elif expected.asynchronous:
        covered.add("ASY-1")
    elif expected.image:
        covered.update(OF_IMAGES)
    return tuple(rule for rule in RULES if rule in covered)


def _print(report: Report, printer: Printer) -> None:
    failed = sum(test.outcome is Outcome.FAILED for test in report.tests)
    printer.line(
        f"recorded  {console_report.count(len(report.tests), 'exchange')} that can be judged, "
        f"{failed} of them against a rule, level {report.level}"
    )
    for line in console_report.broken(report):
        printer.line(line)
    lines = [*console_report.table(report), ""] if report.tests else []
    lines += console_report.undecided(report)
    for line in ("", *lines, *console_report.left_out(report), console_report.sentence(report)):
        printer.line(line)
