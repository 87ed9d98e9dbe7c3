"""The command `upscaler-mock`: serves the mock on a port of this machine.

The exit status is 0 after SIGTERM or SIGINT, 1 if it cannot start, and 2 for wrong options.
"""

import argparse
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from starlette.types import ASGIApp

from mock_server.admin_access import PRIVATE_NAMES, is_name, parse_hosts
from mock_server.backend.faces import parse_faces
from mock_server.mock import DEFAULT_TOKEN, Mock
from mock_server.rate_limit import parse_rate
from mock_server.rules import catalogue
from mock_server.scenario import FETCHES
from mock_server.serving.connection import MockConnection
from mock_server.serving.malloc import keep_freed_memory
from upscaler.api.limits import MAX_FACES
from upscaler.errors import InvalidSetting
from upscaler.files import atomic_write, discard_stdout, flushed_stdout
from upscaler.formats import ImageEncoding
from upscaler.service import logs
from upscaler.service.server.addresses import listen, url_of
from upscaler.service.server.connection import server
from upscaler.settings import FaceEnhance, Settings

NAME: Final = "upscaler-mock"
DIALECTS: Final = {"strict": ImageEncoding.PNG, "octoai": ImageEncoding.JPEG}
"""The default encoding of a response (REQ-9)."""
NODE_PRELOAD: Final = Path(__file__).parents[1] / "testing" / "node_preload.cjs"
"""The script of `--node-preload`."""
RULE_FORMATS: Final = {"text": catalogue.format_text, "json": catalogue.format_json}
"""The formats of `--rules`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the mock as `argv` says, by default the process's own; return the exit status."""
    try:
        with flushed_stdout():
            return _run(argv)
    except OSError as error:
        discard_stdout()
        if not isinstance(error, BrokenPipeError):  # its reader has what it wanted, as `head` does
            sys.stderr.write(f"{NAME}: {error.filename}: {error.strerror}\n")
        return 1


def _run(argv: Sequence[str] | None) -> int:
    args = _create_parser().parse_args(argv)
    if args.version:
        from importlib.metadata import version  # noqa: PLC0415  takes a while

        print(NAME, version("octo-upscaler"))  # noqa: T201  what was asked for
        return 0
    if args.rules:
        print("\n".join(RULE_FORMATS[args.rules]()))  # noqa: T201  what was asked for
        return 0
    if args.node_preload:
        print(NODE_PRELOAD)  # noqa: T201  the same
        return 0
    try:
        if args.port_file:
            # Before all that may fail: who waits for this mock must not find the port of another.
            args.port_file.unlink(missing_ok=True)
        mock = _create_mock(args)
        listeners = listen(args.host, args.port)
        with ExitStack() as opened:
            for listener in listeners:
                opened.enter_context(listener)
            # uvicorn finishes the requests under way, and then raises the signal once more.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: sys.exit(0))
            keep_freed_memory()
            logs.to_stderr(mock.tokens)
            with (
                _recorded(mock, args.verify_log) as app,
                _port_file(args.port_file, listeners[0].getsockname()[1]),
            ):
                mock_server = server(app, args.host, args.port, MockConnection)
                # From here on clients can connect; they are answered once the server runs.
                print(url_of(listeners[0]) + mock.settings.root_path, flush=True)  # noqa: T201  what callers wait for
                mock_server.run(sockets=listeners)
    except (InvalidSetting, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        sys.stderr.write(f"{NAME}: {message}\n")
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _create_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Serve a mock of the Upscaling API, for tests of clients. It validates and "
        "responds as the service does, and upscales without a network. It prints its URL once it "
        "accepts connections, and exits with status 0 on SIGTERM and SIGINT.",
        epilog="The service's environment variables apply, too: UPSCALER_QUEUE and others.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    add("--port", type=_parse_port, default=0, metavar="N",
        help="port to listen on; default: 0, any free port")  # fmt: skip
    add("--port-file", type=_parse_path, metavar="FILE",
        help="write the port to this file once the mock accepts connections; an old one is removed "
        "first, and this one at exit")  # fmt: skip
    add("--token", type=_parse_token, action="append", metavar="TOKEN",
        help="bearer token to accept, can be repeated; "
        f"default: those in UPSCALER_TOKEN (a,b,...), or else {DEFAULT_TOKEN}")  # fmt: skip
    add("--dialect", choices=DIALECTS,
        help="default encoding of responses: strict is PNG, as on OctoAI's page, and octoai is "
        "JPEG, as in its schema; default: UPSCALER_DEFAULT_ENCODING, or else strict")  # fmt: skip
    add("--face-enhance", choices=list(FaceEnhance),
        help="be a service without the face model, and refuse or ignore face_enhance: true; "
        "default: UPSCALER_FACE_ENHANCE, or else it has one")  # fmt: skip
    add("--faces", type=_parse_faces, metavar="N",
        help=f"how many faces each picture has, 0 to {MAX_FACES}; default: 1")  # fmt: skip
    add("--rate-limit", type=_parse_rate, metavar="LIMIT",
        help="requests a minute for each token: free (10), pro (60), or a number such as 5/min; "
        "default: no limit")  # fmt: skip
    add("--scenario", type=_parse_path, metavar="FILE",
        help="TOML file with the initial state: faults, tokens and others; options override "
        "it")  # fmt: skip
    add("--seed", type=_parse_seed, metavar="N",
        help="seed of the random faults; default: 0")  # fmt: skip
    add("--fetch", choices=FETCHES,
        help="images of URLs: made generates them without a network, real downloads them; "
        "default: made")  # fmt: skip
    add("--no-cors", action="store_true",
        help="let no page of another origin use the API from a browser; default: those of "
        "UPSCALER_CORS_ORIGINS, or else all")  # fmt: skip
    add("--no-admin", action="store_true",
        help="remove the routes below /_mock, which control the mock")  # fmt: skip
    add("--admin-host", type=_parse_host, action="append", default=[], metavar="NAME",
        help="host name under which the routes below /_mock can be used, can be repeated; always "
        "allowed: IP addresses, localhost, names without a dot, "
        f"{', '.join(PRIVATE_NAMES)} and --host")  # fmt: skip
    add("--verify-log", type=_parse_path, metavar="FILE",
        help="write all requests and responses to this file as an HTTP Archive, without tokens; "
        "upscaler-contract --har FILE judges it")  # fmt: skip
    add("--rules", nargs="?", const="text", choices=RULE_FORMATS,
        help="print the rules that the mock follows, with their sources, and exit; --rules json "
        "is for programs")  # fmt: skip
    add("--node-preload", action="store_true",
        help="print the path of a script for node --require, which sends requests to OctoAI's "
        "hosts to the mock at UPSCALING_MOCK_URL, or refuses them without; and exit")  # fmt: skip
    add("--version", action="store_true", help="print the version, and exit")
    return parser


