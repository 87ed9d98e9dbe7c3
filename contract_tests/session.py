"""A session of pytest in which the contract tests judge a target, for the plugin and the command.

It chooses and orders the tests, counts what each asks, turns what they raise into outcomes, and has
the report, and the exit status, at the end.
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
from contract_tests.failures import Unreachable
from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import Run
from contract_tests.options import USAGE_ERROR, Options
from contract_tests.oracle.oracle import Level
from contract_tests.report import html_report, outcomes, report
from contract_tests.report.report import Money, Outcome, Report, TestResult, Times
from contract_tests.target.budget import Budget
from contract_tests.target.client import ClientOptions, Target

SESSION: "Final[pytest.StashKey[Session]]" = pytest.StashKey()
"""Where pytest's configuration keeps the session, if there is one."""
PROFILE: Final = "contract"
LEVELS: Final = {"strict": Level.STRICT, "documented": Level.DOCUMENTED}
SHORTEST_SECRET: Final = 4
"""A shorter token is no secret, and stands in texts by chance."""
GIVE_UP: Final = 5
"""After so many tests in a row that say nothing, the target is not asked any further."""
GAVE_UP: Final = f"{GIVE_UP} tests in a row were inconclusive"


class Session:
    """What pytest calls, and what is known so far: `tests`, in the order in which they ended."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.derandomized = options.seed is None and bool(os.environ.get("CI"))
        self.seed = secrets.randbelow(2**32) if options.seed is None else options.seed
        self.run = _run(options)
        self.tests: list[TestResult] = []
        self.left_out: Counter[str] = Counter()
        self.interrupted = False
        self.unreachable = False
        self.reason = ""
        """Why it ended before all was tested."""
        self.refused = ""
        """Why it did not even begin."""
        self.started = datetime.now(UTC)
        self._began_s = time.perf_counter()
        self._undecided = 0

    # What pytest calls

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SESSION] = self
        for line in selection.MARKERS:
            config.addinivalue_line("markers", line)
        settings.register_profile(
            PROFILE,
            max_examples=self.options.max_examples,
            derandomize=self.derandomized,
            deadline=None,
            database=None,
            print_blob=False,
            report_multiple_bugs=True,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile(PROFILE)

    def pytest_unconfigure(self) -> None:
        for target in self._targets():
            target.close()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not report.nodeid.startswith(".."):
            self.tests.append(_not_collected(report))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what is not to be judged, and put what costs nothing first."""
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
        items += sorted(kept, key=selection.is_billable)
        config.hook.pytest_deselected(items=[each for each in ours if each not in kept])

    def _prepare(self, item: pytest.Item) -> None:
        item.user_properties += [("rule", rule) for rule in selection.rules(item)]
        function = getattr(item, "function", None)
        if function and getattr(function, "is_hypothesis_test", False) and not self.derandomized:
            hypothesis.seed(self.seed)(function)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Ask whether anybody is there, and takes the token, before all else."""
        if self.options.silent or session.config.option.collectonly:
            return
        try:
            for target in self._targets():
                target.wait()
                if not target.accepts_token():
                    self.refused = f"{target.base_url} does not take the token that it was given"
                    pytest.exit(self.refused, returncode=USAGE_ERROR)
        except Unreachable as error:
            self.unreachable, self.reason = True, error.sentence
            pytest.exit(error.sentence, returncode=report.STATUSES[Outcome.UNREACHABLE])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if selection.is_contract_test(item):
            self.run.start_test(selection.name(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn what a test raised into what it says of the target."""
        raised = call.excinfo.value if call.excinfo else None
        told = yield
        if selection.is_contract_test(item) and (call.when == "call" or raised):
            result = self._result(item, raised, call.duration)
            self.tests.append(result)
            outcomes.tell(told, result)
            self._stop_if_hopeless(item.session, result)
        return told

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
            self.hide(sentence),
            len(counters.planned) or counters.requests,
            counters.billable,
            round(seconds, 4),
            outcomes.found(self.run, self.hide),
        )

    def _stop_if_hopeless(self, session: pytest.Session, result: TestResult) -> None:
        self._undecided = self._undecided + 1 if result.outcome is Outcome.INCONCLUSIVE else 0
        if result.outcome is Outcome.UNREACHABLE:
            self.reason = session.shouldstop = result.sentence
        elif self._undecided == GIVE_UP:
            self.reason = session.shouldstop = f"{GAVE_UP}, the last one since {result.sentence}"

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # pytest has an error of its own that is one, too.
        self.interrupted = type(excinfo.value) is KeyboardInterrupt

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Give the exit status that the outcomes have, unless other tests failed, too."""
        if session.config.option.collectonly or self.refused:
            return
        report = self.report()
        ours = sum(test.outcome in (Outcome.FAILED, Outcome.ERROR) for test in self.tests)
        session.exitstatus = 1 if session.testsfailed > ours else report.status
        if not self.options.silent:
            self._write(report)

    def _write(self, report: Report) -> None:
        """Write the files that were asked for; it is too late to give up if one cannot be."""
        try:
            if self.options.report:
                report.write(self.options.report)
            if self.options.html:
                html_report.write(report, self.options.html)
        except OSError as error:
            sys.stderr.write(f"the report could not be written: {error}\n")

    # What others ask

    def hide(self, text: str) -> str:
        """The text without the tokens, should a target have repeated them, be it as JSON."""
        for token in {self.options.token, self.options.diff_token}:
            if len(token) >= SHORTEST_SECRET:
                text = text.replace(token, "$TOKEN").replace(json.dumps(token)[1:-1], "$TOKEN")
        return text

    def report(self) -> Report:
        """What came of it so far."""
        options, budget = self.options, self.run.budget
        word = self._word()
        counters_by_test = self.run.counters_by_test.values()
        return Report(
            options.url,
            options.diff,
            options.level,
            None if self.derandomized else self.seed,
            options.max_examples,
            versions(),
            self.started.isoformat(timespec="seconds"),
            round(time.perf_counter() - self._began_s, 3),
            report.HEADLINES[word],
            report.STATUSES[word],
            Money(
                float(budget.price),
                float(budget.max_cost),
                budget.limit,
                budget.billed,
                float(budget.spent),
            ),
            {
                kind: Times.of(
                    each for counters in counters_by_test for each in counters.seconds[kind]
                )
                for kind in ("refused", "made")
            },
            self.reason,
            dict(self.left_out),
            report.judged(self.tests, options.skipped, differing=options.diff is not None),
            tuple(self.tests),
        )

    def _word(self) -> str:
        """The outcome that decides on the whole."""
        if self.interrupted:
            return "interrupted"
        told = {test.outcome for test in self.tests}
        told |= {Outcome.UNREACHABLE} if self.unreachable else set()
        return next((word for word in report.STATUSES if word in told), Outcome.INCONCLUSIVE)

    def _targets(self) -> list[Target]:
        return [target for target in (self.run.target, self.run.other) if target]


def _run(options: Options) -> Run:
    client_options = ClientOptions(
        timeout_s=options.timeout, wait_s=options.wait, per_minute=options.rate
    )
    return Run(
        Target(options.url, options.token, client_options),
        Policy(LEVELS[options.level], options.default_encoding, options.skipped),
        Budget(options.max_cost, options.price, options.max_requests),
        Target(options.diff, options.diff_token, client_options) if options.diff else None,
        planning=options.silent,
        concurrency=options.concurrency,
        models=options.models,
        image_url=options.image,
    )


def versions() -> dict[str, str]:
    """What the outcome may depend on, besides the target."""
    names = ("octo-upscaler", "hypothesis", "httpx", "pytest", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _not_collected(told: pytest.CollectReport) -> TestResult:
    """What stands for a file of tests that cannot be read."""
    return TestResult(told.nodeid, "can be read", (), Outcome.ERROR, told.longreprtext, 0, 0, 0.0)
