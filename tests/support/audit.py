"""Look up the pinned and the oldest allowed versions in a database of vulnerabilities, if possible.

    python -m tests.support.audit

pip-audit itself succeeds even if it could look up nothing, so its report is read here. A version
that is known to be vulnerable is a failure, and the message says so if nothing was looked up.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PINNED: Final = (ROOT / "constraints.txt", *sorted((ROOT / "locks").glob("*.txt")))
"""What is installed here, and in Modal's images, which have more: NVIDIA's packages."""
RUN: Final = ("engine", "modal", "mock", "contract")
"""The extras of users; the others are for developers."""
TIMEOUT_S: Final = 300
NEWLINE: Final = "\n"


def pins(text: str) -> dict[str, str]:
    """The version of each package that a file of requirements names."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def pinned() -> list[str]:
    """The requirements of all files, each once, without the hashes that not all of them have."""
    found = {pin for file in PINNED for pin in pins(file.read_text()).items()}
    return [f"{name}=={version}" for name, version in sorted(found)]


def requirements(extras: Sequence[str] = RUN) -> list[Requirement]:
    """What the package requires, with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [project["optional-dependencies"][extra] for extra in extras]
    return [Requirement(line) for line in sum(named, project["dependencies"])]


def floors() -> list[str]:
    """The oldest version of each package that users may have beside this one."""
    oldest = {
        canonicalize_name(each.name): bound.version
        for each in requirements()
        for bound in each.specifier
        if bound.operator in (">=", "==", "~=")
    }
    return [f"{name}=={version}" for name, version in sorted(oldest.items())]


def verdict(report: dict[str, Any]) -> tuple[int, str]:
    """The exit status and the message for a report of pip-audit."""
    packages = report["dependencies"]
    audited = [package for package in packages if "skip_reason" not in package]
    told = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no version yet'}"
        for package in audited
        for fault in package["vulns"]
    ]
    if told:
        return 1, "\n".join(told)
    if not audited:
        return 0, "NOT AUDITED: the published vulnerabilities cannot be reached from here"
    unknown = [package["name"] for package in packages if package not in audited]
    rest = f"; not published and so not audited: {', '.join(unknown)}" if unknown else ""
    return 0, f"no known vulnerability in {len(audited)} packages{rest}"


def audit(versions: list[str]) -> tuple[int, str]:
    """The exit status and the message for these versions, of which no package has two."""
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", "/dev/stdin", *options]
    try:
        done = subprocess.run(
            command,
            input=NEWLINE.join(versions),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        return verdict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return 0, f"NOT AUDITED: no answer within {TIMEOUT_S} seconds"
    except json.JSONDecodeError:
        return 0, f"NOT AUDITED: {done.stderr.strip().rpartition(NEWLINE)[2]}"


def main() -> int:
    found = {"pinned": audit(pinned()), "oldest allowed": audit(floors())}
    for which, (_, words) in found.items():
        sys.stdout.write(f"{which}: {words}\n")
    return max(status for status, _ in found.values())


if __name__ == "__main__":
    sys.exit(main())
