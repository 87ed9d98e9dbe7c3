"""The pytest plugin: `upscaling_mock`, `upscaling_api`, and a guard of OctoAI's real hosts.

pytest imports this in every suite of an environment in which the mock is installed, so the mock
itself is imported only when a fixture is used.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from mock_server.testing.network_guard import NetworkGuard

if TYPE_CHECKING:
    from mock_server.inprocess.respx_router import Router
    from mock_server.serving.server import MockServer

GUARD: Final = pytest.StashKey[NetworkGuard]()
SERVERS: Final = ("upscaling_mock", "upscaling_mock_module", "upscaling_mock_session")
ROUTERS: Final = ("upscaling_api", "upscaling_api_module", "upscaling_api_session")


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
    """Prepare for the fixtures, if there is a test with one of them.

    Before any test: some packages cannot be imported while a test has frozen the time.
    """
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if session.config.option.collectonly or used.isdisjoint((*SERVERS, *ROUTERS)):
        return
    with suppress(Exception):  # whatever fails here fails in each test that needs it, too
        from mock_server.mock import Mock

        Mock()  # FastAPI imports more for the first routes
        if not used.isdisjoint(SERVERS):
            import mock_server.serving.server
        if not used.isdisjoint(ROUTERS):
            import mock_server.inprocess.respx_router  # noqa: F401
    _replace(session.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the set-up of fixtures."""
    return (yield from _guarded(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the test."""
    return (yield from _guarded(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the teardown of fixtures."""
    return (yield from _guarded(item))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for requests outside of all tests, as by a thread or a module."""
    guard = session.config.stash.get(GUARD, None)
    report = guard.take_report() if guard else ""
    if report:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nERROR: outside of all tests, {report}")


def _guarded(item: pytest.Item) -> Generator[None, object, object]:
    """Run a phase of a test, and fail it for blocked requests, even if it caught the exception."""
    guard = item.config.stash.get(GUARD, None)
    if guard:
        guard.replace_imported()
    try:
        result = yield
    except BaseException as error:
        report = guard.take_report() if guard else ""
        # A skip would hide the request.
        if report and isinstance(error, pytest.skip.Exception):
            pytest.fail(report, pytrace=False)
        # The error may be the guard's own, which has the report in it.
        if report and report not in str(error):
            error.add_note(report)
        for note in _proxy_notes(item):
            error.add_note(note)
        raise
    report = guard.take_report() if guard else ""
    if report:
        pytest.fail(report, pytrace=False)
    return result


def _proxy_notes(item: pytest.Item) -> Iterator[str]:
    """Say that there is a proxy, for a test that failed without having reached its mock."""
    values = getattr(item, "funcargs", {})
    for server in (values[name] for name in SERVERS if name in values):
        if server.journal.entries:
            continue
        from mock_server.testing.proxies import proxy_of

        if found := proxy_of(server.url):
            yield f"nothing has reached {server.url}: {found}"


def _replace(config: pytest.Config) -> None:
    """Guard what only matters where the mock is used."""
    guard = config.stash.get(GUARD, None)
    if guard:
        guard.replace()


@contextmanager
def _serving(config: pytest.Config) -> "Iterator[MockServer]":
    """Serve a mock, until the end of the session."""
    from mock_server.serving.server import MockServer

    _replace(config)  # for a fixture that is asked for by name, while tests run
    with _failing_in_a_sentence():
        mock = MockServer(**_mock_options(config))
    with mock as server:
        yield server


def _routes(config: pytest.Config) -> "Router":
    """Return routes to a mock of their own."""
    try:
        from mock_server.inprocess.respx_router import routes
    except ModuleNotFoundError as error:
        if error.name != "respx":
            raise
        from upscaler.install import install_command

        pytest.fail(f"upscaling_api needs respx: {install_command('mock')}", pytrace=False)
    from mock_server.mock import Mock

    _replace(config)
    with _failing_in_a_sentence():
        return routes(Mock(**_mock_options(config)))


@contextmanager
def _failing_in_a_sentence() -> Iterator[None]:
    """Fail without a traceback, which would only have the mock's own code in it."""
    from upscaler.errors import InvalidSetting

    try:
        yield
    except (InvalidSetting, OSError) as error:
        why = str(error)
        if isinstance(error, OSError) and error.filename:
            why = f"{error.filename}: {error.strerror}"
        # Not by pytest.fail(), in which the error would stand before the sentence.
        raise pytest.fail.Exception(f"the mock cannot start: {why}", pytrace=False) from None


@pytest.fixture(scope="session")
def _upscaling_server(pytestconfig: pytest.Config) -> "Iterator[MockServer]":
    with _serving(pytestconfig) as server:
        yield server


@pytest.fixture
def upscaling_mock(_upscaling_server: "MockServer") -> "MockServer":
    """A mock of the Upscaling API at `upscaling_mock.url`, with `upscaling_mock.token`.

    The server is the same for all tests, and is reset before each. Where a proxy is set, clients
    reach it only if NO_PROXY names 127.0.0.1.
    """
    _upscaling_server.reset()
    return _upscaling_server


@pytest.fixture(scope="session")
def _upscaling_module_server(pytestconfig: pytest.Config) -> "Iterator[MockServer]":
    with _serving(pytestconfig) as server:
        yield server


@pytest.fixture(scope="module")
def upscaling_mock_module(_upscaling_module_server: "MockServer") -> "MockServer":
    """The same for fixtures of a module: another server, which is reset before each module."""
    _upscaling_module_server.reset()
    return _upscaling_module_server


@pytest.fixture(scope="session")
def upscaling_mock_session(pytestconfig: pytest.Config) -> "Iterator[MockServer]":
    """The same for fixtures of a session: another server, which only you reset."""
    with _serving(pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def _upscaling_router(pytestconfig: pytest.Config) -> "Router":
    return _routes(pytestconfig)


@pytest.fixture
def upscaling_api(_upscaling_router: "Router") -> "Iterator[Router]":
    """Routes of respx that answer https://image.octoai.run; the mock is `upscaling_api.mock`."""
    _upscaling_router.mock.reset()
    with _upscaling_router as api:
        yield api


@pytest.fixture(scope="module")
def upscaling_api_module(pytestconfig: pytest.Config) -> "Iterator[Router]":
    """The same for fixtures of a module, with another mock; `upscaling_api` overrides it."""
    with _routes(pytestconfig) as api:
        yield api


@pytest.fixture(scope="session")
def upscaling_api_session(pytestconfig: pytest.Config) -> "Iterator[Router]":
    """The same for fixtures of a session, with another mock; the other two go before it."""
    with _routes(pytestconfig) as api:
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
