"""The kernels compiled for cards that are not here: what comes out, and that it is all there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is made for Linux alone")

PROGRAM = """
import sys, json, subprocess, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch, triton
from upscaler.engine.gpu import compile as ahead
from upscaler.engine.gpu.whole_maps import whole_maps
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import RRDBNet, SRVGGNetCompact

capability, *others = map(int, sys.argv[1:])
compiled = ahead.compile_kernels(capability)
tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
def described(kernel):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [tool, "-sass", "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    name, size = kernel.metadata.name, kernel.metadata.shared
    return {"card": card, "name": name, "shared": size, "text": said.stdout + said.stderr}
with ThreadPoolExecutor() as pool:
    for card in (capability, *others):
        for each in pool.map(described, ahead.compile_kernels(card)):
            print(json.dumps(each))
with ahead._as_if_on(capability):
    for net in (RRDBNet(scale=2, num_block=2), SRVGGNetCompact(scale=4, num_conv=2)):
        network = whole_maps(net.requires_grad_(False), capability)
        for height, width, rows in ((5, 9, 100), (16, 32, 4), (33, 70, 12)):
            fold = network.fold
            stream = network.open(Resolution(height, width, height), rows)
            strip = stream.push(torch.zeros(height * fold, width * fold, 3))
            while strip is not None:
                strip = stream.push(None)
print(json.dumps({"compiled": len(compiled), "after": len(ahead.compile_kernels(capability))}))
"""
MOST_SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227}
"""The most shared memory of a block, by compute capability (CUDA C++ Programming Guide, table of
compute capabilities)."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cards", "products"),
    [((80, 86, 89), "HMMA"), ((90,), "HGMMA"), ((100,), "UTCHMMA")],
    ids=["Ampere and Ada", "Hopper", "Blackwell"],
)
def test_kernels_use_tensor_cores_and_spill_nothing(
    cards: tuple[int, ...], products: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, cards)],
        capture_output=True,
        text=True,
        check=True,
    )
    *kernels, counts = map(json.loads, ran.stdout.splitlines())
    # Others would be compiled when a picture comes, which takes seconds.
    assert counts["after"] == counts["compiled"] == len(kernels) // len(cards)
    assert {kernel["card"] for kernel in kernels} == {*cards}
    for kernel in kernels:
        name, text = f"{kernel['name']} for {kernel['card']}", kernel["text"]
        assert kernel["shared"] <= MOST_SHARED_KIB[kernel["card"]] * 1024, name
        assert re.search(r"STACK:0\b", text), f"{name} spills"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name} spills"
        if kernel["name"] != "convolve_image":  # it is in fp32
            assert re.search(rf"\b{products}\b", text), f"{name} has no {products}"
