"""Which pictures are grey."""

import numpy as np
import pytest

from upscaler.imaging.pixels import is_gray, keep_neutral


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("height", [1, 64, 150])
def test_a_grey_picture_has_equal_channels_everywhere(height: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, 9, 1), np.uint8).repeat(3, axis=2)
    pixels = np.dstack((pixels, np.arange(9)[None].repeat(height, axis=0)))[:, :, :channels]
    pixels = pixels.astype(np.uint8)
    assert is_gray(pixels)
    for row in {0, height // 2, height - 1}:
        for channel in range(3):
            tinted = pixels.copy()
            tinted[row, 8, channel] += 1
            assert not is_gray(tinted)


def test_what_was_grey_stays_grey_within_a_rounding() -> None:
    samples = np.array([[[9, 9, 9], [9, 9, 9], [9, 9, 8], [0, 0, 0], [255, 255, 255]]], np.uint16)
    pixels = [[[50, 51, 52], [50, 51, 53], [50, 51, 52], [1, 0, 0], [254, 255, 255]]]
    expected = [[[51, 51, 51], [50, 51, 53], [50, 51, 52], [0, 0, 0], [255, 255, 255]]]
    assert keep_neutral(np.array(pixels, np.uint8), samples).tolist() == expected
