"""Compare what the service makes of picture files with what other decoders show: Markdown tables.

    python -m benchmarks.decoders FOLDER... [--pixels N] [--seconds S] [--magick PROGRAM]

Decodes every PNG, JPEG and WebP file below the folders, once however many copies of it there are,
by `upscaler.imaging.decode` and by those of `benchmarks.other_decoders` that are installed. The
others are not asked to be strict: what they show of a damaged file counts as shown.

Prints the counts, every file that at least ENOUGH others show and the service refuses, every file
in which the service differs by a mean of more than TOLERANCE levels from others that agree with
each other, and every crash and timeout. Pictures are compared in 8 bits, on white. Two decoders at
least must agree that apply what the file says of its colours, or the only one that does.

The files may be hostile: each decoder is a process of its own, which is replaced when it crashes or
takes more than S seconds, and pictures of more than N pixels are not decoded.
"""

import argparse
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from benchmarks.hostile_images import heading, row
from benchmarks.other_decoders import (
    DECODERS,
    FORMATS,
    OURS,
    TOO_LARGE,
    Limits,
    Worker,
    format_of,
    imagemagick,
    installed,
)
from upscaler.api.limits import MAX_INPUT_PX
from upscaler.imaging.pixels import Pixels

_BROWSER: Final = ("Chromium",)
HEEDED_BY: Final = {
    **dict.fromkeys((b"iCCP", b"ICC_PROFILE\0", b"ICCP"), ("libvips", "ImageMagick", "Chromium")),
    **dict.fromkeys((b"cICP", b"gAMA", b"cHRM"), _BROWSER),
}
"""What says in a file which colours its samples are, and who applies it. ImageMagick heeds a gAMA
of 1 alone."""
TOLERANCE: Final = 2.0
"""The mean over all samples, in levels of 255. Decoders enlarge a JPEG's chroma differently."""
SRGB: Final = (45_455, 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
SRGB_ROOM: Final = (2_272, *[1_000] * 8)
ENOUGH: Final = 3
MAX_FILE_BYTES: Final = 32 << 20
AT_ONCE: Final = 2
"""How many decoders work at the same time."""


@dataclass(frozen=True)
class Result:
    """What came of a file, without the pixels."""

    path: Path
    kind: str | None
    judges: frozenset[str]
    """The others that apply what the file says of its colours, be that nothing."""
    shown: tuple[str, ...]
    """The decoders that show it."""
    refused: dict[str, str]
    """The reason of each that does not."""
    failed: list[str]
    """Those of them that crashed or took too long."""
    differences: dict[tuple[str, str], float]
    """The mean difference in levels of each two that show it, in either order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--pixels", type=int, default=MAX_INPUT_PX**2, metavar="N")
    parser.add_argument("--seconds", type=float, default=20, metavar="S")
    parser.add_argument("--magick", default=imagemagick(), metavar="PROGRAM")
    args = parser.parse_args()
    limits = Limits(args.pixels, args.seconds, args.magick)
    names = installed(limits)
    print(f"{heading()}\n- compared with {', '.join(names[1:])}", flush=True)
    workers = {name: Worker(name, limits) for name in names}
    results: dict[Path, list[Result]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for folder, files in pictures(args.folders).items():
            results[folder] = [compared(path, workers, pool) for path in tqdm(files, str(folder))]
    for worker in workers.values():
        worker.stop()
    everything = [result for group in results.values() for result in group]
    print_counts(results, names)
    print_refused(everything)
    print_differing(everything)
    print_failed(everything)


def pictures(folders: list[Path]) -> dict[Path, list[Path]]:
    """The files to compare, by folder; of those with the same content the first one."""
    seen: set[bytes] = set()
    found: dict[Path, list[Path]] = {folder: [] for folder in folders}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            data = path.read_bytes()
            digest = hashlib.sha256(data).digest()
            if format_of(data) and digest not in seen:
                seen.add(digest)
                found[folder].append(path)
    return found


def compared(path: Path, workers: dict[str, Worker], pool: ThreadPoolExecutor) -> Result:
    """Decode a file by all of the workers, or only by the first if it finds it too large."""
    data = path.read_bytes()
    outcomes = {OURS: workers[OURS].decode(data)}
    if outcomes[OURS].reason != TOO_LARGE:
        others = [name for name in workers if name != OURS]
        made = pool.map(lambda name: workers[name].decode(data), others)
        outcomes |= zip(others, made, strict=True)
    shown = {name: one.pixels for name, one in outcomes.items() if one.pixels is not None}
    return Result(
        path=path,
        kind=format_of(data),
        judges=judges_of(data),
        shown=tuple(shown),
        refused={name: one.reason for name, one in outcomes.items() if one.pixels is None},
        failed=[name for name, one in outcomes.items() if one.failed],
        differences={
            (one, other): difference(shown[one], shown[other])
            for one, other in permutations(shown, 2)
        },
    )


def judges_of(data: bytes) -> frozenset[str]:
    """The decoders, but ours, that apply all of what a file says of its colours."""
    everyone = frozenset(DECODERS) - {OURS}
    if says_srgb(data):
        return everyone
    return everyone.intersection(*(HEEDED_BY[mark] for mark in HEEDED_BY if mark in data))


def says_srgb(data: bytes) -> bool:
    """Whether a PNG has the gAMA and cHRM that stand for sRGB (11.3.2.5), and nothing else.

    All but Chromium take the pair so: libpng within 5% and 0.01.
    """
    _, has_gamma, gamma = data.partition(b"gAMA")
    _, has_primaries, primaries = data.partition(b"cHRM")
    if not has_gamma or not has_primaries or b"cICP" in data or b"iCCP" in data:
        return False
    found = np.frombuffer(gamma[:4] + primaries[:32], ">u4").astype(np.int64)
    return len(found) == len(SRGB) and bool((np.abs(found - SRGB) <= SRGB_ROOM).all())


def difference(one: Pixels, other: Pixels) -> float:
    """The mean in levels, infinite if the sizes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(np.int16) - other).mean())


