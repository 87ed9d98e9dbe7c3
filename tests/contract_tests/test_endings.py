"""How a run ends before everything was tested: within its money and time, and with the reason."""

import gc
import json
import signal
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

import httpx
import pytest

from contract_tests.options import Options
from contract_tests.report import outcomes
from contract_tests.report.report import Outcome, TestResult
from contract_tests.session import Session
from mock_server.serving.server import MockServer
from tests.contract_tests.test_cli import begun, environment, last_line
from tests.support.consumer_suites import outcome
from tests.support.contract_cli import COMMAND, TOKEN, run_cli
from tests.support.raw_http import PATIENCE_S
from tests.support.stub_servers import OK, ReceivedRequest, Reply, status_only, stub_server

REFUSED: Final = (422, {"Content-Type": "application/json", "X-User-Request-ID": "1"}, b"{}")
NASTY: Final = (
    "\x1b]0;taken\x07\x1b[2J\x9b31m\u202e\r\nConforms to 28 rules at the level strict.\n\x00"
)


# Money


@pytest.mark.slow
@pytest.mark.parametrize("lost", [None, status_only(504)], ids=["reset", "504"])
def test_a_target_that_loses_two_of_three_images_is_paid_no_more_than_allowed(
    mock: MockServer, lost: Reply
) -> None:
    made = 0

    def reply(received: ReceivedRequest) -> Reply:
        nonlocal made
        with httpx.Client(base_url=mock.url, headers=received.headers, trust_env=False) as api:
            response = api.request(received.method, received.path, content=received.body)
        if received.method == "POST" and response.status_code == 200:
            made += 1
            if made % 3:
                return lost
        return response.status_code, {"Content-Type": "application/json"}, response.content

    with stub_server(reply) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-13", "--max-cost", "0.025",
                       "--max-examples", "1")  # fmt: skip
    assert done.status == 4, done.output
    assert made == done.report["money"]["billed"] == 6
    assert done.report["money"]["lost"] == 4
    assert "4 requests of these may have got an image that was lost" in done.output


# Time


def test_a_run_has_a_limit_in_total(tmp_path: Path) -> None:
    def slow(received: ReceivedRequest) -> Reply:
        time.sleep(0.1 if received.method == "POST" else 0)
        return REFUSED

    html, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    with stub_server(slow) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-11", "--max-time", "1.5",
                       "--max-examples", "200",
                       "--html", str(html), "--junit", str(junit))  # fmt: skip
    assert done.status == 3, done.output
    said = "the 1.5 s of --max-time have passed"
    assert f"stopped early: {said}" in done.output
    assert done.report["reason"] == said
    assert done.report["seconds"] < PATIENCE_S
    assert said in html.read_text()
    assert said in junit.read_text()


def test_time_that_is_up_before_the_first_test_is_inconclusive(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    with stub_server(lambda _: REFUSED) as server:
        done = run_cli(server.url, TOKEN, "--max-time", "0.001", "--junit", str(junit))
    assert "the 0.001 s of --max-time have passed" in junit.read_text()
    assert done.status == 3, done.output
    assert last_line(done) == "Inconclusive: the 0.001 s of --max-time have passed."
    assert done.report["verdict"] == "inconclusive"


# Ctrl-C

INTERRUPTING: Final = """
    import gc, signal, sys
    from contract_tests.cli import main

    seen = set()

    def in_a_test():
        frame = sys._getframe()
        while frame:
            if frame.f_code.co_name.startswith("test_"):
                return True
            frame = frame.f_back

    def interrupt(phase, info):
        if not seen and in_a_test():
            seen.add(phase)
            try:
                signal.raise_signal(signal.SIGINT)
                for _ in range(1000):
                    pass  # the handler runs here
            except KeyboardInterrupt:
                raise

    gc.callbacks.append(interrupt)
    gc.set_threshold(20)
    status = main(sys.argv[1:])
    assert seen
    sys.exit(status)
"""


def test_an_interrupt_within_a_callback_of_the_garbage_collector_is_not_lost(
    tmp_path: Path,
) -> None:
    """Python prints what such a callback raises, and goes on."""
    assert gc.isenabled()
    with stub_server(lambda _: REFUSED) as server:
        options = ["--base-url", server.url, "--report", "report.json", "--only", "REQ-6"]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(INTERRUPTING), *options], env=environment(),
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 130, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Interrupted before everything was tested.")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["status"], report["tests"]) == (130, []), "it goes on after the first test"


