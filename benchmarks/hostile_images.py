"""What a file that means harm takes of the service: a table in Markdown (Linux only).

    python -m benchmarks.hostile_images [--runs N] [--only WORD] [--brief]

Every file gets a service of its own, in a process of its own, and is sent to it several times; what
is printed is the median. The service enlarges without a network, here to the picture's own size, so
that all its time and memory goes into reading the request and the picture and writing the answer.
Seconds are those of all cores together, and memory is the most over that of the service at rest.
The files, and what must come of them, are those of tests/service/test_hostile_images.py, and a row
is
printed only if that came of it.
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

from PIL import features

from tests.support.hostile_images import CASES
from tests.support.image_cases import MIB, Case, check, send, told, warmed
from tests.support.processes import child
from upscaler.bench.machine import describe

HEADINGS = ("file", "MiB", "answer", "seconds", "MiB at most")
BRIEF_S, BRIEF_MIB = 0.01, 2
PACKAGES = ("isal", "pillow", "pyspng", "simplejpeg")
"""What reads pictures."""
LIBRARIES = ("webp", "littlecms2")
"""What does so beneath Pillow."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="how often each file is sent")
    parser.add_argument("--only", default="", metavar="WORD", help="files with this in their name")
    parser.add_argument("--brief", action="store_true", help="count what takes hardly anything")
    args = parser.parse_args()
    print(f"{heading()}\n\n{row(*HEADINGS)}\n{row(*['---'] * len(HEADINGS))}", flush=True)
    left_out = 0
    for case in CASES:
        if args.only in case.name:
            cells = measured(case, args.runs)
            if args.brief and float(cells[3]) <= BRIEF_S and int(cells[4]) <= BRIEF_MIB:
                left_out += 1
            else:
                print(row(*cells), flush=True)
    if left_out:
        print(f"\n{left_out} more files take at most {BRIEF_S} s and {BRIEF_MIB} MiB each.")


def heading() -> str:
    """What the figures come from."""
    machine = describe()
    memory = machine.memory_bytes or 0
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    versions += [f"{name} {features.version(name)}" for name in LIBRARIES]
    lines = [
        f"{machine.processor}, {machine.cores} cores, {memory / 1e9:.1f} GB, {machine.system}",
        f"Python {machine.python}, {', '.join(versions)}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def measured(case: Case, runs: int) -> tuple[str, ...]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder, child(Path(folder)) as server:
        resting = warmed(server)
        sent = [send(case, server, resting) for _ in range(runs)]
    for each in sent:
        check(case, each)
    return (
        case.name,
        f"{sent[0].file_bytes / MIB:.2f}",
        told(sent[0]),
        f"{median(each.seconds for each in sent):.2f}",
        f"{median(each.memory for each in sent) / MIB:.0f}",
    )


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
