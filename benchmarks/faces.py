"""Measure what the networks for faces need of memory and time, with random weights.

    python -m benchmarks.faces [--device cuda] [--side 1024]

Each line is a process of its own. On a CPU memory is the peak of the resident memory (Linux only)
over what it held with the network loaded; FINDING_BYTES and RESTORING_BYTES of
`upscaler/engine/faces/restoration.py` are for these figures.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from upscaler.engine.faces.alignment import FACE_PX
from upscaler.engine.faces.loading import BUILDERS
from upscaler.face_models import FACE_MODELS
from upscaler.planning import MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--side", default=1024, type=int, help="of the picture, to find faces in")
    parser.add_argument("--batch", default=1, type=int, help="how many faces at once")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model:
        measure(args.model, args.device, args.side, args.batch)
        return
    print(f"{'network':25} {'input':>14} {'MiB':>7} {'bytes/pixel':>12} {'seconds':>8}", flush=True)
    for name in FACE_MODELS:
        command = [sys.executable, "-m", "benchmarks.faces", "--model", name, *sys.argv[1:]]
        subprocess.run(command, check=True)


def measure(name: str, device: torch.device, side: int, batch: int) -> None:
    """Run a network twice; print the peak of its memory, and the time of the second run."""
    net = BUILDERS[name]().eval().requires_grad_(False).to(device)
    finds = name.startswith("retinaface")
    side, batch = (side, 1) if finds else (FACE_PX, batch)
    x = torch.rand(batch, 3, side, side, device=device)
    before = peak(device)
    for _ in range(2):
        began_s = time.perf_counter()
        with torch.inference_mode():
            net(x)
        if device.type == "cuda":
            torch.cuda.synchronize()
        took_s = time.perf_counter() - began_s
    most = peak(device) - before
    shape, share = f"{batch} x {side}x{side}", most / (batch * side**2)
    print(f"{name:25} {shape:>14} {most / MIB:7.0f} {share:12.0f} {took_s:8.3f}", flush=True)


def peak(device: torch.device) -> int:
    """The most memory that this process has had so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
