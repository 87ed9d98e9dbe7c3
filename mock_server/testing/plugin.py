"""The plugin for pytest: `upscaling_mock`, `upscaling_api`, and a guard of the real hosts.

pytest imports this in every suite of an environment in which the mock is installed, so that the
mock itself is imported only by who asks for a fixture.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from mock_server.testing.network_guard import Guard

if TYPE_CHECKING:
    from mock_server.inprocess.respx_router import Router
    from mock_server.serving.server import MockServer

GUARD: Final = pytest.StashKey[Guard]()
MISSING: Final = "upscaling_api needs respx: pip install 'octo-upscaler[mock]'"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tell pytest what can stand in its configuration."""
    parser.addini("upscaling_tokens", "the tokens of the mock of the Upscaling API", type="args")
    parser.addini("upscaling_scenario", "how the mock starts: a file in TOML, from here")
    parser.addini("upscaling_seed", "random faults come in the order that belongs to this number")
    parser.addini(
        "upscaling_guard",
        "whether a request to OctoAI's real hosts fails its test",
        type="bool",
        default=True,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start to guard."""
    if config.getini("upscaling_guard"):
        config.stash[GUARD] = guard = Guard()
        guard.start()
        config.add_cleanup(guard.stop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Fail if what the fixtures do before a test asked a real host."""
    return (yield from _watched(item.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail if a test asked a real host, even if it took the exception."""
    return (yield from _watched(item.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail if what the fixtures do after a test asked a real host."""
    return (yield from _watched(item.config))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole if a thread or a module did that outside of all tests."""
    guard = session.config.stash.get(GUARD, None)
    told = guard.taken() if guard else ""
    if told:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nERROR: outside of all tests, {told}")


def _watched(config: pytest.Config) -> Generator[None, object, object]:
    """Let a part of a test happen, and fail it for what the guard has caught meanwhile."""
    guard = config.stash.get(GUARD, None)
    if guard is None:
        return (yield)
    guard.look_around()
    try:
        result = yield
    except BaseException as error:
        told = guard.taken()
        if told and isinstance(error, pytest.skip.Exception):
            pytest.fail(told, pytrace=False)
        if told and told not in str(error):
            error.add_note(told)
        raise
    told = guard.taken()
    if told:
        pytest.fail(told, pytrace=False)
    return result


@pytest.fixture(scope="session")
def _upscaling_server(pytestconfig: pytest.Config) -> "Iterator[MockServer]":
    from mock_server.serving.server import MockServer

    with MockServer(**_options(pytestconfig)) as server:
        yield server


@pytest.fixture
def upscaling_mock(_upscaling_server: "MockServer") -> "MockServer":
    """A mock of the Upscaling API at `upscaling_mock.url`, for `upscaling_mock.token`.

    The same server for all tests, as at the start for each.
    """
    _upscaling_server.reset()
    return _upscaling_server


@pytest.fixture(scope="session")
def _upscaling_router(pytestconfig: pytest.Config) -> "Router":
    try:
        from mock_server.inprocess.respx_router import routes
    except ModuleNotFoundError as error:
        if error.name != "respx":
            raise
        pytest.fail(MISSING, pytrace=False)
    from mock_server.mock import Mock

    return routes(Mock(**_options(pytestconfig)))


@pytest.fixture
def upscaling_api(_upscaling_router: "Router") -> "Iterator[Router]":
    """Routes of respx that answer https://image.octoai.run; the mock is `upscaling_api.mock`."""
    _upscaling_router.mock.reset()
    with _upscaling_router as api:
        yield api


def _options(config: pytest.Config) -> dict[str, Any]:
    """What the configuration says of the mock; raises UsageError."""
    scenario, seed = config.getini("upscaling_scenario"), config.getini("upscaling_seed")
    folder = config.inipath.parent if config.inipath else config.rootpath
    try:
        number = int(seed) if seed else None
    except ValueError as error:
        raise pytest.UsageError("upscaling_seed is a whole number") from error
    return {
        "tokens": config.getini("upscaling_tokens") or None,
        "scenario": folder / Path(scenario) if scenario else None,
        "seed": number,
    }
