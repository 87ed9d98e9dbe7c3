"""What `upscaler` exports, and that importing it costs next to nothing."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import upscaler
from upscaler.errors import UpscalerError
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

MEMBERS = {
    "LocalBackend": LocalBackend,
    "Settings": Settings,
    "UpscalerError": UpscalerError,
    "UpscalingModel": UpscalingModel,
    "__version__": version("octo-upscaler"),
    "create_app": create_app,
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    assert getattr(upscaler, name) == MEMBERS[name]


def test_nothing_else_is_public() -> None:
    assert set(upscaler.__all__) == {*MEMBERS, "Engine"}
    assert dir(upscaler) == sorted(upscaler.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'upscaler' has no attribute 'Enlarger'"):
        upscaler.Enlarger  # noqa: B018


def test_importing_the_package_loads_neither_torch_nor_a_web_framework() -> None:
    program = (
        "import sys, time; began_s = time.process_time(); import upscaler\n"
        "took_s = time.process_time() - began_s\n"
        "heavy = {'torch', 'fastapi', 'pydantic', 'numpy', 'PIL'} & set(sys.modules)\n"
        "print(sorted(heavy), took_s < 0.05)"
    )
    # Processor time, which does not grow as much on a busy machine, and the least of a few.
    printed = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        for _ in range(5)
    }
    assert b"[] True\n" in printed
