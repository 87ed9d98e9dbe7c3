"""What a machine says of itself."""

import platform
from pathlib import Path

import pytest

from upscaler.bench import contenders, machine

pytestmark = pytest.mark.torch

INTEL = """\
processor\t: 0
model name\t: Some Xeon
cpu family\t: 6
model\t\t: 143
flags\t\t: fpu avx2 avx512f amx_bf16 avx512_bf16

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_this_machine_is_described() -> None:
    found = machine.describe()
    assert found.processor
    assert found.cores >= 1
    assert found.python == platform.python_version()
    assert found.versions["torch"].startswith("2.")


def test_a_processor_is_named_with_what_tells_of_its_speed(cpuinfo: Path) -> None:
    cpuinfo.write_text(INTEL)
    found = machine.describe()
    assert found.processor == "Some Xeon (family 6, model 143)"
    assert found.flags == ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    assert contenders.native_bf16(found)


def test_an_arm_processor_has_flags_under_another_name(cpuinfo: Path) -> None:
    cpuinfo.write_text(ARM)
    assert machine.describe().flags == ("bf16",)
    assert contenders.native_bf16(machine.describe())


def test_where_the_kernel_tells_nothing_it_is_left_out(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MEMINFO", cpuinfo)
    found = machine.describe()
    assert found.flags == ()
    assert found.memory_bytes is None
    assert machine.available_bytes() is None
    assert not contenders.native_bf16(found)


def test_memory_is_counted_in_bytes(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo.write_text("MemTotal:       2048 kB\nMemFree:  1 kB\nMemAvailable:   1024 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", cpuinfo)
    assert machine.describe().memory_bytes == 2 * 2**20
    assert machine.available_bytes() == 2**20


def test_what_is_not_installed_has_no_version() -> None:
    assert machine.version("no-such-distribution") is None
