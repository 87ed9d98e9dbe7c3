"""Which device and precision are taken, and which are refused."""

import pytest
import torch

from upscaler.engine.devices import _bf16_is_faster, pick_device, pick_devices, pick_precision
from upscaler.errors import DeviceUnavailable
from upscaler.settings import Device, Kernels, Precision

DEVICES = ("cpu", "mps", "cuda")


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda", "mps"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert pick_device(Device.AUTO).type == "cuda"
    there.remove("cuda")
    assert pick_device(Device.AUTO).type == "mps"
    there.remove("mps")
    assert pick_device(Device.AUTO).type == "cpu"


@pytest.mark.parametrize("faster", [True, False])
def test_auto_is_mixed_only_on_a_cpu_that_multiplies_bf16(
    faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaler.engine.devices._bf16_is_faster", lambda _: faster)
    found = {name: pick_precision(Precision.AUTO, torch.device(name)) for name in DEVICES}
    on_cpu = Precision.MIXED if faster else Precision.FP32
    assert found == {"cpu": on_cpu, "mps": Precision.FP32, "cuda": Precision.FP16}


@pytest.mark.parametrize("avx512", [True, False])
@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_bf16_is_faster_by_amx_or_where_there_are_no_kernels(
    avx512: bool, amx: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    kernels = Kernels.AUTO if compiled else Kernels.ONEDNN
    assert _bf16_is_faster(kernels) is (amx or (avx512 and not compiled))


def test_an_explicit_precision_is_never_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaler.engine.devices._bf16_is_faster", lambda _: False)
    monkeypatch.setattr("upscaler.engine.devices.has_onednn", lambda _: True)
    monkeypatch.setattr("upscaler.engine.devices._multiplies_bf16", lambda: True)
    for name, device in [(n, d) for n in Precision for d in DEVICES if n is not Precision.AUTO]:
        possible = name is not (Precision.FP16 if device == "cpu" else Precision.MIXED)
        if possible:
            assert pick_precision(name, torch.device(device)) is name
        else:
            with pytest.raises(DeviceUnavailable, match=f"{name}"):
                pick_precision(name, torch.device(device))


@pytest.mark.parametrize("name", [Precision.MIXED, Precision.BF16])
def test_a_cpu_without_avx512_is_too_slow_for_bf16(
    name: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(DeviceUnavailable, match=f"^{name} computes in bf16, .*: use fp32$"):
        pick_precision(name, torch.device("cpu"))
    assert pick_precision(Precision.FP32, torch.device("cpu")) is Precision.FP32
    monkeypatch.setattr("upscaler.engine.devices._multiplies_bf16", lambda: True)
    assert pick_precision(Precision.BF16, torch.device("cuda")) is Precision.BF16


def test_bf16_is_refused_on_a_card_that_only_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a T4.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **options: options["including_emulation"]
    )
    with pytest.raises(DeviceUnavailable, match="this GPU does not multiply in bf16: use fp16"):
        pick_precision(Precision.BF16, torch.device("cuda"))


def test_a_missing_device_is_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="cuda"):
            pick_device(Device.CUDA)


def test_a_service_takes_all_cards_or_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for names, numbers in (("cuda", [0, 1, 2]), ("auto", [0, 1, 2]), ("cuda:2,cuda:0", [2, 0])):
        assert pick_devices(names) == [torch.device("cuda", number) for number in numbers]
    assert pick_devices("cpu") == [torch.device("cpu")]
    assert pick_devices("cpu,cpu") == [torch.device("cpu")] * 2
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceUnavailable, match=r"no cuda:9 here: the last card is cuda:2$"):
        pick_devices("cuda:0,cuda:9")
    with pytest.raises(DeviceUnavailable, match="only upscaler serve takes several"):
        pick_device("cuda:0,cuda:1")