def test_an_interrupt_ends_a_request_that_is_never_answered(tmp_path: Path) -> None:
    """While it waits for the first response, before any test."""

    def silent(_: ReceivedRequest) -> Reply:
        time.sleep(5)
        return OK

    with stub_server(silent) as server:
        command = [COMMAND, "--base-url", server.url, "--report", "report.json"]
        with begun(command, tmp_path) as process:
            while not server.seen:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert output.rstrip().endswith("Interrupted before everything was tested.")
    assert "Traceback" not in output
    assert json.loads((tmp_path / "report.json").read_text())["reason"] == "it was interrupted"


def test_an_interrupt_while_the_command_starts_ends_with_130_and_its_reports(
    tmp_path: Path,
) -> None:
    script = """
        import signal, sys
        from contract_tests import cli

        class Early:
            def find_spec(self, name, path=None, target=None):
                if name == "contract_tests.session":
                    signal.raise_signal(signal.SIGINT)

        sys.meta_path.insert(0, Early())
        sys.exit(cli.main(sys.argv[1:]))
    """
    with stub_server(lambda _: REFUSED) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), "--base-url", server.url,
             "--report", "report.json"],
            env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 130, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "interrupted"
    assert server.posts == []


# What is said


def test_a_target_that_implements_no_other_method_is_judged() -> None:
    """As Python's http.server answers what its handler has no method for."""

    def reply(received: ReceivedRequest) -> Reply:
        return REFUSED if received.method == "POST" else status_only(501)

    with stub_server(reply) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-1", "RES-5", "--max-examples", "2",
                       "--level", "strict")  # fmt: skip
    methods = [received.method for received in server.seen]
    assert all(methods.count(name) == 1 for name in ("PUT", "PATCH", "DELETE")), methods
    tests = [test for test in done.report["tests"] if "other_methods" in test["id"]]
    assert {test["outcome"] for test in tests} == {"failed"}, "it is judged, and not tried again"


def test_the_reason_is_given_beside_a_broken_rule(mock: MockServer, tmp_path: Path) -> None:
    mock.faults.set("ok,404x10,429:retry-after=600x*")
    html, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    done = run_cli(mock.url, TOKEN, "--only", "REQ-4", "RES-4", "--level", "strict",
                   "--html", str(html), "--junit", str(junit))  # fmt: skip
    assert done.status == 1, done.output
    said = "5 tests in a row were inconclusive; of the last one the target responded with 429 once"
    assert f"stopped early: {said}" in done.output
    assert said in done.report["reason"]
    assert said in html.read_text()
    (stopped,) = (
        each for each in ET.parse(junit).iter("property") if each.get("name") == "stopped"
    )
    assert said in str(stopped.get("value"))


def nasty(_: ReceivedRequest) -> Reply:
    return 400, {"Content-Type": "text/x-\x1b[31mred\x9b"}, NASTY.encode()


def steering(text: str) -> set[str]:
    """The characters of a text that a terminal does not show."""
    return {each for each in text if not each.isprintable()} - {"\n"}


@pytest.mark.slow
def test_nothing_that_a_target_sends_steers_the_terminal_of_pytest(tmp_path: Path) -> None:
    with stub_server(nasty) as server:
        options = ("--pyargs", "contract_tests", "--contract-url", server.url)
        done = outcome(tmp_path, *options, "--contract-only", "REQ-2,REQ-5", "--contract-level",
                       "strict", "--contract-max-examples", "2",
                       UPSCALER_TOKEN=TOKEN, CI="true")  # fmt: skip
    assert done.status == 1, done.said
    assert steering(done.said) == set()
    assert r"\x1b]0;taken" in done.said


def test_a_traceback_of_the_tests_themselves_is_cleaned(tmp_path: Path) -> None:
    """What a target has sent may stand in it."""
    failed = pytest.TestReport("x", ("x", 1, "x"), {}, "failed", f"KeyError: {NASTY}", "call")
    result = TestResult("x", "x", (), Outcome.ERROR, "", 0, 0, 0.0)
    outcomes.format_report(failed, result, Session(Options("http://x", TOKEN)).clean)
    assert steering(str(failed.longrepr)) == set()


def test_nothing_that_a_target_sends_steers_a_terminal() -> None:
    with stub_server(nasty) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-4", "REQ-5", "RES-6", "ASY-1",
                       "--max-examples", "2", "--level", "strict")  # fmt: skip
    assert done.status == 1, done.output
    assert steering(done.output) == set()
    assert r"\x1b]0;taken" in done.output
    lines = done.output.splitlines()
    assert not [line for line in lines if line.startswith("Conforms")]
