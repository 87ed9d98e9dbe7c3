"""The command `upscaler-contract`: judges an implementation of the Upscaling API by its URL alone.

Exit status: 0 conforms, 1 does not conform, 2 usage error, 3 inconclusive, 4 budget reached before
everything was tested, 5 target unreachable, 130 interrupted. If several apply, the first of 1, 5,
4 and 3 is returned. From 6 on nothing was tested, and a sentence says what to do: 6 no answer to a
POST, 7 redirected to another URL, 8 unusable proxy, 9 no API at the URL, 10 blocked by a firewall
or login, 11 no HTTP/2 where it is asked for.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from contract_tests.options import USAGE_ERROR, InvalidOption, add_options, parse_options, writable
from contract_tests.target.run_clock import RunClock

NAME: Final = "upscaler-contract"
INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as of a shell."""
FOLDER: Final = Path(__file__).parent
PYTEST_ARGUMENTS: Final = (
    str(FOLDER),
    "-c",
    str(FOLDER / "suite" / "isolated.ini"),
    f"--rootdir={FOLDER}",
    f"--confcutdir={FOLDER}",
    "--import-mode=append",
    "--assert=plain",
    *("-p", "no:cacheprovider", "-p", "no:warnings", "-p", "no:terminalprogress"),
)
"""Run only these tests, and load nothing of the project in the working directory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Judge a target by `argv`, by default the process's arguments; return the exit status."""
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout:  # None if it is closed
                sys.stdout.flush()  # Python's own flush at exit would print an error
    except BrokenPipeError:  # as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    if args.junit and args.contract_har:
        sys.stderr.write(f"{NAME}: --har writes no JUnit: leave out --junit\n")
        return USAGE_ERROR
    if args.sample_body:
        return _print_body(*args.sample_body)
    try:
        options = parse_options(args)
        if options.har:
            from contract_tests import recorded  # noqa: PLC0415  as below

            return recorded.judge(options)
        more = [
            *(["-x"] if args.fail_fast else []),
            *([f"--junitxml={writable(args.junit).absolute()}"] if args.junit else []),
            *(["--collect-only"] if args.contract_list else []),
        ]
    except InvalidOption as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return USAGE_ERROR
    clock = RunClock(options.max_time)
    with clock.catching_interrupts():
        # Imported late, so that --help and usage errors appear at once.
        import pytest  # noqa: PLC0415

        from contract_tests.session import Session  # noqa: PLC0415
        from contract_tests.terminal import create_reporter  # noqa: PLC0415

        with _isolated_environment():
            session = Session(options, clock)
            reporter = create_reporter(session, verbose=args.verbose)
            status = int(pytest.main([*PYTEST_ARGUMENTS, *more], plugins=[session, reporter]))
        if session.refused:
            sys.stderr.write(f"{NAME}: {session.refused}\n")
    return INTERRUPTED if clock.interrupted else status


def _print_body(template: str, description: str) -> int:
    from contract_tests.requests.request import sample_body  # noqa: PLC0415  imports NumPy

    try:
        body = sample_body(template, description)
    except ValueError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return USAGE_ERROR
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    """Prints the version, which takes a while to look up."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(NAME, version("octo-upscaler"))  # noqa: T201  the output of --version
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Judge an implementation of OctoAI's Upscaling API by its URL alone. Requests "
        "that must be refused are sent first, and cost nothing; then those that may cost money, as "
        "many as --max-cost allows. The bearer token is read from the environment.",
        epilog="Exit status: 0 conforms, 1 does not conform, 2 usage error, 3 inconclusive, "
        "4 budget reached, 5 target unreachable, 6 no answer to a POST, 7 redirected to another "
        "URL, 8 unusable proxy, 9 no API at the URL, 10 blocked, 11 no HTTP/2, 130 interrupted.",
        allow_abbrev=False,
    )
    add_options(parser.add_argument)
    add = parser.add_argument
    add("--junit", type=Path, metavar="F.xml", help="write the outcomes as JUnit XML")
    add("-x", "--fail-fast", action="store_true", help="stop at the first failure")
    add("-v", "--verbose", action="store_true", help="with --plan: print each request")
    add("--sample-body", nargs=2, metavar=("BODY", "IMAGE"), help="print a body with the sample "
        "image that it was sent with, as the commands of a report use it")  # fmt: skip
    add("--version", action=_Version, nargs=0, help="print the version")
    return parser


@contextmanager
def _isolated_environment() -> Iterator[None]:
    """Hide pytest's variables, and keep Hypothesis from creating a folder here."""
    before = dict(os.environ)
    # Such as PYTEST_ADDOPTS, which is meant for the suite of the project that runs the command.
    for name in [name for name in before if name.startswith("PYTEST_")]:
        del os.environ[name]
    # Among the plugins is the mock's, whose guard would block requests to OctoAI's real host.
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
