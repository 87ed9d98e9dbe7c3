"""What is published: under whose name, in which version, and by which steps."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.paths import ROOT

OWNER: Final = re.compile(r"\bOWNER\b")
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: Final[dict[str, Any]] = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "release.yml").read_text()
)


def texts() -> dict[str, str]:
    """The text of each file that belongs to the repository, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is not a clone")
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data:
            found[name] = data.decode()
    return found


@pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("make"), reason="make is not installed"
)
def test_one_command_names_the_owner_everywhere(tmp_path: Path) -> None:
    named = {name: text for name, text in texts().items() if OWNER.search(text)}
    if "pyproject.toml" not in named:
        pytest.skip("the owner has been named")
    for name, text in named.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    owned = subprocess.run(
        ["make", "-s", "owner", "NAME=Some-Body"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert owned.returncode == 0, owned.stderr
    for name, before in named.items():
        after = (tmp_path / name).read_text()
        if name in ("Makefile", "tests/test_publishing.py"):
            assert after == before
            continue
        assert not OWNER.search(after), name
        # Registries of images have no capitals.
        assert after == before.replace("ghcr.io/OWNER/", "ghcr.io/some-body/").replace(
            "OWNER", "Some-Body"
        )
    assert not [*tmp_path.rglob("*.new")]


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b"])
def test_no_owner_is_made_of_what_is_no_name(name: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    owned = subprocess.run(
        ["make", "-s", "owner", f"NAME={name}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert owned.returncode != 0
    assert "make owner NAME=octocat" in owned.stdout


def test_an_archive_has_the_version_of_its_tag() -> None:
    """As GitHub makes one for whoever uses the Action, where there is no history."""
    template = (ROOT / ".git_archival.txt").read_text()
    assert "describe-name: $Format:%(describe:tags=true,match=v[0-9]*.[0-9]*.[0-9]*)$" in template
    assert ".git_archival.txt  export-subst" in (ROOT / ".gitattributes").read_text()


def test_nothing_is_published_before_everything_is_tested() -> None:
    jobs = RELEASE["jobs"]

    def before(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else {*needs}
        return direct.union(*map(before, direct))

    assert before("pypi") >= {"test", "build", "images"}
    assert before("publish") >= {"pypi"}
    assert before("site") >= {"pypi"}
    assert before("images") >= {"test"}


def test_a_job_of_a_release_may_only_what_it_does() -> None:
    assert RELEASE["permissions"] == {"contents": "read"}
    may = {
        name: {right for right, how in job.get("permissions", {}).items() if how == "write"}
        for name, job in RELEASE["jobs"].items()
    }
    assert may == {
        "test": set(),
        "build": {"id-token", "attestations"},
        "images": {"packages", "id-token", "attestations"},
        "pypi": {"id-token"},
        "publish": {"contents"},
        "site": {"pages", "id-token"},
    }


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: path.name)
def test_names_from_outside_are_never_part_of_a_script(file: Path) -> None:
    """A tag or a branch may have any name, also one that is a command."""
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", "")


def test_the_changelog_is_one_by_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall("^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", each) for each in versions[1:])
    assert {*re.findall("^### (.*)$", text, re.MULTILINE)} <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip
    links = re.findall(r"^\[(.+?)\]: https://", text, re.MULTILINE)
    assert links == [each.partition("]")[0][1:] for each in versions]
