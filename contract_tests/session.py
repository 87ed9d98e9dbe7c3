"""A pytest session in which the contract tests judge a target, for the plugin and the command.

It selects and orders the tests, counts what each one sends, turns exceptions into outcomes, and at
the end has the report and the exit status.
"""

import json
import os
import platform
import secrets
import sys
import time
from collections import Counter
from collections.abc import Generator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

from contract_tests import selection
from contract_tests.failures import TimeUp, Undecided, Unreachable
from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import Run
from contract_tests.options import USAGE_ERROR, Options
from contract_tests.oracle.oracle import Level
from contract_tests.report import html_report, outcomes, report
from contract_tests.report.report import Money, Outcome, Report, TestResult, Times
from contract_tests.target import preflight
from contract_tests.target.budget import Budget
from contract_tests.target.client import ClientOptions, Target
from contract_tests.target.run_clock import RunClock
from contract_tests.text import printable

SESSION: "Final[pytest.StashKey[Session]]" = pytest.StashKey()
"""The key of the session in pytest's configuration."""
PROFILE: Final = "contract"
LEVELS: Final = {"strict": Level.STRICT, "documented": Level.DOCUMENTED}
MIN_SECRET: Final = 4
"""A shorter token is no secret, and occurs in texts by coincidence."""
MAX_INCONCLUSIVE: Final = 5
"""After this many inconclusive tests in a row nothing more is sent."""


