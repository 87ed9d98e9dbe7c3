"""The results of a run: outcomes, verdicts, the JSON, the text and the page."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from contract_tests.failures import (
    BudgetReached,
    Inconclusive,
    ShrinkBudgetSpent,
    Unreachable,
    failure,
)
from contract_tests.judge.run import Run
from contract_tests.options import NO_TARGET
from contract_tests.oracle.rules import RULES
from contract_tests.report import console_report, outcomes, report
from contract_tests.report.html_report import render, write
from contract_tests.report.report import (
    Money,
    Outcome,
    Report,
    ReportedExchange,
    ReportedFinding,
    RuleVerdict,
    TestResult,
    Times,
)
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import Request, upscaling_request
from contract_tests.target.response import Response
from tests.support.requirements import CHROMIUM, needs_browser

EVIL: Final = (
    "</pre><script>document.title = 'taken'</script><img src=x onerror=\"alert('x')\">$x &amp;"
)


def result(
    name: str, *rules: str, outcome: Outcome = Outcome.PASSED, sentence: str = "", **more: Any
) -> TestResult:
    return TestResult(f"test_x.py::{name}", name, rules, outcome, sentence, 3, 1, 0.25, **more)


def found(rule: str, sentence: str = "the status is 200, and not 422") -> ReportedFinding:
    return ReportedFinding(
        rule, sentence, "<POST /upscaling | {}>", f"200: {EVIL}", f"curl '{EVIL}'"
    )


def reported(*tests: TestResult, word: str = "", **more: Any) -> Report:
    """A report of these tests."""
    occurred = {test.outcome for test in tests}
    word = word or next(each for each in report.STATUSES if each in occurred)
    made = Report(
        target="http://127.0.0.1:8000", other=None, level="strict", http2=False, seed=7,
        max_examples=25,
        versions={"python": "3.11"}, started="2026-01-02T03:04:05+00:00", seconds=61.5,
        verdict=report.HEADLINES[word], status=report.STATUSES[word],
        money=Money(0.004, 1.0, 250, 5, 0.02),
        times={"refused": Times.of([0.001, 0.002, 0.1]), "made": Times.of([])},
        reason="", left_out={"of the level strict": 2},
        rules=report.judge_rules(tests, frozenset(), diff=False), tests=tests,
    )  # fmt: skip
    return dataclasses.replace(made, **more)


BROKEN: Final = reported(
    result("one", "REQ-1"),
    result("two[a]", "REQ-1", "REQ-6", outcome=Outcome.FAILED, findings=(found("REQ-6"),)),
    result("two[b]", "REQ-6", outcome=Outcome.FAILED, findings=(found("REQ-6"), found("RES-6"))),
    result("three", "REQ-8", outcome=Outcome.BUDGET, sentence="all was spent"),
    result("four", "REQ-9", outcome=Outcome.ERROR, sentence=f"KeyError: {EVIL}"),
)
CONFORMING: Final = reported(*(result(f"of {rule}", rule) for rule in RULES))


# Outcomes


@pytest.fixture
def run(create_run: Callable[..., Run]) -> Run:
    return create_run(NO_TARGET)


def exchange(run: Run, request: Request, *, about: str = "the answer") -> None:
    """Let `run` have sent this request, and received a response about something."""
    response = Response(200, {"content-type": "text/plain"}, about.encode(), 0.1)
    run._last.exchange = request, response


def exchange_of(run: Run) -> tuple[Request, str]:
    request, response = run._last.exchange
    return request, response.summary


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (None, (Outcome.NOTHING, "every response would be allowed to all of its requests")),
        (Inconclusive("busy"), (Outcome.INCONCLUSIVE, "busy")),
        (BudgetReached("spent"), (Outcome.BUDGET, "spent")),
        (Unreachable("nobody"), (Outcome.UNREACHABLE, "nobody")),
        (KeyError("id"), (Outcome.ERROR, "KeyError: 'id'")),
        (AssertionError("x"), (Outcome.ERROR, "AssertionError: x")),
        (ExceptionGroup("", [ValueError("a")]), (Outcome.ERROR, "ValueError: a")),
    ],
    ids=repr,
)
def test_the_outcome_by_what_a_test_raises(
    run: Run, raised: BaseException | None, expected: tuple[Outcome, str]
) -> None:
    assert outcomes.outcome(raised, run) == expected


def test_a_test_that_sent_requests_and_found_nothing_has_passed(run: Run) -> None:
    run.counters.requests = 1
    assert outcomes.outcome(None, run) == (Outcome.PASSED, "")


def test_a_failure_that_a_test_raised_by_itself_is_recorded(run: Run) -> None:
    exchange(run, upscaling_request({"scale": 2}))
    result = outcomes.outcome(failure("ASY-1", "there is no poll_url"), run)
    assert result == (Outcome.FAILED, "")
    assert run.counters.findings["ASY-1"].response == "200 text/plain: the answer"


def test_several_failures_at_once_are_all_recorded(run: Run) -> None:
    exchange(run, upscaling_request({"scale": 2}))
    both = [failure("RES-1", "one"), ExceptionGroup("", [failure("RES-2", "two")])]
    assert outcomes.outcome(ExceptionGroup("", both), run)[0] is Outcome.FAILED
    assert set(run.counters.findings) == {"RES-1", "RES-2"}


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (ShrinkBudgetSpent("enough"), ""),
        (BudgetReached("spent"), "spent"),
        (Inconclusive("busy"), "busy"),
        (KeyError("id"), "KeyError: 'id'"),
    ],
)
def test_a_finding_is_a_failure_whatever_comes_after_it(
    run: Run, last: Exception, sentence: str
) -> None:
    exchange(run, upscaling_request({"scale": 2}))
    run.record(failure("RES-1", "one"))
    assert outcomes.outcome(last, run) == (Outcome.FAILED, sentence)


def test_the_token_is_redacted_in_findings(run: Run) -> None:
    exchange(run, upscaling_request({"scale": "the-token"}), about="your token is the-token")
    run.record(failure("RES-1", "the-token is wrong"))
    (reported_finding,) = outcomes.report_findings(
        run, lambda text: text.replace("the-token", "$TOKEN")
    )
    assert "the-token" not in str(reported_finding)
    assert reported_finding.answer == "200 text/plain: your token is $TOKEN"
    assert reported_finding.curl.startswith("curl ")


def test_an_undecided_test_keeps_the_request_at_which_it_ended(run: Run) -> None:
    exchange(run, upscaling_request({"scale": 3}))
    run._last.attempted = *exchange_of(run), "http://other.example"
    with pytest.raises(Inconclusive), run._noting_where_it_ends():
        raise Inconclusive("busy")
    kept = outcomes.report_undecided(Outcome.INCONCLUSIVE, run, str)
    assert kept is not None
    assert kept.request == repr(upscaling_request({"scale": 3}))
    assert kept.answer == "200 text/plain: the answer"
    assert kept.curl.endswith("http://other.example/upscaling")
    assert outcomes.report_undecided(Outcome.FAILED, run, str) is None  # its findings have theirs


# Verdicts


def verdicts(*tests: TestResult) -> dict[str, RuleVerdict]:
    judged = report.judge_rules(tests, frozenset(), diff=False)
    assert [rule.id for rule in judged] == list(RULES)
    return {rule.id: rule.verdict for rule in judged if rule.verdict is not RuleVerdict.NOT_TESTED}


def test_a_rule_is_broken_whichever_test_finds_it() -> None:
    failed = result("a", "REQ-1", outcome=Outcome.FAILED, findings=(found("RES-4"),))
    assert verdicts(failed, result("b", "RES-4")) == {
        "REQ-1": RuleVerdict.INCONCLUSIVE,  # its test did not get to its end
        "RES-4": RuleVerdict.BROKEN,
    }


def test_a_missing_id_leaves_the_other_rules_judged() -> None:
    without_id = partial(result, outcome=Outcome.FAILED, findings=(found("RES-6"),))
    assert verdicts(without_id("a", "REQ-1"), without_id("b", "REQ-2", sentence="busy")) == {
        "REQ-1": RuleVerdict.CONFORMS,
        "REQ-2": RuleVerdict.INCONCLUSIVE,
        "RES-6": RuleVerdict.BROKEN,
    }
    both = without_id("c", "REQ-3", findings=(found("RES-6"), found("RES-4")))
    assert verdicts(both)["REQ-3"] is RuleVerdict.INCONCLUSIVE


def test_what_a_target_lacks_is_not_tested_and_breaks_nothing() -> None:
    lacking = result("a", "EXT-2", outcome=Outcome.NOT_OFFERED, sentence="it says 405")
    passed = result("b", "EXT-3"), result("c", "EXT-3", outcome=Outcome.NOT_OFFERED, sentence="x")
    judged = {
        rule.id: rule.verdict for rule in report.judge_rules([lacking, *passed], (), diff=False)
    }
    assert judged["EXT-2"] is RuleVerdict.NOT_OFFERED
    assert judged["EXT-3"] is RuleVerdict.CONFORMS
    assert reported(lacking, *passed).status == 0
    assert reported(lacking).status == 3, "nothing was judged"
    assert "not offered: EXT-2" in [*console_report.table(reported(lacking, *passed))]
    lines = [*console_report.left_out(reported(lacking, *passed))]
    assert "not offered: 1 test: it says 405" in lines
    assert "Not offered: 1 test: it says 405" in render(reported(lacking))


@pytest.mark.parametrize(
    "outcome", [Outcome.INCONCLUSIVE, Outcome.BUDGET, Outcome.UNREACHABLE, Outcome.ERROR]
)
def test_a_rule_conforms_only_if_its_tests_were_completed(outcome: Outcome) -> None:
    tests = result("a", "REQ-1"), result("b", "REQ-1", "REQ-2", outcome=outcome)
    assert verdicts(*tests) == {
        "REQ-1": RuleVerdict.INCONCLUSIVE,
        "REQ-2": RuleVerdict.INCONCLUSIVE,
    }


def test_whatever_finds_a_rule_broken_counts_as_its_test() -> None:
    failed = result("a", "REQ-1", outcome=Outcome.FAILED, findings=(found("RES-4"),))
    (rule,) = (each for each in reported(failed).rules if each.id == "RES-4")
    assert (rule.tests, rule.requests) == ((failed.id,), 3)


def test_a_skipped_rule_is_not_tested() -> None:
    judged = report.judge_rules([result("a", "REQ-1")], {"REQ-1"}, diff=True)
    assert judged[0].verdict is RuleVerdict.NOT_TESTED
    assert judged[-1].id == "DIFF"
    assert judged[-1].verdict is RuleVerdict.CONFORMS


def test_the_most_severe_outcome_decides() -> None:
    assert list(report.STATUSES.values()) == [130, 1, 1, 5, 6, 7, 8, 9, 10, 11, 4, 3, 0, 0, 3, 3]
    assert set(report.HEADLINES) == set(report.STATUSES)


# JSON


def test_the_json_has_everything(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    BROKEN.write(file)
    read = json.loads(file.read_text())
    assert list(read) == [
        "target", "other", "level", "http2", "seed", "max_examples", "versions", "started",
        "seconds", "verdict", "status", "money", "times", "reason", "left_out", "rules", "tests",
        "recorded", "schema",
    ]  # fmt: skip
    assert read["schema"] == 1
    assert read["status"] == 1
    assert read["money"] == {
        "price": 0.004, "max_cost": 1.0, "limit": 250, "billed": 5, "spent": 0.02, "lost": 0,
    }  # fmt: skip
    assert read["times"]["refused"]["median"] == 0.002
    assert read["times"]["made"] == {
        "count": 0, "median": None, "p95": None, "longest": None, "all": [],
    }  # fmt: skip
    (rule,) = (each for each in read["rules"] if each["id"] == "REQ-6")
    assert rule == {
        "id": "REQ-6",
        "sentence": RULES["REQ-6"].sentence,
        "sources": ["schema", "choice"],
        "chosen": "the bounds",
        "verdict": "broken",
        "requests": 6,
        "tests": ["test_x.py::two[a]", "test_x.py::two[b]"],
    }
    assert read["tests"][1]["findings"][0]["answer"] == f"200: {EVIL}"


def test_half_of_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    odd = reported(result("\ud800", "REQ-1"))
    odd.write(tmp_path / "report.json")
    write(odd, tmp_path / "page.html")
    assert "\\ud800" in (tmp_path / "report.json").read_text()


# Text


def test_each_failure_of_a_rule_is_printed_once() -> None:
    lines = list(console_report.broken(BROKEN))
    assert lines.count("REQ-6: " + RULES["REQ-6"].sentence) == 1
    assert "  1 more test found the same." in lines
    assert (
        "  source:   client, choice: all but the name: the clients read it only if it is there"
        in lines
    )


def test_the_reasons_of_undecided_tests_are_printed_beside_a_broken_rule() -> None:
    busy = [
        result(str(number), outcome=Outcome.INCONCLUSIVE, sentence=f"busy {number % 7}")
        for number in range(8)
    ]
    lines = list(console_report.summary(reported(*BROKEN.tests, *busy)))
    told = [line for line in lines if line.startswith("not decided: ")]
    assert told[0] == "not decided: 2 tests: busy 0"
    assert "not decided: 1 test: all was spent" in told
    assert told[-1] == "not decided: 3 more tests: see --report or --html"


def test_of_many_tests_that_ended_alike_a_few_requests_are_printed() -> None:
    ended = [
        result(str(number), outcome=Outcome.INCONCLUSIVE, sentence="busy",
               undecided=ReportedExchange("<POST>", "", f"curl {'x' * number}"))
        for number in range(9)
    ]  # fmt: skip
    lines = list(console_report.summary(reported(*reversed(ended))))
    at = lines.index("not decided: 9 tests: busy")
    assert lines[at + 1 : at + 5] == [
        "  request:  <POST>", "  response: none", "  repeat:   curl ", "  test:     test_x.py::0",
    ]  # fmt: skip
    assert lines.count("  request:  <POST>") == 3
    assert "  6 more tests ended the same: see --report or --html" in lines


def test_the_terminal_has_the_shorter_command_and_the_json_both(run: Run) -> None:
    exchange(run, upscaling_request({"scale": 2}, SampleImage(2048, 2048, "jpeg", 1)))
    run.record(failure("RES-1", "one"))
    (finding,) = outcomes.report_findings(run, str)
    assert len(finding.curl) > 30_000
    assert len(finding.repeat) < 500
    assert f"  repeat:   {finding.repeat}" in outcomes.finding_lines(finding)


def test_a_long_curl_command_is_cut_off() -> None:
    long = dataclasses.replace(found("REQ-6"), curl="curl " + "A" * 10**5)
    printed = "\n".join(console_report.broken(reported(
        result("a", "REQ-6", outcome=Outcome.FAILED, findings=(long,))
    )))  # fmt: skip
    assert len(printed) < 2000
    assert "see --report for all of them" in printed


@pytest.mark.parametrize(
    ("rules", "headline", "sentence"),
    [
        (("DIFF",), "The two differ", "The two differ."),
        (("REQ-6",), "Does not conform", "Does not conform: REQ-6 is broken."),
        (
            ("DIFF", "REQ-6", "RES-6"),
            "Does not conform",
            "Does not conform: REQ-6, RES-6 are broken. The two differ.",
        ),
    ],
)
def test_a_difference_is_no_broken_rule(
    rules: tuple[str, ...], headline: str, sentence: str
) -> None:
    failed = result("a", *rules, outcome=Outcome.FAILED, findings=tuple(map(found, rules)))
    told = reported(failed, rules=report.judge_rules([failed], frozenset(), diff=True))
    assert console_report.sentence(told) == sentence
    assert f"</span>{headline}</h1>" in render(told)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (1, "$1.00"), (0.548, "$0.548"), (0.5, "$0.50"), (12.3456, "$12.3456")],
)
def test_amounts_are_to_the_cent_or_finer(amount: float, text: str) -> None:
    assert console_report.dollars(amount) == text


@pytest.mark.parametrize("word", list(report.HEADLINES))
def test_every_verdict_has_a_sentence_and_a_page(word: str) -> None:
    told = reported(*BROKEN.tests, word=word)
    assert console_report.sentence(told).endswith(".")
    assert report.HEADLINES[word].capitalize() in render(told)


# The page


class Elements(HTMLParser):
    """What elements a page has, with their attributes, and all that it could load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("told", [BROKEN, CONFORMING], ids=["broken", "conforming"])
