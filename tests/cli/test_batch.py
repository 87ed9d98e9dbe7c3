"""Many images in one command: what is left, what stops it, and what it says in the end."""

import errno
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from upscaler import files
from upscaler.api.sizes import Size
from upscaler.cli import main
from upscaler.engine.engine import RowProgress
from upscaler.engine.pool import EnginePool
from upscaler.imaging import encode, other_writers
from upscaler.imaging.pixels import Pixels

MODEL: Final = "real-esrgan-animevideo-v3"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are resized: what a network makes of them is no matter here."""

    def upscale(
        self: EnginePool, pixels: Pixels, model: str, size: Size, progress: RowProgress, *_: object
    ) -> Iterator[Pixels]:
        progress(1, 1)
        yield np.array(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))

    monkeypatch.setattr(EnginePool, "upscale", upscale)
    monkeypatch.setattr(EnginePool, "load", lambda *_: "00")


def image(*args: str, scale: float = 1) -> int:
    return main.main(["image", "--model", MODEL, "--scale", str(scale), "--quiet", *args])


def results(folder: str = "upscaled") -> dict[str, tuple[tuple[int, int], int]]:
    """The size and inode of each result: one that is made anew is another file."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as result:
            result.load()
            found[path.name] = result.size, path.stat().st_ino
    return found


def failing(number: int, error: BaseException) -> Callable[..., Iterator[bytes]]:
    """An `encode_strips` that fails in the middle of the file with that number, from 1."""
    real = encode.encode_strips
    calls = 0

    def encode_strips(*args: Any, **options: Any) -> Iterator[bytes]:
        nonlocal calls
        calls += 1
        pieces = real(*args, **options)
        yield next(iter(pieces))
        if calls == number:
            raise error
        yield from pieces

    return encode_strips