class Session:
    """The hooks that pytest calls, and the results so far: `tests`, in the order they ended."""

    def __init__(self, options: Options, clock: RunClock | None = None) -> None:
        self.options = options
        self.derandomized = options.seed is None and bool(os.environ.get("CI"))
        self.seed = secrets.randbelow(2**32) if options.seed is None else options.seed
        self.clock = clock or RunClock(options.max_time)
        self.run = _create_run(options, self.clock)
        self.tests: list[TestResult] = []
        self.left_out: Counter[str] = Counter()
        self.ended = ""
        """What ended it before anything was tested: a key of report.STATUSES."""
        self.reason = ""
        """Why it ended before everything was tested."""
        self.refused = ""
        """Why it did not start."""
        self.started = datetime.now(UTC)
        self._began_s = time.perf_counter()
        self._inconclusive_in_a_row = 0

    # Hooks

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SESSION] = self
        for line in selection.MARKERS:
            config.addinivalue_line("markers", line)
        settings.register_profile(
            PROFILE,
            max_examples=self.options.max_examples,
            derandomize=self.derandomized,
            deadline=None,  # how long a response takes is up to the target
            database=None,  # what a run sends depends on its seed alone, not on runs before it
            print_blob=False,
            report_multiple_bugs=True,
            # One of them is too_slow, and here the speed depends on the target.
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile(PROFILE)

    def pytest_unconfigure(self) -> None:
        for target in self._targets():
            target.close()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # pytest collects the parents of a package, too, which are none of our business.
        if report.failed and not report.nodeid.startswith(".."):
            text = report.longreprtext
            self.tests.append(
                TestResult(report.nodeid, "can be read", (), Outcome.ERROR, text, 0, 0, 0.0)
            )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what is not to be judged, and order the rest."""
        ours = [item for item in items if selection.is_contract_test(item)]
        reasons = [selection.exclusion_reason(item, self.options) for item in ours]
        self.left_out.update(reason for reason in reasons if reason)
        kept = [item for item, reason in zip(ours, reasons, strict=True) if not reason]
        if ours and not kept:
            self.refused = f"no test is left: all are {' or '.join(self.left_out)}"
            pytest.exit(self.refused, returncode=USAGE_ERROR)
        for item in kept:
            self._prepare(item)
        items[:] = [item for item in items if not selection.is_contract_test(item)]
        items += sorted(kept, key=selection.position)  # stable: otherwise as they are written
        config.hook.pytest_deselected(items=[each for each in ours if each not in kept])

    def _prepare(self, item: pytest.Item) -> None:
        item.user_properties += [("rule", rule) for rule in selection.rules(item)]
        function = getattr(item, "function", None)
        # The seed is printed, so that --seed can repeat the requests.
        if function and getattr(function, "is_hypothesis_test", False) and not self.derandomized:
            hypothesis.seed(self.seed)(function)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """First see whether the target responds as the API does, and accepts the token."""
        if self.options.silent or session.config.option.collectonly:
            return (yield)
        self.clock.start()
        with self.clock.catching_interrupts(), self.clock.raising():
            try:
                for target in self._targets():
                    self._require_usable(target)
            except Undecided as error:
                self.ended, self.reason = error.outcome, self.clean(error.sentence)
                pytest.exit(self.reason, returncode=report.STATUSES[error.outcome])
            return (yield)

    def _require_usable(self, target: Target) -> None:
        """Raise Undecided if there is nothing to judge; end pytest if the token is refused."""
        target.wait()
        if not preflight.accepts_token(target):
            self.refused = f"{target.base_url} does not accept the token"
            pytest.exit(self.refused, returncode=USAGE_ERROR)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if selection.is_contract_test(item):
            self.run.start_test(selection.name(item))
            self.clock.check()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn what a test raised into its outcome."""
        raised = call.excinfo.value if call.excinfo else None
        pytest_report = yield
        if selection.is_contract_test(item) and (call.when == "call" or raised):
            result = self._result(item, raised, call.duration)
            self.tests.append(result)
            outcomes.format_report(pytest_report, result, self.clean)
            self._stop_if_hopeless(item.session, result, raised)
        return pytest_report

    def _result(
        self, item: pytest.Item, raised: BaseException | None, seconds: float
    ) -> TestResult:
        outcome, sentence = outcomes.outcome(raised, self.run)
        counters = self.run.counters
        return TestResult(
            selection.name(item),
            selection.title(item),
            selection.rules(item),
            Outcome.PLANNED if self.options.silent else outcome,
            self.clean(sentence),
            len(counters.planned) or counters.requests,
            counters.billable,
            round(seconds, 4),
            outcomes.report_findings(self.run, self.clean),
            outcomes.report_undecided(outcome, self.run, self.clean),
        )

    def _stop_if_hopeless(
        self, session: pytest.Session, result: TestResult, raised: BaseException | None
    ) -> None:
        inconclusive = result.outcome is Outcome.INCONCLUSIVE
        self._inconclusive_in_a_row = self._inconclusive_in_a_row + 1 if inconclusive else 0
        if isinstance(raised, Unreachable | TimeUp):
            self.reason = self.clean(raised.sentence)
        elif self._inconclusive_in_a_row == MAX_INCONCLUSIVE:
            self.reason = (
                f"{MAX_INCONCLUSIVE} tests in a row were inconclusive; "
                f"of the last one {result.sentence}"
            )
        if self.reason:
            session.shouldstop = self.reason

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # pytest.exit raises a subclass, which is no interruption.
        if type(excinfo.value) is KeyboardInterrupt:
            self.clock.interrupted = True
            self.reason = "it was interrupted"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit status of the outcomes, unless tests of others failed, too."""
        if session.config.option.collectonly or self.refused:
            return
        self.reason = self.reason or self.clean(str(session.shouldfail or session.shouldstop or ""))
        report = self.report()
        ours = sum(test.outcome in (Outcome.FAILED, Outcome.ERROR) for test in self.tests)
        session.exitstatus = 1 if session.testsfailed > ours else report.status
        if self.options.silent:
            return
        for plugin in session.config.pluginmanager.get_plugins():
            # That of --junitxml, whose fixture record_testsuite_property needs a test.
            if self.reason and hasattr(plugin, "add_global_property"):
                plugin.add_global_property("stopped", self.reason)
        self.write(report)

    # For those who print it

    def write(self, report: Report) -> None:
        """Write the reports that the options ask for."""
        try:
            if self.options.report:
                report.write(self.options.report)
            if self.options.html:
                html_report.write(report, self.options.html)
        except OSError as error:  # too late to fail: the verdict is still worth knowing
            sys.stderr.write(f"the report could not be written: {error}\n")

    def clean(self, text: str) -> str:
        """The text without the tokens, which a target may have repeated, perhaps as JSON.

        What would steer a terminal is escaped: a target may have sent that, too.
        """
        for token in {self.options.token, self.options.diff_token}:
            if len(token) >= MIN_SECRET:
                text = text.replace(token, "$TOKEN").replace(json.dumps(token)[1:-1], "$TOKEN")
        return printable(text, "\n")

    def report(self) -> Report:
        """The report on what has been tested so far."""
        options, budget = self.options, self.run.budget
        decisive = self._decisive_outcome()
        counters = self.run.counters_by_test.values()
        return Report(
            target=options.url,
            other=options.diff,
            level=options.level,
            http2=options.http2,
            seed=None if self.derandomized else self.seed,
            max_examples=options.max_examples,
            versions=versions(),
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - self._began_s, 3),
            verdict=report.HEADLINES[decisive],
            status=report.STATUSES[decisive],
            money=Money(
                float(budget.price),
                float(budget.max_cost),
                budget.limit,
                budget.billed,
                float(budget.spent),
                budget.lost,
            ),
            times={
                kind: Times.of(seconds for each in counters for seconds in each.seconds[kind])
                for kind in ("refused", "made")
            },
            reason=self.reason,
            left_out=dict(self.left_out),
            rules=report.judge_rules(self.tests, options.skipped, diff=options.diff is not None),
            tests=tuple(self.tests),
        )

    def _decisive_outcome(self) -> str:
        """The outcome that decides on the verdict: the first of STATUSES that occurred."""
        if self.clock.interrupted:
            return "interrupted"
        occurred = {test.outcome for test in self.tests} | {self.ended}
        return next((each for each in report.STATUSES if each in occurred), Outcome.INCONCLUSIVE)

    def _targets(self) -> list[Target]:
        return [target for target in (self.run.target, self.run.other) if target]


def _create_run(options: Options, clock: RunClock) -> Run:
    client_options = ClientOptions(
        timeout_s=options.timeout,
        wait_s=options.wait,
        per_minute=options.rate,
        http2=options.http2,
    )
    other = (
        Target(options.diff, options.diff_token, client_options, clock) if options.diff else None
    )
    return Run(
        Target(options.url, options.token, client_options, clock),
        Policy(LEVELS[options.level], options.default_encoding, options.skipped),
        Budget(options.max_cost, options.price, options.max_requests),
        other,
        planning=options.silent,
        concurrency=options.concurrency,
        models=options.models,
        image_url=options.image,
    )


def versions() -> dict[str, str]:
    """The versions on which the results may depend, besides the target's."""
    names = ("octo-upscaler", "hypothesis", "httpx2", "pytest", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
