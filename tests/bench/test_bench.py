"""The benchmark as a whole: real processes, real networks, a small photo."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from tests.support.requirements import needs
from upscaler.bench import contenders, machine, process
from upscaler.bench import runner as bench
from upscaler.bench.contenders import Contender, Peer
from upscaler.bench.runner import BenchTask, Case, Row
from upscaler.cli import main
from upscaler.errors import WorkerFailed
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Device, Precision

pytestmark = pytest.mark.torch

SIDE = 40
FAST = MODELS[UpscalingModel.ANIMEVIDEO_V3]
OWN = Contender(None, Precision.FP32)
PEAKS = {"fp32": 1e11}
UPSCALER = (
    sys.executable,
    "-c",
    "import sys; from upscaler.cli.main import main; sys.exit(main())",
)


@pytest.fixture
def task(photo: Pixels) -> BenchTask:
    return BenchTask(photo, [FAST], [SIDE], Device.CPU, [OWN, OWN], runs=2)


def only_case(task: BenchTask) -> Case:
    (case,) = bench.cases(task, PEAKS, lambda _: None)
    return case


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], bytes]:
    """What the command prints of everybody who is installed, and its two files."""
    folder = tmp_path_factory.mktemp("bench")
    plot = ["--plot", str(folder / "plot.png")] if matplotlib_is_there() else []
    command = ["bench", "--model", FAST.name, "--size", str(SIDE), "--runs", "3", "--device", "cpu"]
    done = subprocess.run(
        [*UPSCALER, *command, "--json", str(folder / "all.json"), *plot],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    picture = (folder / "plot.png").read_bytes() if plot else b""
    return done.stdout, json.loads((folder / "all.json").read_text()), picture


def matplotlib_is_there() -> bool:
    return machine.version("matplotlib") is not None


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def in_seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) / {"s": 1, "ms": 1000}[unit]


@pytest.mark.slow
def test_everybody_is_measured_and_right(everybody: tuple[str, dict[str, Any], bytes]) -> None:
    _, found, _ = everybody
    (case,) = found["cases"]
    assert not case["truth"]
    names = [row["name"] for row in case["rows"]]
    assert names[0] == "upscaler fp32"
    for row in case["rows"]:
        assert row["error"] is None
        assert len(row["seconds"]) == 3
        assert row["median_s"] == median(row["seconds"])
        assert row["fidelity"]["largest"] <= (1 if row["precision"] == "fp32" else 40)
        assert row["peak_fraction"] == pytest.approx(
            case["flop"] / row["median_s"] / found["peaks"][row["precision"]]
        )
        if sys.platform == "linux":
            assert 10_000 < row["peak_bytes"] < 1e9


@pytest.mark.slow
def test_ratios_are_taken_within_a_round(everybody: tuple[str, dict[str, Any], bytes]) -> None:
    (case,) = everybody[1]["cases"]
    (baseline,) = (row for row in case["rows"] if row["name"] == case["baseline"])
    for row in case["rows"]:
        pairs = zip(baseline["seconds"], row["seconds"], strict=True)
        assert row["ratios"] == [theirs / own for theirs, own in pairs]
        assert row["median_ratio"] == median(row["ratios"])


@pytest.mark.slow
def test_the_table_says_what_the_json_says(
    everybody: tuple[str, dict[str, Any], bytes],
) -> None:
    printed, found, _ = everybody
    (case,) = found["cases"]
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "a terminal shows it aligned"
    assert len(lines) == 2 + len(case["rows"])
    for line, row in zip(lines[2:], case["rows"], strict=True):
        name, time, speed, *_, largest = cells(line)
        assert name == row["name"]
        assert in_seconds(time) == pytest.approx(row["median_s"], rel=0.01)
        assert float(speed) == pytest.approx(row["megapixels_per_s"], rel=0.01)
        assert int(largest) == row["fidelity"]["largest"]


@pytest.mark.slow
def test_the_machine_comes_first(everybody: tuple[str, dict[str, Any], bytes]) -> None:
    printed, found, _ = everybody
    machine = found["machine"]
    head = printed.partition("###")[0]
    assert machine["processor"] in head
    assert f"torch {machine['versions']['torch']}" in head
    assert "Matrix peak measured on cpu: fp32" in head
    assert found["peaks"]["fp32"] > 1e9


@pytest.mark.slow
@pytest.mark.skipif(not matplotlib_is_there(), reason="matplotlib is not installed")
def test_the_plot_is_a_picture(everybody: tuple[str, dict[str, Any], bytes]) -> None:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(everybody[2])) as picture:
        assert picture.format == "PNG"
        assert 1000 < picture.width < 4000
        assert 400 < picture.height < picture.width
        assert np.array(picture.convert("L")).std() > 5, "it is not blank"


@pytest.mark.slow
@needs(Peer.REALESRGAN)
def test_the_reference_is_what_the_others_are_compared_with(
    everybody: tuple[str, dict[str, Any], bytes],
) -> None:
    assert everybody[1]["cases"][0]["baseline"] == "RealESRGANer fp32, tile 400"


class Dying(process.WorkerProcess):
    """Killed before its second picture, as the system kills for memory, if it is the second."""

    born = 0

    def __init__(self, job: dict[str, Any], log: Path) -> None:
        super().__init__(job, log)
        Dying.born += job["role"] == "contender"
        self.number, self.asked = Dying.born, 0

    def ask(self, **question: object) -> dict[str, Any]:
        self.asked += 1
        if (self.number, self.asked) == (2, 2):
            self._process.kill()
        return super().ask(**question)


@pytest.fixture
def _dying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WorkerProcess", Dying)
    Dying.born = 0


@pytest.mark.slow
@pytest.mark.usefixtures("_dying")
def test_who_dies_is_a_row_and_the_others_go_on(task: BenchTask) -> None:
    told: list[str] = []
    (case,) = bench.cases(task, PEAKS, told.append)
    fine, dead = case.rows
    assert len(fine.seconds) == 2
    assert fine.error is None
    assert len(dead.seconds) == 1
    assert dead.error is not None
    assert "memory" in dead.error
    assert dead.median_s is None
    assert any("upscaler fp32 failed: killed" in line for line in told)


@pytest.mark.slow
def test_who_cannot_be_loaded_is_a_row_that_says_why(task: BenchTask) -> None:
    case = only_case(replace(task, contenders=[Contender(None, Precision.FP16), OWN], runs=1))
    assert case.rows[0].error is not None
    assert case.rows[0].error.startswith("DeviceUnavailable: fp16 is not supported on CPUs")
    assert case.rows[1].error is None
    assert case.baseline == "upscaler fp32"


@pytest.mark.slow
def test_a_crash_is_told_with_its_last_line(tmp_path: Path) -> None:
    with (
        process.WorkerProcess({"role": "no such role"}, tmp_path / "one.log") as worker,
        pytest.raises(WorkerFailed, match="KeyError: 'no such role'"),
    ):
        worker.answer()


def test_what_kills_the_interpreter_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        process.WorkerProcess({}, tmp_path / "false.log") as worker,
        pytest.raises(WorkerFailed, match=r"died \(exit status 1\)"),
    ):
        worker.answer()


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0] * 3000, bench.Fidelity(None, 0, 0)),
        ([255] * 3000, bench.Fidelity(0.0, 255, 255)),
        ([5, *[0] * 2999], bench.Fidelity(None, 0, 5)),
        ([9] * 4 + [0] * 2996, bench.Fidelity(None, 9, 9)),
        ([9] * 3 + [0] * 2997, bench.Fidelity(None, 0, 9)),
    ],
    ids=["equal", "opposite", "one", "just enough", "just too few"],
)
def test_distance_is_counted_in_levels(
    differences: list[int], expected: bench.Fidelity, tmp_path: Path
) -> None:
    result = np.array(differences, np.uint8).reshape(500, 2, 3)
    np.save(tmp_path / "truth.npy", np.zeros_like(result))
    np.save(tmp_path / "result.npy", result)
    found = bench.fidelity(str(tmp_path / "truth.npy"), str(tmp_path / "result.npy"))
    error = np.mean(np.square(differences))
    psnr = None if error == 0 else pytest.approx(10 * np.log10(255**2 / error))
    assert found == replace(expected, psnr_db=found.psnr_db)
    assert found.psnr_db == psnr


def test_the_median_is_not_moved_by_one_slow_run() -> None:
    peer = Row("peer", "1", "fp32", seconds=[4.0, 8.0, 6.0])
    row = Row("own", "1", "fp32", seconds=[2.0, 100.0, 1.0])
    found = bench.with_statistics(row, peer, 10**11, 4 * 10**6, PEAKS)
    assert found.median_s == 2
    assert found.ratios == [2, 0.08, 6]
    assert found.median_ratio == 2
    assert found.megapixels_per_s == 2
    assert found.peak_fraction == 0.5


def test_each_round_has_an_order_of_its_own() -> None:
    orders = [bench.shuffled(range(7), number) for number in range(3)]
    assert len(set(map(tuple, orders))) == 3
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] == bench.shuffled(range(7), 0)


def test_the_picture_is_the_middle_square_of_the_photo(photo: Pixels) -> None:
    assert np.array_equal(bench.square(photo, 256), photo[:, 24:280])
    alpha = np.dstack([photo, photo[:, :, :1]])
    assert bench.square(alpha, 33).shape == (33, 33, 3)
    assert bench.square(photo, 300).flags.c_contiguous


def test_a_photo_is_there_without_one_being_given(photo: Pixels) -> None:
    assert bench.photograph().name == "photo.png"
    assert bench.photograph().is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "esrgan"], "choose from real-esrgan-x4-plus"),
        (["--peer", "waifu2x"], "choose from realesrgan, openvino, onnxruntime, none"),
        (["--precision", "int8"], "choose from fp32"),
        (["--precision", "auto"], "choose from fp32"),
        (["--device", "mps"], "choose from auto, cpu, cuda"),
        (["--size", "0"], "a whole number from 32 to 8192"),
        (["--size", "big"], "a whole number from 32 to 8192"),
        (["--runs", "0"], "a whole number from 1 to"),
        (["--memory", "lots"], "a number of bytes"),
        (["--memory", "0G"], "a number of bytes"),
        (["--memory", "1GM"], "a number of bytes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_refused_with_what_it_could_be(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(["bench", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_image_or_peer_fails_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.main(["bench", str(tmp_path / "gone.png")]) == 1
    assert "gone.png: No such file" in capsys.readouterr().err
    (tmp_path / "notes.png").write_text("no picture")
    assert main.main(["bench", str(tmp_path / "notes.png"), "--device", "cpu"]) == 2
    assert "not a PNG, JPEG or WebP image" in capsys.readouterr().err
    monkeypatch.setattr(contenders, "version", lambda _name: None)
    assert main.main(["bench", "--peer", "openvino", "--device", "cpu"]) == 1
    assert "OpenVINO is not installed: pip install" in capsys.readouterr().err


def test_without_matplotlib_a_plot_is_refused_before_hours_of_measuring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main.main(["bench", "--plot", "plot.png"]) == 1
    assert "--plot needs matplotlib: pip install '.[bench]' in a clone" in capsys.readouterr().err
