"""The command `upscaler-contract`: judges an implementation of the Upscaling API by its URL alone.

Exit status 0 means that it conforms, 1 that it does not, 2 that the command is wrong, 3 that
nothing can be said, 4 that the budget was reached before all was tested, 5 that nothing answers at
the URL, and 130 that the run was interrupted. What is graver decides: 1, then 5, 4, and 3.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from contract_tests.options import USAGE_ERROR, InvalidOption, add_options, options, writable

NAME: Final = "upscaler-contract"
FOLDER: Final = Path(__file__).parent
ALONE: Final = (
    str(FOLDER),
    "-c",
    str(FOLDER / "suite" / "isolated.ini"),
    f"--rootdir={FOLDER}",
    f"--confcutdir={FOLDER}",
    "--import-mode=append",
    "--assert=plain",
    *("-p", "no:cacheprovider", "-p", "no:warnings", "-p", "no:terminalprogress"),
)
"""Arguments for pytest: only these tests, and nothing of the project that the user is in."""


def main(argv: Sequence[str] | None = None) -> int:
    """Judge as `argv` says, by default the process's own arguments; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        found = options(args)
        more = _arguments(args)
    except InvalidOption as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return USAGE_ERROR
    # Only now, so that a wrong command, and --help, are told at once.
    import pytest  # noqa: PLC0415

    from contract_tests.session import Session  # noqa: PLC0415
    from contract_tests.terminal import printing  # noqa: PLC0415

    with _nothing_else():
        session = Session(found)
        printer = printing(session, verbose=args.verbose)
        status = int(pytest.main([*ALONE, *more], plugins=[session, printer]))
    if session.refused:
        sys.stderr.write(f"{NAME}: {session.refused}\n")
    return status


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and not how else it could be used."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(NAME, version("octo-upscaler"))  # noqa: T201  what was asked for
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Judge an implementation of OctoAI's Upscaling API by its URL alone. What must "
        "be refused is asked first, and costs nothing; then come requests that may cost money, as "
        "many as --max-cost allows. The bearer token is taken from the environment.",
        epilog="Exit status: 0 conforms, 1 does not, 2 the command is wrong, 3 inconclusive, "
        "4 budget reached, 5 target unreachable, 130 interrupted.",
        allow_abbrev=False,
    )
    add_options(parser.add_argument)
    add = parser.add_argument
    add("--junit", type=Path, metavar="F.xml", help="write the outcomes there as JUnit's XML")
    add("-x", "--fail-fast", action="store_true", help="stop at the first test that fails")
    add("-v", "--verbose", action="store_true", help="with --plan: print each request")
    add("--version", action=_Version, nargs=0, help="print the version, and end")
    return parser


def _arguments(args: argparse.Namespace) -> list[str]:
    """What pytest is told of the command's options; raises InvalidOption."""
    return [
        *(["-x"] if args.fail_fast else []),
        *([f"--junitxml={writable(args.junit).absolute()}"] if args.junit else []),
        *(["--collect-only"] if args.contract_list else []),
    ]


@contextmanager
def _nothing_else() -> Iterator[None]:
    """Let no variable of pytest's change anything, nor Hypothesis leave a folder here."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
            os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
