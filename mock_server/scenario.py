"""Scenario files: the initial state of a mock, in TOML."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from mock_server.backend.faces import parse_faces
from mock_server.backend.jobs import PollScript
from mock_server.backend.webhooks import parse_webhook_faults
from mock_server.endpoints import ROUTES
from mock_server.faults.fault import Fault, parse_sequence
from mock_server.faults.schedule import Steps, parse_probabilities
from mock_server.rate_limit import parse_rate
from upscaler.errors import InvalidSetting
from upscaler.settings import FaceEnhance

FETCHES: Final = ("made", "real")
"""Where the images of URLs come from: they are generated, or really downloaded."""


class ScenarioError(ValueError):
    """A value in a scenario is not valid; the message says what is."""


@dataclass(frozen=True)
class Scenario:
    """The initial state of a mock; what is None or empty here has its default."""

    tokens: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    fetch: str | None = None
    rate_limit: int | None = None
    face_enhance: FaceEnhance | None = None
    faces: int | None = None
    faults: Mapping[str, Steps] = field(default_factory=dict)
    random: Mapping[Fault, float] = field(default_factory=dict)
    progress: PollScript | None = None
    webhooks: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; raises InvalidSetting with the path and the key, or OSError."""
        import tomllib  # noqa: PLC0415  most mocks start without a file

        try:
            return cls.parse(tomllib.loads(path.read_text(encoding="utf-8")))
        except (InvalidSetting, ValueError) as error:  # also those of TOML and UTF-8
            raise InvalidSetting(f"{path}: {error}") from error

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """Return the scenario in a table; raises InvalidSetting with the key."""
        given = {}
        for name, value in _members(table, KEYS):
            with _errors_at(name):
                # Keys have hyphens, as options of the command have.
                given[name.replace("-", "_")] = KEYS[name](value)
        return cls(**given)


@contextmanager
def _errors_at(key: str) -> Iterator[None]:
    """Name the key in the errors of the block."""
    try:
        yield
    except InvalidSetting as error:
        raise InvalidSetting(f"{key}.{error}") from error
    except ValueError as error:
        raise InvalidSetting(f"{key}: {error}") from error


def _members(table: object, keys: Mapping[str, object]) -> list[tuple[str, Any]]:
    """Return the members of a table, which may have no others than `keys`; raises ValueError."""
    if not isinstance(table, dict):
        raise ScenarioError(f"expected a table of {', '.join(keys)}")
    for name in table:
        if name not in keys:
            raise ScenarioError(f"unknown key {name!r}; use one of {', '.join(keys)}")
    return list(table.items())


def _parse_tokens(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) and value else [""]
    if not all(isinstance(text, str) and text.isprintable() and text.strip() for text in texts):
        raise ScenarioError('expected at least one string: ["mock-token"]')
    return tuple(texts)


def _parse_integer(value: object) -> int:
    if type(value) is not int:  # a bool is an int, too
        raise ScenarioError("expected an integer")
    return value


def _parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise ScenarioError("expected a string")
    return value


def _parse_fetch(value: object) -> str:
    if value not in FETCHES:
        raise ScenarioError(f"expected one of {', '.join(FETCHES)}")
    return str(value)


def _parse_face_enhance(value: object) -> FaceEnhance:
    if value not in tuple(FaceEnhance):
        raise ScenarioError(f"expected one of {', '.join(FaceEnhance)}")
    return FaceEnhance(str(value))


def _parse_faults(value: object) -> dict[str, Steps]:
    sequences = {}
    for route, text in _members(value, ROUTES):
        with _errors_at(route):
            sequences[route] = parse_sequence(_parse_text(text))
    return sequences


def _parse_random(value: object) -> dict[Fault, float]:
    if not isinstance(value, dict):
        raise ScenarioError('expected a table of probabilities, such as "429" = 0.05')
    return parse_probabilities(value)


def parse_progress(value: object) -> PollScript:
    """Return the poll script in a table; raises ValueError."""
    return PollScript(**dict(_members(value, PollScript.__dataclass_fields__)))


KEYS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "tokens": _parse_tokens,
    "seed": _parse_integer,
    "fetch": _parse_fetch,
    "rate-limit": lambda value: parse_rate(_parse_text(value)),
    "face-enhance": _parse_face_enhance,
    "faces": parse_faces,
    "faults": _parse_faults,
    "random": _parse_random,
    "webhooks": parse_webhook_faults,
    "progress": parse_progress,
}
"""The keys of a scenario, and how their values are parsed."""
