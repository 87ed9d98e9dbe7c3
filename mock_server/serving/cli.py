"""The command `upscaler-mock`: the mock on a port of this machine, until it is told to stop.

Exit status 0 means that it was told to stop, 1 that it could not be started, 2 that the command is
wrong.
"""

import argparse
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from mock_server.admin_access import PRIVATE_NAMES, hosts_of, is_name
from mock_server.mock import DEFAULT_TOKEN, Mock
from mock_server.rate_limit import parse_rate
from mock_server.rules import catalogue
from mock_server.scenario import FETCHES
from mock_server.serving.connection import Wire
from mock_server.serving.malloc import keep_freed_memory
from upscaler.errors import InvalidSetting
from upscaler.files import atomic_write
from upscaler.formats import ImageEncoding
from upscaler.service import logs
from upscaler.service.server.connection import server
from upscaler.settings import Settings

NAME: Final = "upscaler-mock"
DIALECTS: Final = {"strict": ImageEncoding.PNG, "octoai": ImageEncoding.JPEG}
"""What an answer is encoded in if the request does not say (REQ-9)."""
PRINTED: Final = {"text": catalogue.in_words, "json": catalogue.in_json}
"""How the rules can be printed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the mock as `argv` says, by default the process's own arguments; return the status."""
    args = _parser().parse_args(argv)
    if args.rules:
        print("\n".join(PRINTED[args.rules]()))  # noqa: T201  what was asked for
        return 0
    try:
        mock = _mock(args)
        with _listening(args.host, args.port) as listener:
            _end_well_when_told()
            keep_freed_memory()
            logs.to_stderr(mock.tokens)
            running = server(mock.app, args.host, args.port, Wire)
            with _port_file(args.port_file, listener.getsockname()[1]):
                # Whoever connects from here on is answered, if only once the server runs.
                print(_url(listener), flush=True)  # noqa: T201  what it is started for
                running.run(sockets=[listener])
    except (InvalidSetting, OSError) as error:
        sys.stderr.write(f"{NAME}: {_in_words(error)}\n")
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and not how else it could be used."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Serve a mock of the Upscaling API, for tests of clients: it checks and "
        "answers as the service does, and enlarges without a network. It prints its URL once it "
        "can be asked, and ends with status 0 on SIGTERM and SIGINT.",
        epilog="Settings of the service are read from the environment here, too: UPSCALER_QUEUE "
        "and the like.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="default: 127.0.0.1")
    add("--port", type=_port, default=0, metavar="N", help="default: 0, which takes a free one")
    add("--port-file", type=_file, metavar="FILE",
        help="write the port there once it can be asked; at the end it is removed")  # fmt: skip
    add("--token", type=_token, action="append", metavar="TOKEN",
        help="a bearer token to accept, can be given several times; "
        f"default: those in UPSCALER_TOKEN (a,b,...), or else {DEFAULT_TOKEN}")  # fmt: skip
    add("--dialect", choices=DIALECTS,
        help="strict: an answer is a PNG unless the request says otherwise, as OctoAI's page has "
        "it; octoai: a JPEG, as its published schema has it; "
        "default: as UPSCALER_DEFAULT_ENCODING says, or else strict")  # fmt: skip
    add("--rate-limit", type=_rate, metavar="LIMIT",
        help="how many requests a minute each token has: free (10), pro (60), or a number such as "
        "5/min; default: as many as it likes")  # fmt: skip
    add("--scenario", type=_file, metavar="FILE",
        help="how to start, in TOML: faults, tokens and others; options go before it")  # fmt: skip
    add("--seed", type=_seed, metavar="N",
        help="random faults come in the order that belongs to this number; default: 0")  # fmt: skip
    add("--fetch", choices=FETCHES,
        help="made: pictures of URLs are made here, without a network; real: they are downloaded; "
        "default: made")  # fmt: skip
    add("--no-admin", action="store_true",
        help="leave out the routes below /_mock, by which tests steer the mock")  # fmt: skip
    add("--admin-host", type=_name, action="append", default=[], metavar="NAME",
        help="a name of this machine under which the routes below /_mock are there, too, can be "
        "given several times; without it: IP addresses, localhost, names without a dot, "
        f"{', '.join(PRIVATE_NAMES)} and what --host says")  # fmt: skip
    add("--rules", nargs="?", const="text", choices=PRINTED,
        help="print the rules that the mock holds to, what each is supported by, and end; "
        "--rules json: for programs")  # fmt: skip
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _file(text: str) -> Path:
    if not Path(text).name:
        raise argparse.ArgumentTypeError("this is no name of a file")
    return Path(text)


def _token(text: str) -> str:
    if not text.isprintable() or not text or " " in text:
        raise argparse.ArgumentTypeError("a token has at least one character, and no spaces")
    return text


def _name(text: str) -> str:
    try:
        hosts_of([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _rate(text: str) -> int:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seed(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text, re.ASCII):
        raise argparse.ArgumentTypeError("a seed is a whole number")
    return int(text)


def _mock(args: argparse.Namespace) -> Mock:
    """The mock by the environment's settings, the scenario, and over them the command line."""
    settings = Settings.from_environment()
    if args.dialect:
        settings = replace(settings, default_encoding=DIALECTS[args.dialect])
    return Mock(
        tokens=args.token,
        settings=settings,
        seed=args.seed,
        scenario=args.scenario,
        admin=not args.no_admin,
        admin_hosts=args.admin_host + [args.host] * is_name(args.host),
        fetch=args.fetch,
        rate_limit=args.rate_limit,
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises OSError, with the place as its file's name.

    uvicorn could open it as well, but would say only in its log why it cannot.
    """
    place = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError as error:  # for a name that is too long, say
        raise OSError(0, "no such host", place) from error
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # behind it the address is told again
        raise OSError(error.errno, reason, place) from error


def _end_well_when_told() -> None:
    """Let SIGTERM and SIGINT end the process with status 0, whatever it is about.

    uvicorn finishes first what is asked for, and then raises the signal once more.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


@contextmanager
def _port_file(path: Path | None, port: int) -> Iterator[None]:
    """Let `path`, if there is one, have the port in it for as long as the block lasts.

    Afterwards it is gone, so that nobody who waits for the next mock finds this one's port.
    """
    if path is None:
        yield
        return
    try:
        with atomic_write(path) as file:
            file.write(f"{port}\n".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _in_words(error: InvalidSetting | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