def full() -> OSError:
    """What a write raises on a full disk: it has no filename."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_results_that_are_there_are_left_unless_they_are_to_be_made_again(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", "b.JPG") == 0
    first = results()
    assert capsys.readouterr().err == ""
    assert image("a.png", "b.JPG") == 0
    told = capsys.readouterr()
    assert results() == first
    assert told.out == ""
    assert re.fullmatch(r"upscaler: left 2 of 2, .*--again.*\n", told.err)
    assert image("a.png", "b.JPG", "--again") == 0
    again = results()
    assert again.keys() == first.keys()
    assert all(again[name] != first[name] for name in first)


def older(path: Path) -> None:
    os.utime(path, (0, 0))


def of_another_size(path: Path) -> None:
    with Image.open(path) as picture:
        picture.resize((260, 255)).save(path)


def of_another_format(path: Path) -> None:
    with Image.open(path) as picture:
        picture.save(path, "JPEG")


def no_image(path: Path) -> None:
    path.write_bytes(b"no image")


@pytest.mark.parametrize(
    "change", [older, of_another_size, of_another_format, no_image, Path.unlink]
)
def test_a_result_that_is_not_what_is_asked_for_is_made_anew(
    change: Callable[[Path], object], images: Path
) -> None:
    assert image("a.png", "b.JPG") == 0
    first = results()
    change(images / "upscaled" / "a.png")
    assert image("a.png", "b.JPG") == 0
    assert {name: size for name, (size, _) in results().items()} == {
        name: size for name, (size, _) in first.items()
    }
    with Image.open("upscaled/a.png") as result:
        assert result.format == "PNG"
    assert results()["b.png"] == first["b.png"]


def test_results_of_another_size_than_is_asked_for_are_made_anew(images: Path) -> None:
    assert image("a.png", "b.JPG") == 0
    assert image("a.png", "b.JPG", scale=2) == 0
    assert {size for size, _ in results().values()} == {(520, 512)}


def test_a_comparison_that_is_missing_is_made(images: Path) -> None:
    assert image("a.png", "b.JPG") == 0
    assert image("a.png", "b.JPG", "--before-after") == 0
    assert sorted(results()) == ["a-before-after.png", "a.png", "b-before-after.png", "b.png"]


def test_one_image_that_is_named_is_made_each_time(images: Path) -> None:
    """Whoever repeats that wants another result, as with another model."""
    assert image("a.png") == 0
    first = results()
    assert image("a.png") == 0
    assert results() != first


def test_scripts_are_told_what_is_left(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert image("a.png", "b.JPG") == 0
    capsys.readouterr()
    assert image("a.png", "b.JPG", "--json") == 0
    left = {"input": "a.png", "output": "upscaled/a.png", "width": 260, "height": 256, "left": True}
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == left


def test_an_interrupted_batch_goes_on_where_it_was(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("a.png", "c.png")
    with monkeypatch.context() as patch:
        patch.setattr(other_writers, "encode_strips", failing(2, KeyboardInterrupt()))
        assert image("a.png", "b.JPG", "c.png") == 130
    told = capsys.readouterr()
    assert told.err == (
        "upscaler: interrupted: 1 of 3 are done; run the same command again to continue\n"
    )
    assert sorted(os.listdir("upscaled")) == ["a.png"]  # noqa: PTH208
    first = results()
    assert image("a.png", "b.JPG", "c.png") == 0
    assert sorted(results()) == ["a.png", "b.png", "c.png"]
    assert results()["a.png"] == first["a.png"]


def test_a_full_disk_stops_the_batch_and_is_the_fault_of_no_image(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("a.png", "c.png")
    monkeypatch.setattr(other_writers, "encode_strips", failing(2, full()))
    assert image("a.png", "b.JPG", "c.png") == 1
    assert capsys.readouterr().err == (
        "upscaler: 1 of 3 failed:\n"
        "  upscaled/b.png: No space left on device\n"
        "upscaler: stopped there, and 1 of 3 not done: c.png\n"
    )
    assert sorted(results()) == ["a.png"]


def test_a_full_disk_is_told_to_scripts_for_each_image(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(other_writers, "encode_strips", failing(1, full()))
    assert image("a.png", "b.JPG", "--json") == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"input": "a.png", "error": "upscaled/a.png: No space left on device"},
        {"input": "b.JPG", "error": "not done: see the one before"},
    ]


def test_a_file_that_grows_too_large_is_told_by_the_name_of_the_result(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit of the system stands for a disk that is full in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert image("a.png", "b.JPG") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err == (
        "upscaler: 2 of 2 failed:\n"
        "  upscaled/a.png: File too large\n"
        "  upscaled/b.png: File too large\n"
    )
    assert results() == {}


FULL_DISK: Final = """
mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"
"""


@pytest.mark.slow
def test_a_disk_that_is_full_is_named(images: Path) -> None:
    """A real one, which only this command sees."""
    (images / "out").mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "out"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("needs a namespace of its own for a disk")
    command = [sys.executable, "-m", "tests.support.shallow_image", "a.png", "b.JPG", "-o", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*alone, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "  out/a.png: No space left on device\n" in done.stderr
    assert "1 of 2 not done: b.JPG\n" in done.stderr


def test_a_folder_that_becomes_a_file_is_told_by_the_name_of_the_result(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = files.read_image_file

    def then_changed(path: Path, *limit: int) -> bytes:
        (images / "upscaled").touch()
        return read(path, *limit)

    monkeypatch.setattr(files, "read_image_file", then_changed)
    assert image("a.png") == 1
    error = capsys.readouterr().err
    assert "\n  upscaled/a.png: File exists\n" in error
    assert ".part" not in error


def test_what_is_passed_over_is_said_in_the_end_and_is_no_failure(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "._a.png").write_bytes(b"what a Mac remembers")
    assert image(".") == 0
    assert capsys.readouterr().err == (
        "upscaler: passed over 2 files that are no images of a kind that is read: "
        "._a.png, notes.txt\n"
    )


def test_recursive_is_an_option(images: Path) -> None:
    (images / "in" / "x").mkdir(parents=True)
    (images / "a.png").rename(images / "in" / "x" / "a.png")
    assert image("in") == 1
    assert image("in", "--recursive", "-o", "big-v1.5/") == 0
    assert (images / "big-v1.5" / "x" / "a.png").is_file()


NAMES: Final = {
    "日本.png": "\\u65e5\\u672c.png",
    "a\nb\x1b[2J.png": "a\\nb\\x1b[2J.png",
    "\u202egnp.exe.png": "\\u202egnp.exe.png",
    os.fsdecode(b"bad\xff.png"): "bad\\xff.png",
    "é.png": "é.png",
}
"""Names of files, and what is printed of them in cp1252."""


@pytest.fixture
def strange(images: Path) -> Path:
    """A folder with an image of each of NAMES."""
    (images / "in").mkdir()
    for name in NAMES:
        shutil.copy("a.png", images / "in" / name)
    return images


def in_cp1252(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What is written to standard output from here on, encoded as on many Windows machines."""
    binary = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, "cp1252"))
    return binary


