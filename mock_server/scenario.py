"""Scenario files: how a mock starts, in TOML."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from mock_server.backend.jobs import Progress
from mock_server.faults.fault import Fault, parse_sequence
from mock_server.faults.schedule import ROUTES, Steps, parse_chances
from mock_server.rate_limit import parse_rate
from upscaler.errors import InvalidSetting

FETCHES: Final = ("made", "real")
"""Where pictures of URLs come from: the mock makes them, or they are downloaded."""


class ScenarioError(ValueError):
    """A value in a scenario is none that can be there; the message says what can."""


@dataclass(frozen=True)
class Scenario:
    """How a mock starts; what is None or empty here is as it is without a scenario."""

    tokens: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    fetch: str | None = None
    rate_limit: int | None = None
    faults: Mapping[str, Steps] = field(default_factory=dict)
    random: Mapping[Fault, float] = field(default_factory=dict)
    progress: Progress | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """The scenario in a file; raises InvalidSetting, with its name and the key, or OSError."""
        import tomllib  # noqa: PLC0415  most mocks start without a file

        try:
            return cls.parse(tomllib.loads(path.read_text(encoding="utf-8")))
        except (InvalidSetting, ValueError) as error:  # TOML's and UTF-8's errors among them
            raise InvalidSetting(f"{path}: {error}") from error

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """The scenario in a table; raises InvalidSetting with the key and what is wrong."""
        given = {}
        for name, value in _known(table, KEYS):
            with _told_at(name):
                given[name.replace("-", "_")] = KEYS[name](value)
        return cls(**given)


@contextmanager
def _told_at(key: str) -> Iterator[None]:
    """Tell what is wrong in the block with the key that it is about."""
    try:
        yield
    except InvalidSetting as error:
        raise InvalidSetting(f"{key}.{error}") from error
    except ValueError as error:
        raise InvalidSetting(f"{key}: {error}") from error


def _known(table: object, keys: Mapping[str, object]) -> list[tuple[str, Any]]:
    """The members of a table that has none but `keys`; raises ValueError."""
    if not isinstance(table, dict):
        raise ScenarioError(f"this is a table of {', '.join(keys)}")
    for name in table:
        if name not in keys:
            raise ScenarioError(f"there is no {name!r}; what there is: {', '.join(keys)}")
    return list(table.items())


def _tokens(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) and value else [""]
    if not all(isinstance(text, str) and text.isprintable() and text.strip() for text in texts):
        raise ScenarioError('these are texts, and one at least: ["mock-token"]')
    return tuple(texts)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ScenarioError("this is a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ScenarioError("this is a text")
    return value


def _fetch(value: object) -> str:
    if value not in FETCHES:
        raise ScenarioError(f"this is one of {', '.join(FETCHES)}")
    return str(value)


def _faults(value: object) -> dict[str, Steps]:
    found = {}
    for route, text in _known(value, ROUTES):
        with _told_at(route):
            found[route] = parse_sequence(_text(text))
    return found


def _random(value: object) -> dict[Fault, float]:
    if not isinstance(value, dict):
        raise ScenarioError('this is a table of probabilities, such as "429" = 0.05')
    return parse_chances(value)


def parse_progress(value: object) -> Progress:
    """The progress in a table; raises ValueError."""
    return Progress(**dict(_known(value, Progress.__dataclass_fields__)))


KEYS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "tokens": _tokens,
    "seed": _whole,
    "fetch": _fetch,
    "rate-limit": lambda value: parse_rate(_text(value)),
    "faults": _faults,
    "random": _random,
    "progress": parse_progress,
}
"""What can be in a scenario, and how it is read."""
