"""How much memory is free, in a container and outside."""

from pathlib import Path

import psutil
import pytest
import torch

from upscaler.engine import memory
from upscaler.engine.memory import LIMIT_AND_USE, _left_to_container, free_bytes

CPU = torch.device("cpu")


def container(folder: Path, version: int, limit: str, used: str) -> Path:
    (folder / "memory").mkdir()
    limit_name, use_name = LIMIT_AND_USE[2 - version]
    (folder / limit_name).write_text(limit)
    (folder / use_name).write_text(used)
    return folder


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [
        ("1000\n", "300\n", 700),
        ("1000", "1000", 0),
        ("1000\n", "1200\n", 0),
        ("0\n", "10\n", 0),
        ("max\n", "300\n", None),
        (str(2**63), "1", 2**63 - 1),
    ],
)
def test_free_memory_is_what_a_containers_limit_leaves(
    version: int, limit: str, used: str, left: int | None, tmp_path: Path
) -> None:
    assert _left_to_container(container(tmp_path, version, limit, used)) == left


def test_without_a_container_there_is_no_limit(tmp_path: Path) -> None:
    assert _left_to_container(tmp_path / "gone") is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _left_to_container(tmp_path) is None


@pytest.mark.parametrize(
    ("available", "left", "free"), [(100, None, 100), (100, 30, 30), (100, 300, 100), (100, 0, 0)]
)
def test_free_memory_is_the_less_of_machine_and_container(
    available: int, left: int | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = psutil.virtual_memory()._replace(available=available)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)
    monkeypatch.setattr(memory, "_left_to_container", lambda: left)
    assert free_bytes(CPU) == free


def test_free_memory_of_a_gpu_includes_torchs_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1000, 4560))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 280)
    assert free_bytes(torch.device("cuda")) == 1020


def test_this_machine_has_free_memory() -> None:
    assert 0 < free_bytes(CPU) < 2**50


@pytest.mark.parametrize(
    "message",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_what_cudas_libraries_say_without_memory_is_known(message: str) -> None:
    assert memory.is_out_of_memory(RuntimeError(message))


def test_another_fault_of_cudnn_is_none_of_memory() -> None:
    assert not memory.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"))
