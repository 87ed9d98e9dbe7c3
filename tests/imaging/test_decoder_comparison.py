"""What `benchmarks.decoders` finds in folders of pictures, and that hostile ones do not end it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import decoders
from benchmarks.decoders import Result, agreeing, compared, differs, pictures
from benchmarks.other_decoders import OURS, Limits, Worker
from tests.support.colour_spaces import ADOBE, SRGB, chrm, gama
from tests.support.image_files import noise

OTHERS = ("libvips", "ImageMagick", "OpenCV", "Chromium")
MANAGED = ("libvips", "ImageMagick", "Chromium")
BROWSER = ("Chromium",)
LIMITS = Limits(pixels=10_000, seconds=60, magick="")


def result(levels: Mapping[str, float], judges: tuple[str, ...] = OTHERS) -> Result:
    """Of a file that each decoder shows in one grey."""
    return Result(
        path=Path("picture.png"),
        kind="PNG",
        judges=frozenset(judges),
        shown=tuple(levels),
        refused={},
        failed=[],
        differences={
            (one, other): abs(levels[one] - levels[other]) for one, other in permutations(levels, 2)
        },
    )


@pytest.mark.parametrize(
    ("levels", "judges", "agree", "differ"),
    [
        ((10, 10, 11, 11, 12), OTHERS, OTHERS, False),
        ((10, 13, 13, 14, 14), OTHERS, OTHERS, True),
        ((10, 50, 50, 50, 10), OTHERS, ("libvips", "ImageMagick", "OpenCV"), True),
        # Of two groups of the same size the one counts that is like ours.
        ((10, 50, 50, 10, 10), OTHERS, ("OpenCV", "Chromium"), False),
        # Those two that agree with ours ignore the profile, or one of them does.
        ((10, 10, 50, 10, 50), MANAGED, ("ImageMagick", "Chromium"), True),
        ((10, 10, 30, 10, 50), MANAGED, (), False),
        # All but Chromium ignore what the file says.
        ((50, 10, 10, 10, 50), BROWSER, BROWSER, False),
        ((10, 10, 10, 10, 50), BROWSER, BROWSER, True),
    ],
)
def test_colours_are_judged_by_the_decoders_that_agree(
    levels: tuple[float, ...], judges: tuple[str, ...], agree: tuple[str, ...], *, differ: bool
) -> None:
    judged = result(dict(zip((OURS, *OTHERS), levels, strict=True)), judges)
    assert agreeing(judged) == agree
    assert differs(judged) is differ


def test_a_file_that_is_refused_here_has_no_colours_to_judge() -> None:
    assert not differs(result(dict.fromkeys(OTHERS, 10)))


def test_without_the_only_judge_nothing_is_judged() -> None:
    shown = (OURS, "libvips", "ImageMagick", "OpenCV")
    judged = result(dict(zip(shown, (10, 50, 50, 50), strict=True)), BROWSER)
    assert not differs(judged)


@pytest.mark.parametrize(
    ("data", "judges"),
    [
        *[(b"PNG", OTHERS), (b"iCCP", MANAGED), (b"iCCP gAMA", BROWSER)],
        (b"ICC_PROFILE\0", MANAGED),
        (gama(45_455) + chrm(SRGB), OTHERS),
        (gama(45_455) + chrm(ADOBE), BROWSER),
        (gama(50_000) + chrm(SRGB), BROWSER),
        (gama(45_455) + chrm(SRGB) + b"iCCP", BROWSER),
    ],
)
def test_those_judge_that_apply_what_the_file_says(data: bytes, judges: tuple[str, ...]) -> None:
    assert decoders.judges_of(data) == set(judges)


def test_pictures_are_found_by_their_content_and_once(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "c.png").write_bytes(b"GIF89a")
    assert pictures([tmp_path]) == {tmp_path: [tmp_path / "a.png"]}


def test_a_file_is_decoded_by_each_worker(tmp_path: Path) -> None:
    """And again by a worker whose process was killed, or that took too long."""
    pixels = noise(40, 30, 3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    worker = Worker(OURS, LIMITS)
    hasty = Worker(OURS, Limits(pixels=10_000, seconds=0, magick=""))
    try:
        with ThreadPoolExecutor(2) as pool:
            both = compared(path, {OURS: worker, "hasty": hasty}, pool)
        assert both.shown == (OURS,)
        assert both.failed == ["hasty"]
        assert both.refused == {"hasty": "took more than 0 s"}
        worker._process.kill()
        assert worker.decode(path.read_bytes()).reason == "crashed, status -9"
        again = worker.decode(path.read_bytes()).pixels
        assert again is not None
        assert np.array_equal(again, pixels)
    finally:
        worker.stop()
        hasty.stop()


def test_a_refusal_is_printed_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    refused = Result(path, "PNG", frozenset(OTHERS), OTHERS[:3], {OURS: "it is damaged"}, [], {})
    decoders.print_refused([refused])
    assert f"| it is damaged | {path} | libvips, ImageMagick, OpenCV |" in capsys.readouterr().out


def test_what_only_one_decoder_applies_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    shown = dict(zip((OURS, *OTHERS), (50, 10, 10, 10, 50), strict=True))
    decoders.print_differing([result(shown, BROWSER), result(shown, OTHERS)])
    printed = capsys.readouterr().out
    assert "\n1 files are shown as by the only decoder" in printed
    assert "\n1 files have other colours" in printed
