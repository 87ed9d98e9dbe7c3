"""One place for one fact: what a new model, format, limit or setting takes, on a copy of the code.

Each test edits a copy of the packages, and runs a program of tests/support/one_place in it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(120)

PACKAGES: Final = ("upscaler", "mock_server", "contract_tests")


class Edit(NamedTuple):
    """`new` in place of `old`, which a file has once."""

    file: str
    old: str
    new: str


def insertion(file: str, place: str, added: str) -> Edit:
    """An edit that puts `added` before `place`."""
    return Edit(file, place, added + place)


SEVENTH: Final = insertion(
    "upscaler/models.py",
    "\n    def __new__(cls, row: str | Model)",
    """
    X8 = Model(
        "real-esrgan-seventh",
        "For tests.",
        Compact(scale=4, num_conv=24),
        receptive_field=26,
        halo=26,
        official=Checkpoint("v9/seventh.pth", 5_000_000, "0" * 64),
    )
""",
)
SEVENTH_OF_THE_ORACLE: Final = insertion(
    "contract_tests/oracle/values.py",
    ')\n"""The names of models, the default first (REQ-8)."""',
    '    "real-esrgan-seventh",\n',
)
WEBP: Final = insertion(
    "upscaler/formats.py",
    "\n    def __new__(cls, row: str | OutputFormat)",
    '    WEBP = OutputFormat("webp", "image/webp", (".webp",), 16_383, "Small.")\n',
)
WEBP_WRITER: Final = insertion(
    "upscaler/imaging/encode.py",
    "WRITERS: Final",
    """
def write_webp(strips, shape, options, metadata):
    from io import BytesIO
    from numpy import concatenate
    from PIL import Image

    file = BytesIO()
    image = Image.fromarray(concatenate([strip.copy() for strip in strips]))
    image.save(file, "WEBP", lossless=True, exact=True)
    yield file.getvalue()


""",
)
WEBP_ROW: Final = insertion(
    "upscaler/imaging/encode.py",
    '}\n"""The writer of each format.',
    "    ImageEncoding.WEBP: write_webp,\n",
)
LIMIT: Final = ("MAX_OUTPUT_PX: Final = 8192", "MAX_OUTPUT_PX: Final = 10_000")
LARGER: Final = (
    Edit("upscaler/api/limits.py", *LIMIT),
    Edit("contract_tests/oracle/limits.py", *LIMIT),
)
POLISH: Final = insertion(
    "upscaler/settings.py",
    "    public_url: str | None = setting(",
    '    polish: int = setting("UPSCALER_POLISH", _length, 3)\n',
)
SPARES: Final = insertion(
    "upscaler/modal/config.py",
    "    proxy_auth: bool = setting(",
    '    spares: int = setting("UPSCALER_SPARES", _number(0, 9), 3)\n',
)

UNRELATED: Final = {
    "upscaler/bench/peak.py": "the side of a matrix that a GPU multiplies",
    "upscaler/cli/options.py": "the largest image of a benchmark, which is no request",
    "upscaler/modal/config.py": "the memory of a container in MiB",
    "upscaler/service/download_streams.py": "the bits of a key exchange",
}
"""The files that have the number of the limit, 8192, in another meaning, once each."""


def run(folder: Path, program: str, *edits: Edit) -> subprocess.CompletedProcess[str]:
    """Run `python -m program` in `folder`, which gets a copy of the packages with these edits."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    for edit in edits:
        path = folder / edit.file
        text = path.read_text()
        assert text.count(edit.old) == 1, f"{edit.old!r} is not once in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new))
    return subprocess.run(
        [sys.executable, "-m", *program.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def check(folder: Path, program: str, *edits: Edit) -> None:
    """Require that a program of tests/support/one_place ends well."""
    done = run(folder, f"tests.support.one_place.{program}", *edits)
    assert done.returncode == 0, done.stderr


def test_a_seventh_model_is_one_entry(tmp_path: Path) -> None:
    check(tmp_path, "seventh_model", SEVENTH)


@pytest.mark.slow
@pytest.mark.torch
def test_the_weights_of_a_seventh_model_need_no_other_entry(tmp_path: Path) -> None:
    smallest = SEVENTH.new.replace("num_conv=24", "num_conv=1")  # it upscales an image
    check(tmp_path, "seventh_weights", SEVENTH._replace(new=smallest))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "edits"),
    [
        ("both", (SEVENTH, SEVENTH_OF_THE_ORACLE)),
        ("mock", (SEVENTH,)),
        ("oracle", (SEVENTH_OF_THE_ORACLE,)),
    ],
)
def test_a_seventh_model_is_one_entry_of_the_oracle_too(
    tmp_path: Path, place: str, edits: tuple[Edit, ...]
) -> None:
    """With the model in both places it is drawn and accepted; in one alone that is reported."""
    check(tmp_path, f"seventh_in_the_contract {place}", *edits)


def test_a_third_format_is_a_row_and_a_writer(tmp_path: Path) -> None:
    check(tmp_path, "third_format", WEBP, WEBP_WRITER, WEBP_ROW)


def test_a_format_without_a_writer_fails_at_import(tmp_path: Path) -> None:
    done = run(tmp_path, "upscaler.imaging.encode", WEBP)
    assert done.returncode == 1
    assert "formats without a writer in" in done.stderr
    assert done.stderr.endswith(": webp\n")


@pytest.mark.slow
def test_a_larger_output_is_one_constant_here_and_one_of_the_oracle(tmp_path: Path) -> None:
    check(tmp_path, "larger_limit", *LARGER)


def test_no_other_line_repeats_the_limit() -> None:
    """Neither it nor its neighbours, in any source of Python or of the page."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in (".py", ".js", ".html", ".css")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"(?<![0-9])8[_,]?19[123](?![0-9])", line)
    ]
    limits = [line for line in found if LIMIT[0] in line]
    assert [line.partition(":")[0] for line in limits] == [
        "upscaler/api/limits.py",
        "contract_tests/oracle/limits.py",
    ]
    others = [line for line in found if line not in limits]
    assert sorted(line.partition(":")[0] for line in others) == sorted(UNRELATED), others


def test_another_setting_is_one_field(tmp_path: Path) -> None:
    check(tmp_path, "another_setting", POLISH, SPARES)


def test_no_variable_is_read_or_declared_twice() -> None:
    """Whatever reads the environment of the process by a name of its own is listed here."""
    sources = {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for package in ("upscaler", "mock_server")
        for path in (ROOT / package).rglob("*.py")
    }
    declared = [
        name
        for text in sources.values()
        for name in re.findall(r"\bsetting\(\s*\"(UPSCALER_[A-Z_]+)\"", text)
    ]
    assert declared
    assert len(declared) == len(set(declared))
    readers = {name for name, text in sources.items() if re.search(r"\benviron\b|\bgetenv\b", text)}
    assert readers == {
        "mock_server/serving/fast_start.py",  # pydantic's own variable
        "mock_server/testing/proxies.py",  # the proxies' variables
        "upscaler/cli/workers.py",  # of OpenMP, which processes share
        "upscaler/environment.py",
        "upscaler/modal/bucket.py",  # AWS's own variables
        "upscaler/modal/images.py",  # Modal's own variable
        "upscaler/modal/smoke.py",  # a client, and its token
        "upscaler/service/server/connection.py",  # uvicorn's own variable
    }
