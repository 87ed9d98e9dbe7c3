"""README.md and docs/: links hold, commands are valid, and examples run as they stand."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from contract_tests import cli as contract
from mock_server import MockServer
from mock_server.serving import cli as mock
from tests.support.consumer_suites import outcome
from tests.support.paths import PHOTO, ROOT
from tests.support.requirements import program
from upscaler.cli import options

DOCUMENTS: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README: Final = (ROOT / "README.md").read_text()
MAX_WORDS: Final = 1300
"""Of the README, which is for the first five minutes; the rest is in docs/."""
LINK: Final = re.compile(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)")
PARSERS: Final[dict[str, Callable[[list[str]], object]]] = {
    "upscaler": lambda words: options.parser().parse_args(words),
    "upscaler-mock": lambda words: mock._create_parser().parse_args(words),
    "upscaler-contract": lambda words: contract._parser().parse_args(words),
}


def section(document: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level."""
    level = heading.partition(" ")[0]
    return document.partition(f"\n{heading}\n")[2].partition(f"\n{level} ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, each as words, without what is set before them."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()"):
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    del words[0]
                # What follows `>` is a file, and `2` before it belongs to it.
                end = next((at for at, each in enumerate(words) if set(each) <= set("<>")), None)
                yield words[:end] if end is None or words[end - 1] != "2" else words[: end - 1]
                words = []
            else:
                words.append(word)


def anchors(document: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub makes them."""
    text = re.sub("```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall("^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def is_valid(name: str, words: list[str]) -> bool:
    """Whether a command's parser accepts these arguments."""
    try:
        PARSERS[name](words)
    except SystemExit as stop:  # with 0 by --version
        return not stop.code
    return True


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len(README.split()) <= MAX_WORDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for file, anchor in LINK.findall(document.read_text()):
        target = document.parent / file if file else document
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def test_links_on_pypi_lead_to_the_repository() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = README
    hooks = project["tool"]["hatch"]["metadata"]["hooks"]
    for each in hooks["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    home = project["project"]["urls"]["Homepage"]
    raw = home.replace("github.com", "raw.githubusercontent.com")
    assert f"]({raw}/main/docs/page.jpg)" in text
    assert f"]({home}/blob/main/docs/PERFORMANCE.md#on-a-gpu)" in text
    assert not LINK.search(text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_valid(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = re.findall("^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = document.read_text()
    indented = re.findall("^ {4}((?:upscaler|python -m) .*)$", text, re.MULTILINE)
    for script in blocks(text, "sh") + indented:
        for name, *words in filter(None, commands(script)):
            if name in PARSERS:
                assert is_valid(name, words), f"{words}: {capsys.readouterr().err}"
            elif name == "make":
                assert {word for word in words if "=" not in word} <= {*targets}, words
            elif name == "python" and words[0] == "-m":
                assert find_spec(words[1]), words


def test_commands_are_found() -> None:
    """Otherwise the test above would prove nothing."""
    script = (
        "(A=1 printf x; b < c) |\n  upscaler image - \\\n  --scale 2 2> log & # said\nmake 'a b'"
    )
    assert list(filter(None, commands(script))) == [
        ["printf", "x"],
        ["b"],
        ["upscaler", "image", "-", "--scale", "2"],
        ["make", "a b"],
    ]


def test_the_example_in_pytest(tmp_path: Path) -> None:
    (example,) = blocks(section(README, "## A mock, for tests of clients"), "python")
    (tmp_path / "test_it.py").write_text(example)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    came = outcome(tmp_path, "test_it.py")
    assert came.counts == {"passed": 1}, came.said


@pytest.mark.skipif(sys.platform == "win32" or not program("curl"), reason="curl is not installed")
def test_the_example_with_curl(tmp_path: Path) -> None:
    script = blocks(section(README, "## Serve the API"), "sh")[-1]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "photo.png").symlink_to(PHOTO)
    with MockServer(tokens=["secret"]) as server:
        script = script.replace("http://127.0.0.1:8000", f"--noproxy '*' {server.url}")
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True)
        server.assert_called_with(scale=2, init_image=PHOTO, times=1)
    assert (tmp_path / "photo-x2.png").read_bytes().startswith(b"\x89PNG")
