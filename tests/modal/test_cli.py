"""Pictures from a terminal: Modal's real command and client, and a plane on this machine."""

import io
import os
import pty
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import modal
import pytest
from grpclib import GRPCError, Status
from PIL import Image

from tests.support.modal_control_plane import (
    DEVICE,
    STATUS,
    Ended,
    Plane,
    Ran,
    app_deployed,
    command,
    control_plane,
    ran,
    upscale,
)
from tests.support.paths import PHOTO, ROOT
from tests.support.processes import needs_proc
from upscaler import files
from upscaler.file_jobs import Batch, plan_files
from upscaler.modal import cli, config, pricing
from upscaler.modal.payload import FileResult
from upscaler.models import UpscalingModel


@pytest.fixture(scope="module")
def deployed() -> Iterator[Plane]:
    with app_deployed() as plane:
        yield plane


@pytest.fixture
def plane(deployed: Plane) -> Iterator[Plane]:
    """One with containers that do well, where nothing was asked yet."""
    deployed.work["upscale"] = upscale
    deployed.received.clear()
    yield deployed
    deployed.failing.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures and what is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(PHOTO, folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(plane: Plane, *words: object, folder: Path = ROOT) -> Ran:
    """`modal run modal_app.py` with these words, where nothing but modal is installed."""
    return ran(command("run", "modal_app.py", *map(str, words)), folder, plane.environment)


def run_here(*words: object) -> int:
    """The same in this process, without Modal's command around it; the status that it ends with."""
    try:
        cli.main([str(word) for word in words], pytest.fail, modal.App())
    except SystemExit as end:
        return int(str(end.code))
    return 0


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """The pictures in a folder, each read to its end."""
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.load()
            found[path.name] = image.size
    return found


def sent(plane: Plane) -> int:
    """How many pictures have been sent to containers."""
    return sum(len(request.inputs) for request in plane.asked("FunctionPutInputs"))


def test_the_command_makes_pictures_where_nothing_but_modal_is_installed(
    plane: Plane, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(PHOTO, tmp_path / "one.jpg")
    shutil.copy(PHOTO, tmp_path / "two.webp")
    out = tmp_path / "out"
    words = "--image", folder, tmp_path / "one.jpg", f"{tmp_path}/t*.webp", "--output", out
    done = run(plane, *words, "--scale", 2)
    assert done.returncode == 0, done.stderr
    names = ["a.png", "b.png", "c.png", "one.png", "two.png"]
    assert sizes(out) == dict.fromkeys(names, (608, 512))
    for name in ("a", "b", "c"):
        assert f"{folder}/{name}.png -> {out}/{name}.png (608x512, " in done.stdout
    assert re.search(rf"\.\d\d s on {DEVICE}\)", done.stdout)
    assert re.search(r"^5 images in \d+\.\d s\. Container time:$", done.stderr, re.MULTILINE)
    assert "OctoAI charged $0.020, " in done.stderr
    passed_over = f"passed over 1 file that is no image of a kind that is read: {folder}/notes.txt"
    assert passed_over in done.stderr
    assert "failed" not in done.stderr


def test_a_command_that_did_not_all_go_well_ends_so(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(PHOTO.read_bytes()[:1000])
    shutil.copy(PHOTO, tmp_path / "fine.png")
    done = run(plane, "--image", tmp_path, "--width", 500, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert sizes(tmp_path / "out") == {"fine.png": (500, 421)}
    assert (
        f"1 of 2 failed:\n  {tmp_path}/broken.png: this PNG is cut off after row 1 of "
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_command_that_is_wrong_ends_with_status_2_before_any_request(plane: Plane) -> None:
    done = run(plane, "--image", PHOTO, "--scale", "much")
    assert done.returncode == 2
    assert "modal run modal_app.py: error: argument --scale: " in done.stderr
    assert plane.received == []


def test_an_image_may_have_the_name_of_the_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "command", lambda: "run")
    monkeypatch.setattr(sys, "argv", ["modal", "run", "modal_app.py", "--image", "modal_app.py"])
    cli.check_command()


@pytest.mark.parametrize("words", [["--help"], ["--", "--help"]])
def test_help_has_our_options_and_needs_no_account(tmp_path: Path, words: list[str]) -> None:
    environment = {"PATH": os.environ["PATH"], "MODAL_CONFIG_PATH": os.devnull}
    done = ran(command("run", f"{ROOT}/modal_app.py::main", *words), tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert "--scale F" in done.stdout


def test_the_deployed_service_makes_the_pictures_where_there_is_one(
    plane: Plane, tmp_path: Path
) -> None:
    done = run(plane, "--image", PHOTO, "--output", tmp_path / "out.png", "--scale", 2)
    assert done.returncode == 0, done.stderr
    assert "using the deployed octo-upscaler" in done.stderr
    assert plane.asked("FunctionCreate") == plane.asked("ImageGetOrCreate") == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--ephemeral"]], ids=["not deployed", "told so"])
def test_else_containers_of_the_command_do_without_a_secret_and_a_url(
    plane: Plane, tmp_path: Path, words: list[str]
) -> None:
    with control_plane() as other:
        asked = plane if words else other
        asked.work["upscale"], other.secrets = upscale, {}
        done = run(asked, "--image", PHOTO, "--output", tmp_path / "out.png", "--scale", 2, *words)
        assert done.returncode == 0, done.stderr
        assert sizes(tmp_path) == {"out.png": (608, 512)}
        created = asked.asked("FunctionCreate")
        assert [each.function_data.function_name for each in created] == ["Upscaler.*"]
        assert asked.asked("SecretGetOrCreate") == []
        ended = [each.app_id for each in asked.asked("AppClientDisconnect")]
        assert len(ended) == len(asked.asked("AppCreate")) == 2


def test_nothing_is_started_where_all_results_exist(plane: Plane, folder: Path) -> None:
    words = "--image", folder, "--output", folder / "out", "--ephemeral"
    (folder / "out").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(PHOTO, folder / "out" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modal.App, "run", pytest.fail)
        assert run_here(*words) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "--image"),
        (["--image"], "--image"),
        (["--image", PHOTO, "--scale", "0"], "--scale"),
        (["--image", PHOTO, "--scale", "nan"], "--scale"),
        (["--image", PHOTO, "--scale", "2", "--width", "600"], "not allowed with"),
        (["--image", PHOTO, "--width", "-5"], "--width"),
        (["--image", PHOTO, "--height", "1.5"], "--height"),
        (["--image", PHOTO, "--model", "esrgan"], "--model"),
        (["--image", PHOTO, "--encoding", "gif"], "--encoding"),
        (["--image", PHOTO, "--output", "out.tiff"], "results are called .jpg, .jpeg, "),
        (["--image", PHOTO, "--output", "out.jpg", "--encoding", "png"], "not the name of a png"),
        (["--image", PHOTO, "--output", f"{PHOTO}/out"], "is not a folder"),
        (["--image", PHOTO, "--face-strength"], "unrecognized arguments: --face-strength"),
    ],
)
def test_what_is_wrong_with_a_command_is_told_and_nothing_is_sent(
    plane: Plane, words: list[object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(*words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.startswith("usage: modal run modal_app.py")
    assert plane.asked("FunctionMap") == []


def test_all_options_can_be_read_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("--help") == 0
    text = capsys.readouterr().out
    for option in (
        "--image",
        "--output",
        "--scale",
        "--width",
        "--height",
        "--encoding",
        "--again",
        "--ephemeral",
        "--recursive",
    ):
        assert option in text
    assert all(model in text for model in UpscalingModel)


def noting(seen: list[Any]) -> Callable[..., FileResult]:
    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        seen.append(dict(fields))
        return upscale(key, source, fields)

    return work


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"scale": 4}),
        (["--model", "real-esrgan-x2-plus"], {"scale": 2, "model": "real-esrgan-x2-plus"}),
        (["--scale", "1.5"], {"scale": 1.5}),
        (["--width", "400"], {"output_image_width": 400}),
        (["--height", "300"], {"output_image_height": 300}),
        (["--encoding", "jpeg"], {"scale": 4, "output_image_encoding": "jpeg"}),
        (["--output", "OUT/it.jpg"], {"scale": 4, "output_image_encoding": "jpeg"}),
    ],
)
def test_what_is_asked_for_is_what_a_container_is_told(
    plane: Plane, tmp_path: Path, words: list[str], expected: dict[str, object]
) -> None:
    seen: list[Any] = []
    plane.work["upscale"] = noting(seen)
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    if "--output" not in words:
        words += ["--output", str(tmp_path / "out")]
    assert run_here("--image", PHOTO, *words) == 0
    nothing = dict.fromkeys(("scale", "output_image_width", "output_image_height"))
    usual = {"model": "real-esrgan-x4-plus", "output_image_encoding": "png"}
    assert seen == [{**nothing, **usual, **expected}]
    (path,) = (tmp_path / "out").iterdir()
    with Image.open(path) as image:
        assert str(image.format).lower() == seen[0]["output_image_encoding"]


def test_what_is_there_is_left_as_it_is_unless_it_is_to_be_made_again(
    plane: Plane, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = "--image", folder, "--output", out, "--scale", 2
    out.mkdir()
    (out / "b.png").write_bytes(b"from before")
    (out / "c.png").write_bytes(b"older than its image")
    os.utime(out / "c.png", (0, 0))
    assert run_here(*words) == 0
    assert sent(plane) == 2
    assert (out / "b.png").read_bytes() == b"from before"
    assert "skipping 1 of 3" in capsys.readouterr().err
    plane.received.clear()
    assert run_here(*words) == 0
    told = capsys.readouterr()
    assert (told.out, sent(plane)) == ("", 0)
    assert "skipping 3 of 3" in told.err
    assert "no image was upscaled" in told.err
    assert run_here(*words, "--again") == 0
    assert sent(plane) == 3
    assert sizes(out) == dict.fromkeys(["a.png", "b.png", "c.png"], (608, 512))


def test_one_image_that_is_named_is_made_each_time(plane: Plane, tmp_path: Path) -> None:
    for _ in range(2):
        assert run_here("--image", PHOTO, "--output", tmp_path / "out", "--scale", 1) == 0
    assert sent(plane) == 2


def test_recursive_keeps_the_tree(plane: Plane, folder: Path, tmp_path: Path) -> None:
    (folder / "x").mkdir()
    (folder / "a.png").rename(folder / "x" / "a.png")
    words = "--image", folder, "--output", tmp_path / "out", "--scale", 1, "--recursive"
    assert run_here(*words) == 0
    assert list(sizes(tmp_path / "out" / "x")) == ["a.png"]


def test_each_failure_is_named_in_the_end_and_stops_nothing_else(
    plane: Plane, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.webp").write_bytes(b"RIFF????WEBP")
    with (folder / "endless.png").open("wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)
    out = tmp_path / "out"
    (out / "b.png").mkdir(parents=True)  # where a picture should go

    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        if key == 0:
            raise Ended(STATUS.GENERIC_STATUS_TIMEOUT, "more than 600 s")
        return upscale(key, source, fields)

    plane.work["upscale"] = work
    inputs = folder, tmp_path / "nowhere.png"
    assert run_here("--image", *inputs, "--output", out, "--scale", 2, "--again") == 1
    told = capsys.readouterr()
    assert told.out.startswith(f"{folder}/c.png -> {out}/c.png (608x512, ")
    _, _, end = told.err.partition("5 of 6 failed:\n")
    reasons = dict(line.strip().split(": ", 1) for line in end.splitlines())
    assert reasons == {
        f"{folder}/a.png": "FunctionTimeoutError: more than 600 s",
        f"{folder}/b.png": reasons[f"{folder}/b.png"],
        f"{folder}/broken.webp": reasons[f"{folder}/broken.webp"],
        f"{folder}/endless.png": "no image of 2048x2048 pixels is as large as this file",
        f"{tmp_path}/nowhere.png": "there is no such image",
    }
    assert reasons[f"{folder}/b.png"].startswith(f"{out}/b.png: ")
    assert reasons[f"{folder}/broken.webp"].startswith("this is not a PNG, JPEG or WebP image")
    assert sorted(path.name for path in out.iterdir()) == ["b.png", "c.png"], (
        "and nothing half made"
    )


@needs_proc
def test_a_file_that_cannot_be_read_is_named(
    plane: Plane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = "/proc/self/mem", PHOTO
    assert run_here("--image", *inputs, "--output", tmp_path / "out", "--scale", 2) == 1
    assert "1 of 2 failed:\n  /proc/self/mem: Input/output error\n" in capsys.readouterr().err
    assert sizes(tmp_path / "out") == {"photo.png": (608, 512)}


@pytest.mark.parametrize("rpc", ["FunctionMap", "FunctionPutInputs", "FunctionGetOutputs"])
def test_where_modal_refuses_all_that_is_not_made_is_named_with_the_reason(
    plane: Plane, folder: Path, tmp_path: Path, rpc: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.failing[rpc] = GRPCError(Status.PERMISSION_DENIED, "no credit left")
    assert run_here("--image", folder, "--output", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "3 of 3 failed:" in error
    assert error.count("no credit left") == 3


def test_results_are_written_as_they_come_and_a_slow_one_holds_up_no_other(
    plane: Plane, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    others = out / "b.png", out / "c.png"

    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        if key == 0:
            give_up_s = time.monotonic() + 30
            while not all(path.exists() for path in others):
                assert time.monotonic() < give_up_s, "they wait for the first"
                time.sleep(0.01)
        return upscale(key, source, fields)

    plane.work["upscale"] = work
    assert run_here("--image", folder, "--output", out, "--scale", 2) == 0
    assert len(sizes(out)) == 3


def test_no_more_pictures_are_read_than_are_on_their_way(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "AT_ONCE", 5)
    folder, reads, most = tmp_path / "pictures", [0], [0]
    folder.mkdir()
    for i in range(12):
        shutil.copy(PHOTO, folder / f"{i:02}.png")
    read = files.read_image_file

    def counting(path: Path) -> bytes:
        reads[0] += 1
        return read(path)

    monkeypatch.setattr(files, "read_image_file", counting)

    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        time.sleep(0.1)
        most[0] = max(most[0], reads[0] - len(list((tmp_path / "out").glob("*.png"))))
        return upscale(key, source, fields)

    plane.work["upscale"] = work
    assert run_here("--image", folder, "--output", tmp_path / "out", "--scale", 1) == 0
    assert reads == [12]
    assert 1 < most[0] <= 5 + 1, "one is done, and not yet written"


def test_files_that_cannot_be_sent_are_in_the_way_of_no_other(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "AT_ONCE", 2)
    for name in ("a.png", "b.png", "c.png"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(files.MAX_FILE_BYTES + 1)
    shutil.copy(PHOTO, tmp_path / "d.png")
    assert run_here("--image", tmp_path, "--output", tmp_path / "out", "--scale", 1) == 1
    assert sizes(tmp_path / "out") == {"d.png": (304, 256)}


def test_what_becomes_no_file_on_the_way_is_not_sent(
    plane: Plane,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = plan_files

    def then_changed(*given: Any, **options: Any) -> Batch:
        planned = plan(*given, **options)
        first, second = (job.source for job in planned.jobs[:2])
        for source in (first, second):
            source.unlink()
        first.symlink_to("/dev/zero")
        os.mkfifo(second)
        return planned

    monkeypatch.setattr(cli, "plan_files", then_changed)
    assert run_here("--image", folder, "--output", tmp_path / "out", "--scale", 1) == 1
    told = capsys.readouterr().err
    assert "2 of 3 failed" in told
    assert "a device and not a file" in told
    assert "a pipe and not a file" in told
    assert len(sizes(tmp_path / "out")) == 1


@pytest.mark.first(1)
@pytest.mark.parametrize("how", [[], ["--ephemeral"]], ids=["deployed", "ephemeral"])
def test_an_interrupted_batch_leaves_whole_files_and_can_be_continued(
    plane: Plane, folder: Path, tmp_path: Path, how: list[str]
) -> None:
    out, go_on = tmp_path / "out", threading.Event()

    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        if key > 0:
            go_on.wait(60)
        return upscale(key, source, fields)

    plane.work["upscale"] = work
    words = command(
        "run", "modal_app.py", "--image", str(folder), "--output", str(out), "--scale", "2", *how
    )
    with subprocess.Popen(
        words, cwd=ROOT, env=plane.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                if b" -> " in line:
                    break
            process.send_signal(signal.SIGINT)
            said = process.stdout.read().decode()
            assert process.wait(30) == 130, "so that no script goes on as if all was made"
        finally:
            process.kill()
            go_on.set()
    assert "Traceback" not in said
    assert "1 image in " in said
    assert "interrupted: run the same command again to continue" in said
    assert sizes(out) == {"a.png": (608, 512)}
    plane.work["upscale"] = upscale
    plane.received.clear()
    assert run_here("--image", folder, "--output", out, "--scale", 2) == 0
    assert sent(plane) == 2
    assert sizes(out) == dict.fromkeys(["a.png", "b.png", "c.png"], (608, 512))


def shown(stream: str) -> list[str]:
    """The lines that a wide terminal shows once all this was written to it."""
    lines, row, column = [""], 0, 0
    for control, text in re.findall(CONTROL + r"|([^\x1b\r\n]+)", stream):
        if text:
            before, after = lines[row][:column].ljust(column), lines[row][column + len(text) :]
            lines[row] = before + text + after
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[([0-9]*)A", control):
            row = max(0, row - int(up[1] or 1))
    return lines


CONTROL = r"(\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x1b\x07]*(?:\x07|\x1b\\)|\r|\n)"
"""Line ends, and what moves a cursor, erases, colours or links."""


@pytest.mark.slow
def test_modals_progress_display_erases_nothing_that_is_printed(
    plane: Plane, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    shutil.copy(PHOTO, tmp_path / "fine.png")
    words = command("run", "modal_app.py", "--image", str(tmp_path), "--output", f"{tmp_path}/out")
    ours, theirs = pty.openpty()
    terminal_like = {"TERM": "xterm", "COLUMNS": "300", "LINES": "50"}
    with subprocess.Popen(
        words, cwd=ROOT, env=plane.environment | terminal_like,
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as file:
            said = b"".join(iter(lambda: heard(file), b"")).decode()
    assert process.returncode == 1
    assert "Running app" in said, "Modal takes it for a terminal"
    lines = [line.rstrip() for line in shown(said)]
    assert any(line.startswith(f"{tmp_path}/fine.png -> ") for line in lines)
    assert any(line.startswith("1 image in ") for line in lines)
    at = lines.index("1 of 2 failed:")
    assert lines[at + 1].startswith(
        f"  {tmp_path}/broken.png: this is not a PNG, JPEG or WebP image"
    )
    assert "Running app" not in "".join(lines)


def heard(file: io.FileIO) -> bytes:
    try:
        return file.read(2**16) or b""
    except OSError:  # how a terminal ends, on Linux
        return b""


@pytest.mark.slow
def test_the_self_check_hands_on_what_it_is_given_and_ends_as_it_ended(plane: Plane) -> None:
    given: list[tuple[str, ...]] = []

    def work(*arguments: str) -> None:
        given.append(arguments)
        if "--size" in arguments:
            raise RuntimeError("something failed: see the table above")

    plane.work["selfcheck"] = work
    for words, status in ((), 0), (("--size", "256"), 1):
        done = ran(command("run", "modal_selfcheck.py", *words), ROOT, plane.environment)
        assert done.returncode == status, done.stderr
    assert given == [(), ("--size", "256")]
    assert "something failed: see the table above" in done.stderr


def test_what_the_self_check_cannot_be_asked_is_told_before_any_request(plane: Plane) -> None:
    done = ran(command("run", "modal_selfcheck.py", "--size", "much"), ROOT, plane.environment)
    assert done.returncode == 2
    assert "argument --size: must be a whole number" in done.stderr
    assert plane.received == []


@pytest.mark.parametrize("words", [[PHOTO], ["--plot", "it.png"], ["--json", "it.json"]])
def test_the_self_check_has_no_files_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[object]
) -> None:
    line = ["modal", "run", "modal_selfcheck.py::selfcheck", *map(str, words)]
    monkeypatch.setattr(config, "command", lambda: "run")
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "modal_selfcheck.py"))
    assert "no files of this machine" in capsys.readouterr().err


# What it cost


def working(seconds: float, *devices: str) -> Callable[..., FileResult]:
    """Containers that say that they took so long, each on its own device."""

    def work(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        outcome = upscale(key, source, fields)
        return {**outcome, "seconds": seconds, "device": devices[key % len(devices)]}

    return work


def test_it_is_told_how_long_it_took_and_what_that_costs_beside_octoai(
    plane: Plane, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.work["upscale"] = working(2.0, "NVIDIA L4", "Tesla T4")
    assert run_here("--image", folder, "--output", tmp_path / "out", "--scale", 2) == 0
    _, *lines = capsys.readouterr().err.splitlines()
    each = [2.0 * (gpu + 2 * 0.0000131 + 8 * 0.00000222) for gpu in (0.000222, 0.000164)]
    assert re.fullmatch(r"3 images in \d+\.\d s\. Container time:", lines[0])
    assert set(lines[1:3]) == {
        f"  4.0 s on NVIDIA L4: ${2 * each[0]:.5f}",
        f"  2.0 s on Tesla T4: ${each[1]:.5f}",
    }
    assert (
        lines[3] == f"  OctoAI charged $0.012, {0.012 / (2 * each[0] + each[1]):.1f} times as much"
    )


def test_where_a_price_is_not_known_none_is_told(
    plane: Plane, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.work["upscale"] = working(2.0, "NVIDIA L4", "NVIDIA B300")
    assert run_here("--image", folder, "--output", tmp_path / "out", "--scale", 2) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "  2.0 s on NVIDIA B300: price unknown" in lines
    assert "  OctoAI charged $0.012" in lines, "and no comparison with half of it"


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA T4", "T4"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H200", None),
        ("NVIDIA B200", None),
        ("NVIDIA L40", None),
        ("NVIDIA A1000", None),
        ("NVIDIA T400", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
        ("", None),
    ],
)
def test_a_card_is_known_by_what_it_calls_itself(device: str, name: str | None) -> None:
    assert pricing.card(device) == name


def test_a_container_costs_what_its_parts_do() -> None:
    assert pricing.container_usd_per_s("cpu", 2, 8) == pytest.approx(2 * 0.0000131 + 8 * 0.00000222)
    assert pricing.container_usd_per_s("NVIDIA L4", 0, 0) == pytest.approx(0.000222)
    assert pricing.container_usd_per_s("NVIDIA B300", 2, 8) is None
