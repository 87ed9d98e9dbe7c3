"""The options of a run, for the command and for pytest: one table for both.

pytest imports this in every suite of an environment in which this package is installed, so it
imports little.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from contract_tests.oracle.rules import RULES
from contract_tests.oracle.values import ENCODINGS, MODELS

TARGETS: Final = {"octoai": "https://image.octoai.run"}
"""Targets by name."""
TOKEN_ENV: Final = "UPSCALER_TOKEN"  # noqa: S105  the name of a variable
TOKEN_ENVS: Final = {"octoai": "OCTOAI_TOKEN"}
"""The variable that the token is in, by target, unless another one is named."""
USAGE_ERROR: Final = 2
"""The exit status if options are wrong. pytest's own is 4, which here means that the budget was
reached."""
LEVELS: Final = ("documented", "strict")
NO_TARGET: Final = "http://nothing-is-sent.invalid"
"""The target of a plan that names none."""
PREFIX: Final = "contract_"
"""The prefix of all attributes in the namespaces of pytest and the command."""


class InvalidOption(ValueError):
    """An invalid option or variable, or a combination that is; the message is a sentence."""


@dataclass(frozen=True)
class Options:
    """The options of a run. Costs are in dollars, `rate` is in requests per minute."""

    url: str
    token: str = field(repr=False)
    level: str = LEVELS[0]
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    default_encoding: str = ENCODINGS[0]
    max_examples: int = 25
    max_cost: Decimal = Decimal("1.20")
    max_requests: int | None = None
    price: Decimal = Decimal("0.004")
    rate: float | None = None
    timeout: float = 300.0
    max_time: float | None = None
    wait: float = 0.0
    http2: bool = False
    concurrency: int = 1
    models: tuple[str, ...] = ()
    image: tuple[str, int, int] | None = None
    seed: int | None = None
    plan: bool = False
    list: bool = False
    har: Path | None = None
    report: Path | None = None
    html: Path | None = None
    diff: str | None = None
    diff_token: str = field(default="", repr=False)

    @property
    def silent(self) -> bool:
        """Whether nothing is sent."""
        return self.plan or self.list

    @property
    def skipped(self) -> frozenset[str]:
        """The rules that are not judged, at this level or at the user's request."""
        strict = self.level == "strict"
        judged = {name for name, rule in RULES.items() if strict or rule.documented}
        judged = judged & set(self.only) if self.only else judged
        return frozenset(RULES) - (judged - set(self.skip))


def add_options(add: Callable[..., object], *, prefix: str = "") -> None:
    """Add all options to a parser by its `add_argument`, with `prefix` before their names."""

    def option(name: str, **how: Any) -> None:  # noqa: ANN401  what argparse takes
        destination = PREFIX + name.replace("-", "_")
        add(f"--{prefix}{name}", dest=destination, default=None, **how)

    # In pytest an option with nargs="+" would also take the paths of tests behind it.
    several: dict[str, Any] = {"action": "append"} if prefix else {"action": "extend", "nargs": "+"}
    option("url" if prefix else "base-url", type=_url, metavar="URL", help="the target to judge")
    option("target", choices=TARGETS, help=f"or by name: octoai is {TARGETS['octoai']}")
    option("token-env", metavar="NAME", help="the variable that the bearer token is in, "
        f"default: {TOKEN_ENV}, for --target octoai {TOKEN_ENVS['octoai']}")  # fmt: skip
    option("level", choices=LEVELS, help="documented: only what OctoAI's documents, schema and "
        "clients support; strict: also our own choices; default: documented")  # fmt: skip
    option("only", type=_rules, metavar="RULE", help="judge only these rules", **several)
    option("skip", type=_rules, metavar="RULE", help="do not judge these rules", **several)
    option("default-encoding", choices=ENCODINGS, help="at the level strict: the encoding of an "
        f"image if the request names none; default: {ENCODINGS[0]}")  # fmt: skip
    option("max-examples", type=_count, metavar="N",
        help="the number of requests per property; default: 25")  # fmt: skip
    option("max-cost", type=_dollars, metavar="USD", help="the most to spend; default: 1.20")
    option("max-requests", type=_number, metavar="N",
        help="the most billable requests; default: as many as --max-cost allows")  # fmt: skip
    option("price", type=_dollars, metavar="USD",
        help="the price of a request that gets an image; default: 0.004")  # fmt: skip
    option("rate", type=_positive, metavar="N", help="the most requests per minute")
    option("timeout", type=_positive, metavar="S",
        help="the longest time for a complete response, in seconds; default: 300")  # fmt: skip
    option("max-time", type=_positive, metavar="S", help="the longest time for the run, in "
        "seconds: what is not tested by then is inconclusive; default: no limit")  # fmt: skip
    option("wait", type=_positive, metavar="S",
        help="how long to wait for a target that is starting, in seconds; default: 0")  # fmt: skip
    option("http2", action="store_true", help="speak HTTP/2, which the target must offer by TLS")
    option("concurrency", type=_count, metavar="N", help="the number of requests at once; "
        "from 2 it is tested whether their responses get mixed up; default: 1")  # fmt: skip
    option("model", choices=MODELS, metavar="NAME", help="request only these models, and the "
        "first of them where it does not matter; default: all", **several)  # fmt: skip
    option("image", nargs=3, metavar=("URL", "WIDTH", "HEIGHT"), help="an image that the target "
        "can download, and its size; without it no image is downloaded")  # fmt: skip
    option("seed", type=_seed, metavar="N", help="repeat the requests of a run that "
        "printed this number; default: a new one, and in CI always the same requests")  # fmt: skip
    option("plan", action="store_true",
        help="print what would be sent and the most that can cost; send nothing")  # fmt: skip
    if not prefix:
        option("list", action="store_true", help="print the rules and their tests; send nothing")
        option("har", type=Path, metavar="F.har", help="judge the traffic that is recorded in an "
            "HTTP Archive, at --base-url or any URL; send nothing")  # fmt: skip
    option("report", type=Path, metavar="F.json", help="write the report as JSON")
    option("html", type=Path, metavar="F.html", help="write the report as an HTML page")
    option("diff", type=_url, metavar="URL2", help="send each request there, too, and report "
        "where the two differ")  # fmt: skip
    option("diff-token-env", metavar="NAME",
        help="the variable that the token for URL2 is in; default: the same token")  # fmt: skip