def _parse_port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _parse_path(text: str) -> Path:
    if not Path(text).name:
        raise argparse.ArgumentTypeError("expected the name of a file")
    return Path(text)


def _parse_token(text: str) -> str:
    if not text.isprintable() or not text or " " in text:
        raise argparse.ArgumentTypeError("a token has at least one character, and no spaces")
    return text


def _parse_host(text: str) -> str:
    try:
        parse_hosts([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _parse_rate(text: str) -> int:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse_seed(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text, re.ASCII):
        raise argparse.ArgumentTypeError("a seed is an integer")
    return int(text)


def _parse_faces(text: str) -> int:
    try:
        return parse_faces(int(text) if text.isdecimal() else None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _create_mock(args: argparse.Namespace) -> Mock:
    """Create the mock; options override the scenario, and that the environment."""
    settings = Settings.from_environment()
    if args.dialect:
        settings = replace(settings, default_encoding=DIALECTS[args.dialect])
    return Mock(
        tokens=args.token,
        settings=settings,
        seed=args.seed,
        scenario=args.scenario,
        cors=not args.no_cors,
        admin=not args.no_admin,
        admin_hosts=args.admin_host + [args.host] * is_name(args.host),
        fetch=args.fetch,
        rate_limit=args.rate_limit,
        face_enhance=args.face_enhance and FaceEnhance(args.face_enhance),
        faces=args.faces,
    )


@contextmanager
def _recorded(mock: Mock, path: Path | None) -> Iterator[ASGIApp]:
    """The mock's app, whose exchanges are written to `path`, if there is one."""
    if path is None:
        yield mock.app
        return
    from mock_server.journal.har import HarFile, HarMiddleware  # noqa: PLC0415  seldom needed

    with closing(HarFile(path)) as file:
        yield HarMiddleware(mock.app, file, mock.tokens)


@contextmanager
def _port_file(path: Path | None, port: int) -> Iterator[None]:
    """Write the port to `path`, if there is one, and remove the file at the end of the block.

    A script that waits for the next mock must not find the port of this one, but that of the next
    one if it is there already.
    """
    if path is None:
        yield
        return
    written = f"{port}\n".encode()
    try:
        with atomic_write(path) as file:
            file.write(written)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_bytes() == written:
                path.unlink()
