"""The options of the command, before anything is sent."""

import subprocess
import sys
import textwrap
from decimal import Decimal
from typing import Any, Final

import pytest

from contract_tests.cli import main
from contract_tests.options import Options
from contract_tests.session import Session
from contract_tests.target.client import ClientOptions

TOKEN: Final = "a-token-to-be-kept"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "there is no target: give --base-url URL, or --target NAME"),
        (("--base-url", "127.0.0.1:8000"), "is not a URL such as"),
        (("--base-url", "ftp://x"), "is not a URL such as"),
        (("--base-url", "http://"), "is not a URL such as"),
        (("--base-url", "http://x:y"), "is not a URL such as"),
        (("--base-url", "http://a b"), "is not a URL such as"),
        (("--base-url", "http://me@x"), "must not have a user"),
        (("--base-url", "http://x?a=1"), "a query"),
        (("--base-url", "http://x", "--target", "octoai"), "two targets"),
        (("--target", "acme"), "invalid choice: 'acme'"),
        (("--target", "octoai"), "in the variable OCTOAI_TOKEN, which is empty"),
        (("--base-url", "http://x", "--token-env", "NO"), "in the variable NO, which is empty"),
        (("--base-url", "http://x", "--token-env", "BAD"), "it contains white space"),
        (("--base-url", "http://x", "--token", "secret"), "unrecognized arguments: --token"),
        (("--base-url", "http://x", "--level", "lax"), "invalid choice: 'lax'"),
        (("--base-url", "http://x", "--only", "REQ-99"), "there is no rule REQ-99, only REQ-9"),
        (("--base-url", "http://x", "--skip", "XYZ"), "there is no rule XYZ: see --list"),
        (("--base-url", "http://x", "--only", "REQ-1", "--skip", "req-1"), "no rule is left"),
        (("--base-url", "http://x", "--only", "ASY-5"), "no rule is left to judge at the level"),
        (("--base-url", "http://x", "--max-cost", "-1"), "an amount in dollars"),
        (("--base-url", "http://x", "--max-cost", "NaN"), "an amount in dollars"),
        (("--base-url", "http://x", "--price", "free"), "an amount in dollars"),
        (("--base-url", "http://x", "--max-requests", "-1"), "a whole number of at least 0"),
        (("--base-url", "http://x", "--max-examples", "0"), "a whole number of at least 1"),
        (("--base-url", "http://x", "--rate", "0"), "a number above 0"),
        (("--base-url", "http://x", "--timeout", "nan"), "a number above 0"),
        (("--base-url", "http://x", "--concurrency", "0"), "a whole number of at least 1"),
        (("--base-url", "http://x", "--seed", "x"), "a seed is a whole number"),
        (("--base-url", "http://x", "--model", "x8"), "invalid choice: 'x8'"),
        (("--base-url", "http://x", "--image", "x", "1", "1"), "is not the URL of an image"),
        (("--base-url", "http://x", "--image", "http://x/a", "1", "y"), "whole numbers"),
        (("--base-url", "http://x", "--html", "/nowhere/at/all.html"), "there is no folder"),
        (("--base-url", "http://x", "--report", "."), "is not a file name"),
        (("--base-url", "http://x", "--junit", "/nowhere/at/all.xml"), "there is no folder"),
        (("--base-url", "http://x", "--diff", "y"), "is not a URL such as"),
        (("--har", "/nowhere.har"), " /nowhere.har cannot be read: No such file or directory"),
        (("--base-url", "http://x", "--http2"), "--http2 is for https: alone"),
        (("--base-url", "https://x", "--diff", "http://y", "--http2"), "is for https: alone"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_a_usage_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, argv: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("UPSCALER_TOKEN", TOKEN)
    monkeypatch.delenv("OCTOAI_TOKEN", raising=False)
    monkeypatch.setenv("BAD", "a b")
    try:
        status = main(argv)
    except SystemExit as error:
        status = int(str(error.code))
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("upscaler-contract: ")
    assert said.err.count("\n") == 1


def test_help_and_version_import_nothing_heavy() -> None:
    code = """
        import sys
        from contract_tests.cli import main
        try:
            main([sys.argv[1]])
        except SystemExit as error:
            assert error.code == 0
        heavy = {"pytest", "hypothesis", "httpx", "numpy", "PIL"} & set(sys.modules)
        assert not heavy, heavy
    """
    for option, text in (
        ("--help", "Exit status: 0 conforms"),
        ("--version", "upscaler-contract "),
    ):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), option],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert text in " ".join(done.stdout.split())


def test_a_run_has_the_limits_of_its_options() -> None:
    limits: dict[str, Any] = {"timeout": 7.0, "wait": 3.0, "rate": 5.0, "max_time": 9.0}
    limits |= {"max_cost": Decimal(2), "price": Decimal("0.5")}
    session = Session(Options("http://x", TOKEN, diff="http://y", **limits))
    assert session.run.other
    for target in (session.run.target, session.run.other):
        assert target.options == ClientOptions(timeout_s=7.0, wait_s=3.0, per_minute=5.0)
    assert 0 < session.clock.left_s <= 9
    assert session.run.budget.limit == 4
    fewer = Session(Options("http://x", TOKEN, max_requests=3))
    assert fewer.run.budget.limit == 3
    assert fewer.clock.left_s == float("inf")