def test_the_page_is_one_file_that_loads_nothing_and_runs_nothing_else(told: Report) -> None:
    seen = Elements()
    seen.feed(render(told))
    assert seen.tags.count("script") == 1
    assert not {"img", "link", "iframe", "object", "form", "base"} & set(seen.tags)
    names = {name for name, _ in seen.attributes}
    assert not {name for name in names if name in ("src", "href", "style") or name[:2] == "on"}


def test_the_page_shows_findings_verbatim() -> None:
    made = render(BROKEN)
    assert "&lt;script&gt;document.title" in made
    assert EVIL not in made
    assert "Does not conform" in made
    assert made.count('class="card"') == 3  # two rules, and a faulty test
    assert made.count('class="card is-open"') == 1  # why one is not decided
    for rule in RULES:
        assert f">{rule}<" in made


def test_hostile_text_of_a_target_is_escaped_everywhere() -> None:
    texts = iter(f"{number}: {EVIL}" for number in range(100))
    used: list[str] = []

    def hostile() -> str:
        used.append(next(texts))
        return used[-1]

    finding = ReportedFinding("REQ-6", *(hostile() for _ in range(4)))
    failed = result("a", "REQ-6", outcome=Outcome.FAILED, findings=(finding,))
    faulty = result("b", outcome=Outcome.ERROR, sentence=hostile())
    busy = result("c[x]", "REQ-1", outcome=Outcome.INCONCLUSIVE, sentence=hostile())
    named = dataclasses.replace(failed, id=hostile(), says=hostile())
    made = reported(named, faulty, busy, target=hostile(), other=hostile())
    made = dataclasses.replace(made, versions={"python": hostile()}, left_out={hostile(): 1})
    seen = Elements()
    seen.feed(render(made))
    for text in used:
        assert text.lower() in seen.text.lower()
    assert seen.tags.count("script") == 1
    assert not {"img", "iframe", "object", "form"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]


def browse(file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={file.parent / 'profile'}", *options, file.as_uri()],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip


@needs_browser
def test_a_browser_shows_the_page_and_runs_nothing_of_a_response(tmp_path: Path) -> None:
    file, image = tmp_path / "page.html", tmp_path / "page.png"
    write(BROKEN, file)
    done = browse(file, "--dump-dom")
    assert "<title>Does not conform: http://127.0.0.1:8000</title>" in done.stdout
    assert "Refused to" not in done.stderr  # by the policy: what is the page's own may be there
    assert "violates" not in done.stderr
    browse(file, f"--screenshot={image}", "--window-size=400,800")
    assert len(image.read_bytes()) > 10_000
