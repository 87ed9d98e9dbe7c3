"""Atomic writing, whether two paths are the same file, and how names are printed."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from upscaler.files import atomic_write, identity, printable

pytestmark = pytest.mark.dev

WRITER = """
import sys
from pathlib import Path
from upscaler.files import atomic_write

_, path, letter, size = sys.argv
for _ in range(100):
    with atomic_write(Path(path)) as file:
        for _ in range(8):
            file.write(letter.encode() * (int(size) // 8))
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=examples(25))
@given(old=st.none() | st.binary(), parts=st.lists(st.binary(), max_size=5))
def test_after_the_block_the_file_is_what_was_written(
    old: bytes | None, parts: list[bytes]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.png")
        if old is not None:
            path.write_bytes(old)
        with atomic_write(path) as file:
            for part in parts:
                file.write(part)
        assert path.read_bytes() == b"".join(parts)
        assert names(path.parent) == ["result.png"]


def write_and_raise(path: Path, error: type[BaseException]) -> None:
    with atomic_write(path) as file:
        file.write(b"new")
        raise error


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_leaves_the_folder_as_it_was(
    error: type[BaseException], old: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "result.png"
    path.parent.mkdir()
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error):
        write_and_raise(path, error)
    assert names(path.parent) == ([] if old is None else ["result.png"])
    assert old is None or path.read_bytes() == old


def fails_to_write(path: Path, error: OSError) -> OSError:
    with pytest.raises(OSError) as raised, atomic_write(path):  # noqa: PT011
        raise error
    return raised.value


def test_an_error_of_the_writing_names_the_file_and_not_its_part(tmp_path: Path) -> None:
    """A write that fails has no filename; that of a rename is the part's."""
    path = tmp_path / "result.png"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error = fails_to_write(path, OSError(number, os.strerror(number)))
        assert (error.errno, error.filename) == (number, str(path))
    path.mkdir()
    with pytest.raises(IsADirectoryError) as raised, atomic_write(path):
        pass
    assert raised.value.filename == str(path)


def test_a_folder_that_cannot_be_made_is_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for path in (tmp_path / "notes" / "a.png", tmp_path / "notes" / "x" / "a.png"):
        with pytest.raises(OSError) as raised, atomic_write(path):  # noqa: PT011
            pass
        assert raised.value.filename == str(path)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone", "other.png"), OSError("of a codec")]
)
def test_an_error_of_another_file_is_passed_on(error: OSError, tmp_path: Path) -> None:
    assert fails_to_write(tmp_path / "result.png", error) is error


def test_the_old_file_is_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_no_file_has_the_name_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.exists()


def test_folders_are_made_as_needed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.png"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "result.png" / "inside").mkdir(parents=True)
    with pytest.raises(OSError), atomic_write(tmp_path / "result.png") as file:  # noqa: PT011
        file.write(b"new")
    assert names(tmp_path) == ["result.png"]
    assert names(tmp_path / "result.png") == ["inside"]


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127], ids=["ascii", "two-byte letters"])
def test_a_name_may_be_as_long_as_the_system_takes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
    assert (tmp_path / name).read_bytes() == b"new"


def test_two_blocks_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    with atomic_write(path) as first:
        with atomic_write(path) as second:
            first.write(b"first")
            second.write(b"second one")
        assert path.read_bytes() == b"second one"
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["result.png"]


def test_whoever_reads_while_processes_write_sees_a_whole_file(tmp_path: Path) -> None:
    path, size = tmp_path / "result.bin", 800_000
    path.write_bytes(b"0" * size)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter, str(size)])
        for letter in "12"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()
        assert len(data) == size
        assert len(set(data)) == 1
        seen.add(data[:1])
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(seen) > 1, "nothing was written while this test looked"
    assert names(tmp_path) == ["result.bin"]


@pytest.mark.parametrize("there", [True, False])
def test_other_spellings_of_a_path_are_the_same(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    if there:
        Path("folder/a.png").touch()
    spellings = ["folder/a.png", "./folder/../folder/a.png", "link/a.png", f"{tmp_path}/link/a.png"]
    assert len({identity(Path(spelling)) for spelling in spellings}) == 1


def test_links_of_both_kinds_are_the_file_they_lead_to(tmp_path: Path) -> None:
    path, soft, hard = (tmp_path / name for name in ("a.png", "soft.png", "hard.png"))
    path.touch()
    soft.symlink_to(path)
    hard.hardlink_to(path)
    assert identity(path) == identity(soft) == identity(hard)


def test_a_link_to_nothing_is_the_path_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to("missing.png")
    assert identity(link) == identity(tmp_path / "missing.png")
    assert identity(link) != identity(tmp_path / "other.png")


def test_files_alike_in_content_are_not_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "missing.png", "folder/missing.png")]
    for path in paths[:2]:
        path.write_bytes(b"alike")
    assert len({identity(path) for path in paths}) == len(paths)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.png", "a b.png"),
        ("日本 é\u3000\u202f😀.png", "日本 é\u3000\u202f😀.png"),
        ("a\nb\r\t.png", "a\\nb\\r\\t.png"),
        ("\x1b]0;title\x07\x9b2J\x7f", "\\x1b]0;title\\x07\\x9b2J\\x7f"),
        ("\u202egnp.exe\u2066\u200f", "\\u202egnp.exe\\u2066\\u200f"),
        ("\u2028\u2029\u0085", "\\u2028\\u2029\\x85"),
        (b"\xff\x80.png".decode("utf-8", "surrogateescape"), "\\xff\\x80.png"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_not_show_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(st.characters()))
def test_any_name_is_printable_on_one_line(name: str) -> None:
    """Whatever is left is shown by str.isprintable's rule, or a space of another width."""
    shown = printable(name)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    shown.encode()
