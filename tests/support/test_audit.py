"""What is made of a report of pip-audit's."""

from typing import Any

import pytest

from tests.support.audit import pinned, verdict

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
