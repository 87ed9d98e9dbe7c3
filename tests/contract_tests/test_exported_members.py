"""What is public in `contract_tests`, and that it is imported only when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import contract_tests
from contract_tests.cli import main
from contract_tests.oracle.rules import RULES, Rule, Source
from contract_tests.report.report import Report

MEMBERS = {"RULES": RULES, "Report": Report, "Rule": Rule, "Source": Source, "main": main}


def test_the_public_names_are_these() -> None:
    assert list(contract_tests.__all__) == dir(contract_tests) == sorted(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    assert getattr(contract_tests, name) is MEMBERS[name]


def test_no_module_hides_a_public_name() -> None:
    """An imported submodule becomes an attribute of its package, before `__getattr__` is asked."""
    folder = Path(contract_tests.__file__).parent
    assert {path.stem for path in folder.iterdir()}.isdisjoint(contract_tests.__all__)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Verdict'"):
        _ = contract_tests.Verdict


def test_the_package_is_typed() -> None:
    assert (Path(contract_tests.__file__).parent / "py.typed").exists()


def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = """
import sys
before = set(sys.modules)
import contract_tests
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert new <= {"contract_tests", *sys.stdlib_module_names}, new
contract_tests.RULES, contract_tests.Report, contract_tests.main
heavy = {"hypothesis", "pytest", "httpx", "numpy", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
