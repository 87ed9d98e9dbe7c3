"""Whether the contract tests find planted defects: a table in Markdown with a row for each.

    python -m benchmarks.defects [--only NAME...] [--jobs N]

Each defect is planted in a mock, which is then judged like any implementation: by
`upscaler-contract` at its URL, with `--level strict --fail-fast`. The table says which rule was
found broken first, by which test, and after how many requests. Mistakes with the extensions, which
come last in a run, are judged by the rules of these alone. The exit status is 1 if a defect was
missed.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from contract_tests.oracle.rules import EXTENSIONS
from tests.contract_tests.defects import DEFECTS, Defect, defective
from tests.support.contract_cli import run_cli

NAMED = {defect.name: defect for defect in DEFECTS}


@dataclass(frozen=True)
class Row:
    """The result for one defect."""

    name: str
    rules: tuple[str, ...]
    """The rules that were found broken; none if it was missed."""
    test: str
    requests: int
    inconclusive: bool = False
    """Whether valid requests got a 500, which is reported, but breaks no rule."""

    @property
    def defect(self) -> Defect:
        return NAMED[self.name]

    @property
    def as_planted(self) -> bool:
        """Whether a rule was found broken that the defect was planted against."""
        return any(rule in self.defect.rules for rule in self.rules)

    def __str__(self) -> str:
        rules = ", ".join(self.rules) or ("inconclusive" if self.inconclusive else "**nothing**")
        return f"| {self.defect.mistake} | {rules} | {self.test} | {self.requests} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=NAMED, metavar="NAME", default=list(NAMED))
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="default: 2")
    args = parser.parse_args()
    rows = []
    print("| defect | rule found broken | by the test | requests |\n|---|---|---|---|")
    with ProcessPoolExecutor(args.jobs) as pool:
        for row in pool.map(_judge, args.only):
            print(row, flush=True)
            rows.append(row)
    missed = [row.name for row in rows if not row.rules and not row.inconclusive]
    others = [row.name for row in rows if row.rules and not row.as_planted]
    print(f"\n{len(rows) - len(missed)} of {len(rows)} defects are found.")
    for name in others:
        print(f"{name} breaks another rule than it was planted against", file=sys.stderr)
    return 1 if missed else 0


def _judge(name: str) -> Row:
    of_extensions = set(NAMED[name].rules) <= EXTENSIONS
    return judge_defect(name, *(("--only", *sorted(EXTENSIONS)) if of_extensions else ()))


def judge_defect(name: str, *more: str) -> Row:
    """Judge a mock with the defect of this name, with more options of the command."""
    with defective(NAMED[name]) as served:
        options = ("--level", "strict", "--fail-fast", "--timeout", "10", *more)
        result = run_cli(served.url, served.token, *options)
    assert result.status in (0, 1, 3), result.output
    assert result.report["verdict"] != "the tests themselves failed", result.output
    outcomes = ("failed", "inconclusive")
    failed = [test for test in result.report["tests"] if test["outcome"] in outcomes]
    rules = {found["rule"]: None for test in failed for found in test["findings"]}
    words = failed[0]["id"].partition("::test_")[2].partition("[")[0] if failed else ""
    requests = sum(test["requests"] for test in result.report["tests"])
    return Row(name, tuple(rules), words.replace("_", " "), requests, result.status == 3)


if __name__ == "__main__":
    sys.exit(main())
