"""What is public in `mock_server`, and that it is imported only when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import mock_server


def test_the_public_names_are_these() -> None:
    assert list(mock_server.__all__) == dir(mock_server) == [
        "Clock",
        "Entry",
        "FaultError",
        "Mock",
        "MockServer",
        "PollScript",
        "Router",
        "Scenario",
        "Transport",
        "routes",
    ]  # fmt: skip


@pytest.mark.parametrize("name", mock_server.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(mock_server, name).__name__ == name
    assert getattr(mock_server, name).__module__.startswith("mock_server.")
    assert getattr(mock_server, name).__doc__


def test_no_module_hides_a_public_name() -> None:
    """An imported submodule becomes an attribute of its package, before `__getattr__` is asked."""
    folder = Path(mock_server.__file__).parent
    assert {path.stem for path in folder.iterdir()}.isdisjoint(mock_server.__all__)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Mook'"):
        _ = mock_server.Mook


def test_the_package_is_typed() -> None:
    assert (Path(mock_server.__file__).parent / "py.typed").exists()


def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = """
import sys
before = set(sys.modules)
import mock_server
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert new <= {"mock_server", *sys.stdlib_module_names}, new
mock_server.Clock
assert "fastapi" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