def parse_options(
    arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ
) -> Options:
    """The options by parsed arguments; raises InvalidOption."""
    values = {name.removeprefix(PREFIX): value for name, value in vars(arguments).items()
              if name.startswith(PREFIX) and value is not None}  # fmt: skip
    url = values.pop("base_url", None) or values.pop("url", None)
    target = values.pop("target", None)
    names = values.pop("token_env", None), values.pop("diff_token_env", None)
    if url and target:
        raise InvalidOption("a URL and --target are two targets: leave out one")
    silent = values.get("plan") or values.get("list") or values.get("har")
    if not (url or target or silent):
        raise InvalidOption("there is no target: give --base-url URL, or --target NAME")
    if (
        values.get("http2")
        and not silent
        and any(each.startswith("http:") for each in (url, values.get("diff")) if each)
    ):
        raise InvalidOption("--http2 is for https: alone, as a server offers HTTP/2 by TLS")
    if values.get("har") and (values.get("plan") or values.get("list") or values.get("diff")):
        raise InvalidOption("--har judges what was recorded: leave out --plan, --list and --diff")
    for name in ("only", "skip"):
        values[name] = tuple(rule for rules in values.get(name, ()) for rule in rules)
    values["models"] = tuple(values.pop("model", ()))
    if "image" in values:
        values["image"] = _image(*values["image"])
    for path in (values.get("report"), values.get("html")):
        if path:
            writable(path)
    token = "" if silent else _token(names[0] or TOKEN_ENVS.get(target, TOKEN_ENV), environ)
    other = _token(names[1], environ) if names[1] and not silent else token
    options = Options(
        url=url or TARGETS.get(target) or NO_TARGET, token=token, diff_token=other, **values
    )
    if options.skipped == frozenset(RULES):
        raise InvalidOption(f"no rule is left to judge at the level {options.level}")
    return options


def writable(path: Path) -> Path:
    """The path, if a file can be written there: checked before anything is paid for.

    Raises InvalidOption.
    """
    try:
        if path.is_dir() or not path.name:
            raise InvalidOption(f"{path} is not a file name")
        if not path.parent.is_dir():
            raise InvalidOption(f"there is no folder {path.parent}")
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise InvalidOption(f"{path} cannot be written: {error.strerror}") from error
    return path


def _token(name: str, environ: Mapping[str, str]) -> str:
    """The token in a variable, the first of several by commas; raises InvalidOption."""
    token = environ.get(name, "").partition(",")[0].strip()
    if not token:
        raise InvalidOption(f"the bearer token is expected in the variable {name}, which is empty")
    if not token.isprintable() or " " in token:
        raise InvalidOption(f"the token in the variable {name} is invalid: it contains white space")
    return token


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://127.0.0.1:8000")
    if "?" in text or "#" in text or "@" in parts.netloc:
        raise argparse.ArgumentTypeError("the URL must not have a user, a query or a fragment")
    return text.rstrip("/")


def _image(url: str, width: str, height: str) -> tuple[str, int, int]:
    if not url.startswith(("http://", "https://")):
        raise InvalidOption(f"{url!r} is not the URL of an image")
    if not (width.isdecimal() and height.isdecimal()):
        raise InvalidOption(f"width and height are whole numbers, not {width} {height}")
    return url, int(width), int(height)


def _rules(text: str) -> tuple[str, ...]:
    """The rules in a comma-separated list of ids."""
    return tuple(map(_rule, filter(None, map(str.strip, text.split(",")))))


def _rule(text: str) -> str:
    name = text.upper()
    if name not in RULES:
        import difflib  # noqa: PLC0415  rarely needed

        close = difflib.get_close_matches(name, RULES, n=3)
        hint = f", only {' and '.join(close)}" if close else ": see --list"
        raise argparse.ArgumentTypeError(f"there is no rule {text}{hint}")
    return name


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount < 10**9:
        raise argparse.ArgumentTypeError("not an amount in dollars of at least 0")
    return amount


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError("not a whole number of at least 0")
    return int(text)


def _count(text: str) -> int:
    if _number(text) == 0:
        raise argparse.ArgumentTypeError("not a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 10**6:
        raise argparse.ArgumentTypeError("not a number above 0 and below a million")
    return number


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text, re.ASCII):
        raise argparse.ArgumentTypeError("a seed is a whole number of at least 0")
    return int(text)
