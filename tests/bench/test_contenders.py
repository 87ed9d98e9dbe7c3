"""Who is compared, and how much there is to compute."""

import pytest

from tests.support.requirements import needs
from upscaler.bench import contenders
from upscaler.bench.contenders import Contender, Peer
from upscaler.errors import Unavailable
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Device, Precision

pytestmark = pytest.mark.torch


def test_the_largest_map_is_what_the_tail_makes() -> None:
    photo, double = MODELS[UpscalingModel.X4_PLUS], MODELS[UpscalingModel.X2_PLUS]
    compact = MODELS[UpscalingModel.X4_V3]
    assert contenders.largest_map(photo, 64, 32) == 64 * 256 * 128
    assert contenders.largest_map(double, 64, 32) == 64 * 128 * 64
    assert contenders.largest_map(compact, 64, 32) == 64 * 64 * 32


def test_on_a_cpu_this_engine_comes_in_what_the_processor_can() -> None:
    plain = contenders.select(Device.CPU, bf16=False, peers=[])
    native = contenders.select(Device.CPU, bf16=True, peers=[])
    assert [each.name for each in plain] == ["upscaler fp32"]
    assert {"upscaler fp32", "upscaler bf16"} <= {each.name for each in native}
    assert not any(each.precision is Precision.FP16 for each in native)


def test_on_cuda_it_is_compared_with_realesrganer_in_half_precision() -> None:
    own = contenders.select(Device.CUDA, bf16=True, peers=[])
    assert [each.name for each in own] == ["upscaler fp32", "upscaler fp16"]
    assert contenders.supported_peers(Device.CUDA) == [Peer.REALESRGAN]
    peers = contenders.variants(Peer.REALESRGAN, Device.CUDA, bf16=True)
    names = [each.name for each in peers]
    assert names == ["RealESRGANer fp16, tile 400", "RealESRGANer fp16, untiled"]
    assert {each.matrix_precision for each in peers} == {"fp16"}


def test_precisions_can_be_chosen() -> None:
    chosen = contenders.select(Device.CPU, bf16=False, precisions=[Precision.BF16], peers=[])
    assert chosen == [Contender(None, Precision.BF16)]


def test_a_peer_that_cannot_be_had_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unavailable, match=r"OpenVINO does not run on cuda.*--peer openvino"):
        contenders.select(Device.CUDA, bf16=True, peers=[Peer.OPENVINO])
    monkeypatch.setattr(contenders, "version", lambda _name: None)
    with pytest.raises(Unavailable, match=r"OpenVINO is not installed: pip install .*\[bench\]"):
        contenders.select(Device.CPU, bf16=True, peers=[Peer.OPENVINO])
    assert all(not each.peer for each in contenders.select(Device.CPU, bf16=True))


@needs(Peer.OPENVINO)
def test_openvino_comes_in_bf16_only_where_that_is_native() -> None:
    names = [
        [each.name for each in contenders.select(Device.CPU, bf16=bf16, peers=[Peer.OPENVINO])][-1]
        for bf16 in (False, True)
    ]
    assert names == ["OpenVINO fp32", "OpenVINO bf16"]
