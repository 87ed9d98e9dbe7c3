"""The contract tests of the Upscaling API: they judge any implementation by its URL alone.

    from contract_tests import main

    status = main(["--base-url", "http://127.0.0.1:8000", "--report", "report.json"])

Public are the command `upscaler-contract`, which is `main`; the options of the pytest plugin; the
JSON of `--report`, which is a `Report`; and the names in `__all__`. Every other name may change.
Each public name is imported when it is first used: pytest loads the plugin in this package in
every suite, where importing it has to cost nothing.

In the folders: `suite` has the tests, `oracle` derives the allowed outcome from the rules,
`requests` makes what is sent, `target` sends it, `judge` compares the responses, and `report`
presents the results.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from contract_tests.cli import main as main
    from contract_tests.oracle.rules import RULES as RULES
    from contract_tests.oracle.rules import Rule as Rule
    from contract_tests.oracle.rules import Source as Source
    from contract_tests.report.report import Report as Report

__all__ = ("RULES", "Report", "Rule", "Source", "main")

_MODULES: Final = {
    "RULES": "oracle.rules",
    "Report": "report.report",
    "Rule": "oracle.rules",
    "Source": "oracle.rules",
    "main": "cli",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  any public object
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
