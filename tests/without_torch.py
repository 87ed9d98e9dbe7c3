"""Run where torch is not installed: everything but the engine imports, and says so when asked.

Named so that pytest takes it only when told to: `make test` does, in an environment of its own.
"""

import importlib
import importlib.util
import pkgutil

import pytest

import mock_server
import upscaler
from tests.support.paths import ROOT
from upscaler.cli import main

ENGINE = {
    f"upscaler.{name}"
    for name in (
        "convolution",
        "devices",
        "engine",
        "engines",
        "layers",
        "memory",
        "nets",
        "samples",
        "streams",
        "weights",
        "worker",
    )
} | {f"upscaler.bench.{name}" for name in ("peak", "peers", "reference", "worker")}
TORCH_FREE = {
    module.name
    for package in (upscaler, mock_server)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
} - ENGINE


def test_torch_is_not_here() -> None:
    assert importlib.util.find_spec("torch") is None


@pytest.mark.parametrize("name", sorted(TORCH_FREE | {"mock_server", "contract_tests"}))
def test_it_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", sorted(ENGINE))
def test_only_the_engine_needs_torch(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


@pytest.mark.parametrize(
    "command",
    [["weights"], ["weights", "fetch"], ["image", "PHOTO"], ["serve", "--port", "0"], ["bench"]],
)
def test_a_command_that_needs_torch_says_what_to_install(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    photo = ROOT / "docs" / "photo.png"
    assert main.main([str(photo) if word == "PHOTO" else word for word in command]) == 1
    assert "pip install 'octo-upscaler[engine]'" in capsys.readouterr().err
