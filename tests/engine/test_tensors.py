"""Pixels to tensors and back: on a GPU this is done there, and the same code runs here."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.networks import largest_difference, psnr
from tests.support.properties import examples
from upscaler.engine import tensors
from upscaler.engine.tensors import (
    lanczos,
    lanczos_bytes,
    reflect_pad,
    to_gray_uint8,
    to_host,
    to_network,
    to_uint8,
)
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize

CPU = torch.device("cpu")
sides = st.integers(1, 40)


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(height=sides, width=sides, multiple=st.sampled_from([1, 2]))
def test_sides_are_padded_to_a_multiple_by_mirroring(
    height: int, width: int, multiple: int
) -> None:
    pixels = noise(height, width, 3)
    found = reflect_pad(pixels, multiple)
    assert found.shape == (height + height % multiple, width + width % multiple, 3)
    assert np.array_equal(found[:height, :width], pixels)
    if height % multiple and height > 1:
        assert np.array_equal(found[height, :width], pixels[-2])
    if width % multiple and width > 1:
        assert np.array_equal(found[:height, width], pixels[:, -2])


def test_every_level_survives_the_conversion() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    x = to_network(torch.from_numpy(levels))
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (0, 1)
    assert np.array_equal(to_uint8(x).numpy(), levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_out_of_range_are_clamped_in_every_precision(dtype: torch.dtype) -> None:
    x = torch.tensor([-3.0, -0.1, 0.0, 0.5, 1.0, 1.1, 300.0], dtype=dtype)
    assert to_uint8(x.clone()).tolist() == [0, 0, 0, 128, 255, 255, 255]
    grey = to_gray_uint8(x[:, None, None].repeat(1, 1, 3))
    assert grey[:, 0, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_strips_arrive_in_order(count: int) -> None:
    strips = [torch.from_numpy(noise(n + 1, 5, 3)) for n in range(count)]
    arrived = list(to_host(strips, CPU))
    assert len(arrived) == count
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(arrived, strips, strict=True))


def test_strips_are_copied_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on CUDA: an event is recorded behind each copy, and waited for two strips later."""
    log: list[str] = []

    class Event:
        def __init__(self) -> None:
            self.number = sum(line.startswith("copy") for line in log)

        def record(self, stream: object) -> None:
            assert isinstance(stream, torch.cpu.Stream)
            log.append(f"copy {self.number}")

        def synchronize(self) -> None:
            log.append(f"wait {self.number}")

    def computed() -> Iterator[Tensor]:
        for number in range(4):
            log.append(f"compute {number}")
            yield torch.full((1, 1, 3), number, dtype=torch.uint8)

    monkeypatch.setattr(torch.cpu, "Event", Event)
    monkeypatch.setattr(torch, "get_device_module", lambda _: torch.cpu)
    values = [int(strip[0, 0, 0]) for strip in to_host(computed(), torch.device("cuda"))]
    assert values == [0, 1, 2, 3]
    assert log == [
        *("compute 0", "copy 0", "compute 1", "copy 1", "compute 2", "copy 2", "wait 0"),
        *("compute 3", "copy 3", "wait 1", "wait 2", "wait 3"),
    ]


@settings(max_examples=examples(60))
@given(
    old=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    new=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    channels=st.sampled_from([3, 4]),
)
@example(old=(60, 60), new=(7, 91), channels=3)
def test_lanczos_equals_pillow(old: tuple[int, int], new: tuple[int, int], channels: int) -> None:
    """To a level, since Pillow rounds its weights; and with alpha to two of what is seen."""
    pixels = noise(*old, channels)
    found = lanczos(torch.from_numpy(pixels), new).numpy()
    expected = resize(pixels, new)
    assert found.shape == expected.shape == (new[1], new[0], channels)
    if channels == 3:
        assert largest_difference(found, expected) <= 1
        return
    assert largest_difference(found[:, :, 3:], expected[:, :, 3:]) <= 1
    opacity = expected[:, :, 3:] / 255
    seen = found[:, :, :3] * opacity - expected[:, :, :3] * opacity
    assert np.abs(seen).max() < 2


def test_lanczos_in_many_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(noise(50, 40, 4))
    whole = lanczos(pixels, (70, 30))
    for part_px in (1, 333):
        monkeypatch.setattr(tensors, "PART_PX", part_px)
        assert torch.equal(lanczos(pixels, (70, 30)), whole)


class Allocated(TorchDispatchMode):
    """The most bytes that tensors without data held after any operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func: Callable[..., object], _types, args=(), kwargs=None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.is_meta:
                storage = each.untyped_storage()
                ref = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.held[ref] = storage.nbytes()
        # A storage that is gone is not the same as a later one at its address.
        gone = [ref for ref in self.held if ref.expired()]  # type: ignore[no-untyped-call]
        for ref in gone:
            del self.held[ref]
        self.most = max(self.most, sum(self.held.values()))
        return result


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((8192, 8192), (6144, 6144)),
        ((1024, 1024), (8192, 8192)),
        ((2048, 512), (100, 70)),
        ((64, 64), (50, 90)),
    ],
)
def test_lanczos_takes_the_memory_that_is_counted(
    old: tuple[int, int], new: tuple[int, int], channels: int
) -> None:
    """Of tensors without data: as on a GPU, what the host holds does not count."""
    pixels = torch.empty(old[1], old[0], channels, dtype=torch.uint8, device="meta")
    with Allocated() as allocated:
        lanczos(pixels, new)
    counted = lanczos_bytes(old, new, channels)
    assert counted / 4 < allocated.most - pixels.nbytes <= counted


def test_the_colour_of_transparent_pixels_does_not_bleed() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:] = (200, 100, 50, 255)
    pixels[:, :8, :3] = 255
    found = lanczos(torch.from_numpy(pixels), (9, 9)).numpy()
    visible = found[:, :, 3] > 64
    assert visible.any()
    assert not visible.all()
    assert found[visible][:, 2].max() < 60, "white would have made it brighter"


def test_lanczos_of_a_photo_equals_pillow(photo: Pixels) -> None:
    found = lanczos(torch.from_numpy(photo), (200, 170)).numpy()
    assert psnr(found, resize(photo, (200, 170))) > 60


@pytest.mark.parametrize("multiple", [1, 2])
def test_padding_takes_pixels_as_numpy_has_them(multiple: int) -> None:
    """Read-only, mirrored or cut out; and copies none that torch takes as they are."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    assert reflect_pad(pixels, multiple) is pixels
    fixed = pixels.copy()
    fixed.flags.writeable = False
    for odd in (fixed, pixels[::-1], pixels[:, ::-1], pixels[1:5, 2:6]):
        padded = reflect_pad(odd, multiple)
        assert np.array_equal(torch.from_numpy(padded).numpy(), odd)
