"""The verdicts of the contract tests on implementations that are right, and on some that are not.

    python -m benchmarks.implementations

prints two tables in Markdown. The first has this project's own implementations and three that were
written as others would, served directly, behind nginx, and there by HTTP/2; all of them conform.
The second has one row for each mistake that those three can have, and whether its rule is found
broken at the level `documented`. The exit status is 1 if a verdict is wrong.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.cli.test_serve import served
from tests.contract_tests.defects import flawless
from tests.contract_tests.implementations import MISTAKES, TOKEN, behind_nginx, serving
from tests.support import shallow_serve
from tests.support.contract_cli import CliResult, run_cli

FRONTS: Final = {
    "nothing": "",
    "nginx": "nginx: TLS, a prefix, gzip, buffers, a limit of 10 MB",
    "HTTP/2": "the same, by HTTP/2",
}
OWN: Final = ("`upscaler-mock`", "`upscaler serve`")
LEVELS: Final = ("documented", "strict")


def main() -> int:
    wrong = 0
    print("| implementation | behind | `documented` | `strict` |\n|---|---|---|---|")
    for name in (*OWN, *MISTAKES):
        for front in FRONTS if name in MISTAKES else ("nothing",):
            levels = LEVELS if name in OWN else LEVELS[:1]  # strict is for our own choices
            judged = [judge(name, front, "", "--level", level) for level in levels]
            told = [*map(verdict, judged), *([] if name in OWN else [""])]
            print(f"| {name} | {FRONTS[front]} | {' | '.join(told)} |", flush=True)
            wrong += any(result.status for result in judged)
    print("\n| implementation | mistake | found broken |\n|---|---|---|")
    for name, mistakes in MISTAKES.items():
        for mistake, (rule, sentence) in mistakes.items():
            rules = broken(judge(name, "nginx", mistake, "--only", rule))
            print(f"| {name} | {sentence} | {', '.join(rules) or '**nothing**'} |", flush=True)
            wrong += rule not in rules
    return 1 if wrong else 0


def judge(name: str, front: str, mistake: str, *options: str) -> CliResult:
    """The result for one implementation; `front` is one of FRONTS."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url, token = stack.enter_context(_served(name, mistake, Path(folder)))
        environment: dict[str, str] = {}
        if front != "nothing":
            url, environment = stack.enter_context(behind_nginx(url, Path(folder)))
        if front == "HTTP/2":
            options = (*options, "--http2")
        return run_cli(url, token, *options, **environment)


@contextmanager
def _served(name: str, mistake: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The URL of an implementation and its token."""
    if name == OWN[0]:
        with flawless() as mock:
            yield mock.url, mock.token
    elif name == OWN[1]:
        # Networks that cost hardly anything, in place of trained ones.
        command = (sys.executable, shallow_serve.__file__)
        with served(folder, TOKEN, command) as service:
            yield service.url, TOKEN
    else:
        with serving(name, mistake) as url:
            yield url, TOKEN


def verdict(result: CliResult) -> str:
    rules = broken(result)
    return str(result.report["verdict"]) + (f": {', '.join(rules)}" if rules else "")


def broken(result: CliResult) -> list[str]:
    """The rules that were found broken, in their order."""
    return [rule["id"] for rule in result.report["rules"] if rule["verdict"] == "broken"]


if __name__ == "__main__":
    sys.exit(main())
