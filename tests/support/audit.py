"""Look up the pinned versions in a database of vulnerabilities, if it can be reached.

    python -m tests.support.audit

pip-audit itself succeeds even if it could look up nothing, so its report is read here. A version
that is known to be vulnerable is a failure, and the message says so if nothing was looked up.
"""

import json
import re
import subprocess
import sys
from typing import Any, Final

from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PINNED: Final = (ROOT / "constraints.txt", *sorted((ROOT / "locks").glob("*.txt")))
"""What is installed here, and in Modal's images, which have more: NVIDIA's packages."""
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


def main() -> int:
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", "/dev/stdin", *options]
    try:
        done = subprocess.run(
            command,
            input=NEWLINE.join(pinned()),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        status, words = verdict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        status, words = 0, f"NOT AUDITED: no answer within {TIMEOUT_S} seconds"
    except json.JSONDecodeError:
        status, words = 0, f"NOT AUDITED: {done.stderr.strip().rpartition(NEWLINE)[2]}"
    sys.stdout.write(f"{words}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
