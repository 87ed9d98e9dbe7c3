"""Tables and plots of figures that are made up."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from upscaler.bench import plot, report
from upscaler.bench.machine import Machine
from upscaler.bench.runner import Case, Fidelity, Report, Row
from upscaler.settings import Device

MACHINE = Machine("A processor", ("avx2",), 2, 8 * 10**9, "Linux", "3.11", {"torch": "2.13"})
FINE = Row(
    "upscaler fp32",
    "1",
    "fp32",
    seconds=[2.0, 4.0, 3.0],
    ratios=[2.0, 1.0, 1.5],
    median_s=3.0,
    median_ratio=1.5,
    megapixels_per_s=0.0873,
    peak_fraction=0.805,
    peak_bytes=1_234_000_000,
    fidelity=Fidelity(91.26, 1, 2),
    plan="one tile, 64 rows a step",
    overhead=0.062,
)
FAILED = Row("OpenVINO fp32", "1", "fp32", seconds=[1.0], error="killed")
CASE = Case("real-esrgan-x4-plus", 512, 4, 9_399_000_000_000, [FINE, FAILED], None, None)
REPORT = Report(MACHINE, Device.CPU, None, 2, 3, {"fp32": 484e9, "bf16": 1.2e12}, [CASE])


def test_a_row_has_units_and_three_digits() -> None:
    lines = report.section(CASE).splitlines()
    assert lines[0] == "### real-esrgan-x4-plus, 512x512 to 2048x2048, 9.40 TFLOP"
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == [
        "upscaler fp32",
        "3.00 s",
        "0.0873",
        "1.50 (1.00 to 2.00)",
        "80%",
        "1.23 GB",
        "6.2%",
        "91.3 dB",
        "1",
        "2",
    ]


def test_a_gpu_has_columns_of_its_own() -> None:
    counted = replace(FINE, kernels=1234, moved_bytes=33_000_000_000, first_s=2.5)
    lines = report.section(replace(CASE, rows=[counted, FAILED])).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[-4:-1]] == ["first", "kernels", "moved"]
    assert [cell.strip() for cell in lines[4].split("|")[-4:-1]] == ["2.50 s", "1,234", "33.00 GB"]
    assert len({line.count("|") for line in lines[2:6]}) == 1
    assert "kernels:" in report.notes(replace(REPORT, device=Device.CUDA))
    assert "kernels:" not in report.notes(REPORT)


def test_who_failed_has_no_figures_and_says_why() -> None:
    lines = report.section(CASE).splitlines()
    assert lines[5].split("|")[2].strip() == "failed"
    assert not any(character.isdigit() for character in "".join(lines[5].split("|")[2:]))
    assert "- OpenVINO fp32 failed: killed" in lines
    assert "- Plan of upscaler fp32: one tile, 64 rows a step" in lines


@pytest.mark.parametrize(
    ("runs", "words"), [(1, "time: one run, pixels"), (3, "time: median of 3 interleaved runs,")]
)
def test_a_single_run_has_no_median(runs: int, words: str) -> None:
    assert report.notes(replace(REPORT, runs=runs)).startswith(words)


def test_a_missing_truth_is_said() -> None:
    case = Case("real-esrgan-x4-plus", 512, 4, 1, [FINE], None, "MemoryError: too much")
    assert "Nothing is compared with untiled fp32: MemoryError: too much" in report.section(case)


def test_the_heading_names_the_machine() -> None:
    head = report.heading(REPORT)
    assert "A processor, avx2, 2 cores, 2 threads, 8.0 GB, Linux, Python 3.11" in head
    assert "fp32 484 GFLOP/s, bf16 1.20 TFLOP/s" in head


def test_json_has_every_single_run() -> None:
    found = json.loads(report.to_json(REPORT))
    assert found["cases"][0]["rows"][0]["seconds"] == [2.0, 4.0, 3.0]
    assert found["cases"][0]["rows"][1]["error"] == "killed"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1230"), (263.2, "263"), (94.32, "94.3"), (3, "3.00"), (0.0041, "0.00410"), (0, "0"),
     (9.999, "10.0"), (0.9996, "1.00")],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert report.significant(value) == text


def test_names_beside_a_plot_keep_their_distance_and_order() -> None:
    for wanted in (
        [],
        [0.5],
        [0.1, 0.5, 0.9],
        [0.5, 0.5, 0.5],
        [0.98, 0.99, 1.0],
        [0.2, 0.21, 0.3],
    ):
        heights = plot.spread(wanted, 0.1)
        assert len(heights) == len(wanted)
        assert all(b - a > 0.0999 for a, b in pairwise(heights))
        assert all(height <= 1 for height in heights)
    assert plot.spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert plot.spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
