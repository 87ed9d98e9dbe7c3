"""What is made of a report of pip-audit's."""

import tomllib
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.support.audit import floors, pinned, pins, requirements, verdict
from tests.support.paths import ROOT

pytestmark = pytest.mark.dev

FINE = {"name": "fine", "version": "1", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}
FAULTY = {
    "name": "faulty",
    "version": "2",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["2.1", "3"], "aliases": []},
        {"id": "PYSEC-2", "fix_versions": [], "aliases": []},
    ],
}


def judged(*packages: dict[str, Any]) -> tuple[int, str]:
    return verdict({"dependencies": list(packages), "fixes": []})


def test_a_vulnerable_version_is_a_failure_with_what_mends_it() -> None:
    status, words = judged(FINE, FAULTY, UNKNOWN)
    assert status == 1
    assert words.splitlines() == [
        "faulty 2: PYSEC-1, mended in 2.1, 3",
        "faulty 2: PYSEC-2, mended in no version yet",
    ]


def test_what_was_looked_up_is_told_apart_from_what_was_not() -> None:
    assert judged(FINE, FINE) == (0, "no known vulnerability in 2 packages")
    assert judged(FINE, UNKNOWN)[1].endswith("not audited: unknown")
    status, words = judged(UNKNOWN, UNKNOWN)
    assert status == 0
    assert words.startswith("NOT AUDITED")


def test_what_modals_images_install_is_looked_up_as_well() -> None:
    names = [requirement.partition("==")[0] for requirement in pinned()]
    assert {"pytest", "torch", "nvidia-cublas", "cuda-bindings"} <= {*names}
    assert len(names) == len({*names}), "pip-audit refuses two versions of one package"


def test_the_oldest_allowed_versions_are_looked_up_as_well() -> None:
    oldest = dict(each.split("==") for each in floors())
    assert oldest.keys() == {canonicalize_name(each.name) for each in requirements()}
    assert oldest["torch"] < pins((ROOT / "constraints.txt").read_text())["torch"]


def test_pinned_versions_are_ones_that_the_package_allows() -> None:
    versions = pins((ROOT / "constraints.txt").read_text())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for each in requirements([*extras]):
        name = canonicalize_name(each.name)
        if name != "triton":  # torch for CUDA names its version
            assert each.specifier.contains(versions[name]), each
