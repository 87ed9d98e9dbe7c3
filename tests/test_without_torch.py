"""Without torch everything but the engine imports, and what needs the engine says so when asked."""

import importlib
import pkgutil
from importlib.util import find_spec

import pytest

import contract_tests
import mock_server
import upscaler
from tests.support.paths import ROOT
from upscaler.cli import main

pytestmark = pytest.mark.base

MODULES = [
    "modal_app",
    *(
        module.name
        for package in (upscaler, mock_server, contract_tests)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        # Written for a pytest of their own, with marks of their own.
        if not module.name.startswith("contract_tests.suite.test_")
    ),
]
# Some of these import without torch: in `bench`, what starts the processes that need it.
MAY_NEED_TORCH = ("upscaler.engine", "upscaler.bench", "upscaler.modal.worker")


@pytest.fixture(scope="module", autouse=True)
def _torch_is_not_here() -> None:
    """What follows says nothing beside torch, and would serve for ever."""
    assert find_spec("torch") is None, "run this in the base environment, as `make test` does"


@pytest.mark.parametrize("name", MODULES)
def test_only_the_engine_needs_torch_to_be_imported(name: str) -> None:
    missing = None
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
    may_lack = (
        {"torch", "safetensors", "psutil", "triton", "numba", "llvmlite"}
        if name.startswith(MAY_NEED_TORCH)
        else set()
    )
    assert missing is None or missing in may_lack


@pytest.mark.parametrize(
    "command",
    [["weights"], ["weights", "fetch"], ["image", "PHOTO"], ["serve", "--port", "0"], ["bench"]],
)
def test_a_command_that_needs_torch_says_what_to_install(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    photo = ROOT / "docs" / "photo.png"
    assert main.main([str(photo) if word == "PHOTO" else word for word in command]) == 1
    assert "pip install '.[engine]' in a clone" in capsys.readouterr().err