def test_names_that_cannot_be_printed_are_escaped_and_end_nothing(
    strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = in_cp1252(monkeypatch)
    assert image("in") == 0
    lines = stdout.getvalue().decode("cp1252").splitlines()
    assert sorted(re.sub(r" \(.*", "", line) for line in lines) == sorted(
        f"in/{shown} -> upscaled/{shown}" for shown in NAMES.values()
    )
    assert len(results()) == len(NAMES)


def test_names_are_whole_in_json(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        (strange / "in" / name).write_bytes(b"no image")
    stdout = in_cp1252(monkeypatch)
    assert image("in", "--json") == 1
    said = [json.loads(line) for line in stdout.getvalue().decode("ascii").splitlines()]
    assert {facts["input"] for facts in said} == {f"in/{name}" for name in NAMES}


def test_names_are_escaped_in_failures_and_in_the_title_of_a_bar(
    strange: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\nb\x1b[2J.png"
    assert main.main(["image", "--model", MODEL, "--scale", "1", f"in/{name}"]) == 0
    assert "a\\nb\\x1b[2J.png:" in capsys.readouterr().err
    (strange / "in" / name).write_bytes(b"none")
    assert image(f"in/{name}", f"in/missing{name}") == 1
    error = capsys.readouterr().err
    assert "  in/a\\nb\\x1b[2J.png: this is not an " in error
    assert "  in/missinga\\nb\\x1b[2J.png: there is no such image\n" in error


def piped(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("words", "source", "result"),
    [
        (["-"], "a.png", "result.png"),
        (["-", "-o", "-", "--encoding", "jpeg"], "a.png", "result.jpg"),
        (["b.JPG", "-o", "-"], "b.JPG", "result.png"),
    ],
)
def test_a_dash_reads_standard_input_and_writes_standard_output(
    words: list[str], source: str, result: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image(source, "-o", result) == 0
    stdout = in_cp1252(monkeypatch)
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    piped(Path(source).read_bytes(), monkeypatch)
    assert image(*words) == 0
    assert stdout.getvalue() == Path(result).read_bytes()


def test_standard_input_may_go_to_a_file(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(Path("a.png").read_bytes(), monkeypatch)
    assert image("-", "-o", "b.jfif") == 0
    assert "- -> b.jfif (260x256, " in capsys.readouterr().out
    with Image.open("b.jfif") as result:
        assert result.format == "JPEG"


def test_an_image_that_fails_leaves_standard_output_empty(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout = in_cp1252(monkeypatch)
    monkeypatch.setattr(other_writers, "encode_strips", failing(1, RuntimeError("in the middle")))
    piped(Path("a.png").read_bytes(), monkeypatch)
    assert image("-") == 1
    assert stdout.getvalue() == b""
    assert "1 of 1 failed:\n  -: RuntimeError: in the middle" in capsys.readouterr().err


def test_a_stream_that_is_no_place_for_an_image_is_told(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        assert image(*words) == 2
        return capsys.readouterr().err

    assert "standard output: it has the image, and no room for --json" in told("-", "--json")
    monkeypatch.setattr(sys, "stdout", None)
    assert "standard output: it is a terminal or closed" in told("a.png", "-o", "-")
    _, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert "standard output: it is a terminal or closed" in told("a.png", "-o", "-")


@pytest.mark.parametrize("closed", [True, False])
def test_standard_input_without_an_image_is_not_waited_for(
    closed: bool, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, terminal = os.openpty()
    with os.fdopen(terminal) as stream:
        monkeypatch.setattr(sys, "stdin", None if closed else stream)
        assert image("-", "-o", "b.png") == 1
    assert "standard input: there is no image in it" in capsys.readouterr().err


def test_standard_input_is_read_no_further_than_the_memory_allows(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(bytes(2**20 + 1), monkeypatch)
    assert image("-", "-o", "b.png", "--memory", "1M") == 1
    assert "larger than the 1,048,576 bytes of memory that may be taken" in capsys.readouterr().err
    assert sys.stdin.buffer.tell() == 2**20 + 1


@pytest.mark.parametrize("words", [["a.png", "-o", "-"], ["a.png", "b.JPG"]])
def test_a_full_or_broken_standard_output_ends_the_command(
    words: list[str],
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert image(*words) == 1
        assert capsys.readouterr().err == "upscaler: standard output: No space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert image(*words, "--again") == 1
        assert capsys.readouterr().err == ""
    assert not (images / "upscaled" / "b.png").exists()


def test_without_standard_error_no_message_goes_to_standard_output(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = in_cp1252(monkeypatch)
    monkeypatch.setattr(sys, "stderr", None)
    assert image("notes.txt", "-o", "-") == 1
    assert stdout.getvalue() == b""


def test_without_standard_output_or_error_images_are_made(
    images: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main.main(["image", "--model", MODEL, "--scale", "1", "a.png", "notes.txt"]) == 1
    assert sorted(results()) == ["a.png"]


def test_the_whole_image_is_written_without_a_buffer(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with PYTHONUNBUFFERED, where a write may take only a part."""
    taken = bytearray()

    def write(data: memoryview) -> int:
        taken.extend(data[:1000])
        return min(1000, len(data))

    buffer = SimpleNamespace(write=write, flush=lambda: None)
    stdout = SimpleNamespace(buffer=buffer, isatty=lambda: False, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert image("a.png", "-o", "-") == 0
    with Image.open(io.BytesIO(taken)) as result:
        result.load()
        assert result.size == (260, 256)
