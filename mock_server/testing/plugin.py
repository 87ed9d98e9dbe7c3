"""The pytest plugin: `upscaling_mock`, `upscaling_api`, and a guard of OctoAI's real hosts.

pytest imports this in every suite of an environment in which the mock is installed, so the mock
itself is imported only when a fixture is used.
"""

from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from mock_server.testing.network_guard import NetworkGuard

if TYPE_CHECKING:
    from mock_server.inprocess.respx_router import Router
    from mock_server.serving.server import MockServer

GUARD: Final = pytest.StashKey[NetworkGuard]()
MODULES: Final = {
    "_upscaling_server": "mock_server.serving.server",
    "_upscaling_router": "mock_server.inprocess.respx_router",
}
"""The module of each fixture that the public ones are made of."""
NO_RESPX: Final = "upscaling_api needs respx: pip install 'octo-upscaler[mock]'"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of pytest's configuration."""
    parser.addini("upscaling_tokens", "tokens that the mock accepts", type="args")
    parser.addini("upscaling_scenario", "TOML file with the mock's initial state, from here")
    parser.addini("upscaling_seed", "seed of the mock's random faults")
    parser.addini(
        "upscaling_guard",
        "whether a request to OctoAI's real hosts fails its test",
        type="bool",
        default=True,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the guard."""
    if config.getini("upscaling_guard"):
        # Before tests are collected: a test module may send requests when it is imported.
        config.stash[GUARD] = guard = NetworkGuard()
        guard.start()
        config.add_cleanup(guard.stop)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Import what the fixtures need, if there is a test with one of them.

    Before any test: some packages cannot be imported while a test has frozen the time.
    """
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture in MODULES.keys() & used:
        # Without respx the fixture itself says what is missing.
        with suppress(ModuleNotFoundError):
            import_module(MODULES[fixture])
        from mock_server.mock import Mock

        Mock()  # FastAPI imports more for the first routes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the set-up of fixtures."""
    return (yield from _guarded(item.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the test."""
    return (yield from _guarded(item.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the teardown of fixtures."""
    return (yield from _guarded(item.config))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for requests outside of all tests, as by a thread or a module."""
    guard = session.config.stash.get(GUARD, None)
    report = guard.take_report() if guard else ""
    if report:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nERROR: outside of all tests, {report}")


def _guarded(config: pytest.Config) -> Generator[None, object, object]:
    """Run a phase of a test, and fail it for blocked requests, even if it caught the exception."""
    guard = config.stash.get(GUARD, None)
    if guard is None:
        return (yield)
    guard.hook_imported()
    try:
        result = yield
    except BaseException as error:
        report = guard.take_report()
        # A skip would hide the request.
        if report and isinstance(error, pytest.skip.Exception):
            pytest.fail(report, pytrace=False)
        # The error may be the guard's own, which has the report in it.
        if report and report not in str(error):
            error.add_note(report)
        raise
    report = guard.take_report()
    if report:
        pytest.fail(report, pytrace=False)
    return result


@pytest.fixture(scope="session")
def _upscaling_server(pytestconfig: pytest.Config) -> "Iterator[MockServer]":
    from mock_server.serving.server import MockServer

    with MockServer(**_mock_options(pytestconfig)) as server:
        yield server


@pytest.fixture
def upscaling_mock(_upscaling_server: "MockServer") -> "MockServer":
    """A mock of the Upscaling API at `upscaling_mock.url`, with `upscaling_mock.token`.

    The server is the same for all tests, and is reset before each.
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
        pytest.fail(NO_RESPX, pytrace=False)
    from mock_server.mock import Mock

    return routes(Mock(**_mock_options(pytestconfig)))


@pytest.fixture
def upscaling_api(_upscaling_router: "Router") -> "Iterator[Router]":
    """Routes of respx that answer https://image.octoai.run; the mock is `upscaling_api.mock`."""
    _upscaling_router.mock.reset()
    with _upscaling_router as api:
        yield api


def _mock_options(config: pytest.Config) -> dict[str, Any]:
    """Return the arguments of `Mock` in the configuration; raises UsageError."""
    scenario, seed = config.getini("upscaling_scenario"), config.getini("upscaling_seed")
    folder = config.inipath.parent if config.inipath else config.rootpath
    try:
        seed = int(seed) if seed else None
    except ValueError as error:
        raise pytest.UsageError("upscaling_seed must be an integer") from error
    return {
        "tokens": config.getini("upscaling_tokens") or None,
        "scenario": folder / Path(scenario) if scenario else None,
        "seed": seed,
    }