def agreeing(result: Result) -> tuple[str, ...]:
    """The others that agree with each other: the most, and of several so many, those like ours."""
    others = [name for name in result.shown if name != OURS]
    groups = [
        group
        for size in range(1, len(others) + 1)
        for group in combinations(others, size)
        if all(result.differences[pair] <= TOLERANCE for pair in combinations(group, 2))
        and len(result.judges.intersection(group)) >= min(2, len(result.judges))
    ]
    return max(groups, key=lambda group: (len(group), -apart(result, group)), default=())


def apart(result: Result, group: tuple[str, ...]) -> float:
    """How far the service is from the one in the group that is nearest to it, in levels."""
    return min(result.differences.get((OURS, name), 0.0) for name in group)


def print_counts(results: dict[Path, list[Result]], names: list[str]) -> None:
    print("\nHow many files each decoder shows, and how many have other colours here:")
    print_heading("folder", "format", "files", "too large", *names, "other colours")
    for folder, group in results.items():
        for kind in FORMATS:
            files = [result for result in group if result.kind == kind]
            shown = [sum(name in result.shown for result in files) for name in names]
            if files:
                large = sum(result.refused.get(OURS) == TOO_LARGE for result in files)
                numbers = (len(files), large, *shown, sum(map(differs, files)))
                print(row(str(folder), kind, *map(str, numbers)))


def print_refused(results: list[Result]) -> None:
    refused = [
        (result.refused[OURS], result)
        for result in results
        if OURS in result.refused and len(result.shown) >= ENOUGH
    ]
    print(f"\n{len(refused)} files are refused, and shown by {ENOUGH} others:")
    print_heading("reason", "file", "shown by")
    for reason, result in sorted(refused, key=lambda each: (each[0], each[1].path)):
        print(row(reason, str(result.path), ", ".join(result.shown)))


def differs(result: Result) -> bool:
    return bool(group := agreeing(result)) and apart(result, group) > TOLERANCE


def print_differing(results: list[Result]) -> None:
    differing = [result for result in results if differs(result)]
    everyone = judges_of(b"")
    alone = [r for r in results if not differs(r) and differs(replace(r, judges=everyone))]
    print(
        f"\n{len(alone)} files are shown as by the only decoder that applies what they say of their"
    )
    print("colours, and otherwise than the others, which agree with each other.")
    print(f"\n{len(differing)} files have other colours than those others show that agree:")
    print_heading("file", "agree", "mean difference in levels to each")
    for result in differing:
        others = [name for name in result.shown if name != OURS]
        told = [f"{name} {result.differences[OURS, name]:.1f}" for name in others]
        print(row(str(result.path), ", ".join(agreeing(result)), ", ".join(told)))


def print_failed(results: list[Result]) -> None:
    failed = [(result, name) for result in results for name in result.failed]
    print(f"\n{len(failed)} crashes and timeouts:")
    print_heading("file", "decoder", "what happened")
    for result, name in failed:
        print(row(str(result.path), name, result.refused[name]))


def print_heading(*cells: str) -> None:
    print(f"\n{row(*cells)}\n{row(*['---'] * len(cells))}")


if __name__ == "__main__":
    main()
