"""How much memory the largest answer takes: its file, and little more."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

MIB = 2**20
ROOM = 80 * MIB
"""For strips that are being made and encoded, more on more cores, and base64 on its way out."""

LARGEST = """
import json, sys
from pathlib import Path
import numpy as np
from tests.support.service import Resizer, png, serving

class Noise(Resizer):
    def upscale(self, pixels, model, size, progress):
        for seed in range(0, size[1], 64):
            yield np.random.default_rng(seed).integers(0, 256, (64, size[0], 3), dtype=np.uint8)

def answer_bytes(height):
    fields = {"init_image": png(256, 256), "output_image_height": height}
    headers = {"Accept": sys.argv[1]}
    with client.stream("POST", "/upscaling", json=fields, headers=headers, timeout=300) as answer:
        assert answer.status_code == 200, answer.read()
        length = sum(map(len, answer.iter_raw()))
        assert length == int(answer.headers["Content-Length"])
    return length

def held_bytes(line):
    return int(Path("/proc/self/status").read_text().partition(line)[2].split()[0]) * 1024

with serving(Noise()) as client:
    answer_bytes(512)  # so that whatever is loaded once is there
    before = held_bytes("VmRSS:")
    answer = answer_bytes(8192)
    print(json.dumps({"answer": answer, "taken": held_bytes("VmHWM:") - before}))
"""


@pytest.mark.first(1)
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_the_largest_answer_takes_its_file_and_little_more(accept: str) -> None:
    """8192x8192 pixels of noise: 201 MB of PNG, which nowhere are 268 MB of base64."""
    command = [sys.executable, "-c", LARGEST, accept]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    file = found["answer"] * 3 // 4 if accept == "application/json" else found["answer"]
    assert 8192 * 8192 * 3 < file < 8192 * 8192 * 3 * 1.01
    assert file < found["taken"] < file + ROOM
