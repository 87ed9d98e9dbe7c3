"""The plugin for pytest: `pytest --pyargs contract_tests --contract-url URL`.

pytest imports this in every suite of an environment with the kit: without a URL, or a target's
name, it changes nothing but the list of options, and imports nothing of the kit's that is large.
"""

from typing import Final

import pytest

GUARDED: Final = "the mock's plugin fails whatever asks the real host: add -o upscaling_guard=false"
ONE_BY_ONE: Final = "the contract tests count what they spend in one process: leave out -n"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tell pytest of the same options as the command has, each with contract- before its name."""
    from contract_tests.options import add_options

    group = parser.getgroup("contract", "contract of the Upscaling API")
    add_options(group.addoption, prefix="contract-")


def pytest_configure(config: pytest.Config) -> None:
    """Start a session, if there is something to judge, or end it all in a sentence."""
    asked = config.option
    if not (asked.contract_url or asked.contract_target):
        return
    from contract_tests.options import USAGE_ERROR, InvalidOption, options

    guard = config.pluginmanager.hasplugin("upscaling") and config.getini("upscaling_guard")
    if asked.contract_target and guard and not asked.contract_plan:
        pytest.exit(GUARDED, returncode=USAGE_ERROR)
    if getattr(asked, "numprocesses", None) or hasattr(config, "workerinput"):
        pytest.exit(ONE_BY_ONE, returncode=USAGE_ERROR)
    try:
        found = options(asked)
    except InvalidOption as error:
        pytest.exit(str(error), returncode=USAGE_ERROR)
    from contract_tests.pytest_summary import Summary
    from contract_tests.session import Session

    session = Session(found)
    config.pluginmanager.register(session)
    config.pluginmanager.register(Summary(session))
