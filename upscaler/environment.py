"""Settings from environment variables, each declared once, in its field.

Not pydantic-settings: `modal deploy` reads its settings where only modal is installed.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from enum import StrEnum
from typing import Any, Self

from upscaler.errors import InvalidSetting


def setting(
    variable: str,
    parse: Callable[[str], Any],
    default: Any,  # noqa: ANN401  of the field's type
    *,
    repr: bool = True,  # noqa: A002  as in `dataclasses.field`
) -> Any:  # noqa: ANN401  as `dataclasses.field`
    """Declare a field that is read from `variable`; `parse` raises ValueError for invalid text."""
    return field(default=default, repr=repr, metadata={"variable": variable, "parse": parse})


def choice(choices: type[StrEnum]) -> Callable[[str], StrEnum]:
    """The `parse` of a setting that is one of these."""

    def parse(text: str) -> StrEnum:
        if text not in set(choices):
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choices(text)

    return parse


class FromEnvironment:
    """A dataclass whose fields are all settings."""

    @classmethod
    def variables(cls) -> dict[str, str]:
        """The environment variable of each field, by the field's name."""
        return {each.name: each.metadata["variable"] for each in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from `environment`; an empty variable counts as not set.

        Raises InvalidSetting, with the variable's name, for an invalid value.
        """
        values = {}
        for each in fields(cls):  # type: ignore[arg-type]
            variable = each.metadata["variable"]
            text = environment.get(variable)
            if not text:
                continue
            try:
                values[each.name] = each.metadata["parse"](text.strip())
            # Path.expanduser raises RuntimeError for "~name" without such a user.
            except (ValueError, RuntimeError) as error:
                raise InvalidSetting(f"{variable}: {error}") from error
        return cls(**values)
