"""How this project is installed, as error messages say it."""

from typing import Final

SOURCE: Final = "."
"""What pip is told to install. Until the project is on PyPI that is a clone's folder."""
WHERE: Final = " in a clone of octo-upscaler"
"""Where that works; empty once `SOURCE` is the name on PyPI."""


def install_command(extra: str) -> str:
    """The command that installs the project with one of its extras, and where to run it."""
    return f"pip install '{SOURCE}[{extra}]'{WHERE}"
