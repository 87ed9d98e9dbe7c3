"""What comes of damaged files, and whether anything is given out that was not written: tables.

    python -m benchmarks.damaged_images [--count N]

First all hostile pictures of the tests, and N damaged files, by default 100,000. Those are sound
files in which something is missing, changed, swapped or repeated: ranges of bytes, chunks,
segments, restart intervals or scans; by chance, the same at each run. Then what else native code
does: inflating, undoing filters, decoding base64, encoding and resizing.

Each is done in two processes with other values in all of their memory, for which glibc is needed.
What comes of an input must be the same in both: the last column is how often it was not, and the
status is 1 then. Of files that are not refused it is told how many are still the whole picture. A
PNG must be. A JPEG and a WebP have no checksums, and may be another picture with no sign of it.
"""

import argparse
import sys
from collections import Counter

from benchmarks.hostile_images import heading, row
from tests.support.hostile_images import CASES
from tests.support.image_files import outcome
from tests.support.poisoned_memory import HOSTILE, LIBRARIES, WHOLE, lines, told

PICTURES = ("png", "jpeg", "webp")
HEADINGS = ("inputs", "number", "refused", "the whole picture", "another", "differ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="how many files are damaged")
    count = parser.parse_args().count
    print(f"{heading()}\n\n{row(*HEADINGS)}\n{row(*['---'] * len(HEADINGS))}", flush=True)
    each = -(-count // len(PICTURES))
    differing = measured(HOSTILE, len(CASES))
    for library in LIBRARIES:
        differing += measured(library, each if library in PICTURES else each // 10)
    return int(differing > 0)


def measured(library: str, count: int) -> int:
    """Print a row; the number of inputs of which not the same came in both memories."""
    first, second = lines([library], range(count))
    assert len(first) == len(second) == count
    whole = {told(outcome(data)) for data in WHOLE}
    results = Counter(line.split(maxsplit=2)[2] for line in first)
    refused = sum(count for result, count in results.items() if result[0].isalpha())
    sound = sum(count for result, count in results.items() if result in whole)
    cells = (refused, sound, count - refused - sound) if library in PICTURES else (refused, "", "")
    differing = sum(one != other for one, other in zip(first, second, strict=True))
    print(row(library, *map(str, (count, *cells, differing))), flush=True)
    return differing


if __name__ == "__main__":
    sys.exit(main())
