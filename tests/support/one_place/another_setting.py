"""With another setting in each declaration: it is read, checked and named like all others."""

import pytest

from upscaler.environment import FromEnvironment
from upscaler.errors import InvalidSetting
from upscaler.modal.config import Deployment
from upscaler.settings import Settings


def check(declared: type[FromEnvironment], field: str, variable: str) -> None:
    assert declared.variables()[field] == variable
    assert getattr(declared.from_environment({}), field) == 3
    assert getattr(declared.from_environment({variable: " 7 "}), field) == 7
    with pytest.raises(InvalidSetting, match=f"{variable}: must be a whole number"):
        declared.from_environment({variable: "many"})


if __name__ == "__main__":
    check(Settings, "polish", "UPSCALER_POLISH")
    check(Deployment, "spares", "UPSCALER_SPARES")
