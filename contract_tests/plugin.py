"""The pytest plugin: `pytest --pyargs contract_tests --contract-url URL`.

pytest loads it in every suite of an environment in which this package is installed. So without a
URL or a target's name it only adds options, and imports nothing heavy.
"""

from typing import Final

import pytest

GUARDED: Final = (
    "the mock's plugin fails tests that send requests to the real host: "
    "add -o upscaling_guard=false"
)
ONE_PROCESS: Final = "the contract tests count what they spend in one process: leave out -n"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command, each with the prefix contract-."""
    from contract_tests.options import add_options

    group = parser.getgroup("contract", "contract of the Upscaling API")
    add_options(group.addoption, prefix="contract-")


def pytest_configure(config: pytest.Config) -> None:
    """Start a session if there is something to judge."""
    arguments = config.option
    if not (arguments.contract_url or arguments.contract_target):
        return
    from contract_tests.options import USAGE_ERROR, InvalidOption, parse_options

    guard = config.pluginmanager.hasplugin("upscaling") and config.getini("upscaling_guard")
    if arguments.contract_target and guard and not arguments.contract_plan:
        pytest.exit(GUARDED, returncode=USAGE_ERROR)
    if getattr(arguments, "numprocesses", None) or hasattr(config, "workerinput"):
        pytest.exit(ONE_PROCESS, returncode=USAGE_ERROR)
    try:
        options = parse_options(arguments)
    except InvalidOption as error:
        pytest.exit(str(error), returncode=USAGE_ERROR)
    from contract_tests.pytest_summary import Summary
    from contract_tests.session import Session

    session = Session(options)
    config.pluginmanager.register(session)
    config.pluginmanager.register(Summary(session))
