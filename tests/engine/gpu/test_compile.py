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
from pathlib import Path
import torch, triton
from upscaler.engine.gpu import compile as ahead
from upscaler.engine.gpu.whole_maps import whole_maps
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import RRDBNet, SRVGGNetCompact

capability = int(sys.argv[1])
compiled = ahead.compile_kernels(capability)
tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
for kernel in compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        said = [
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True)
            for option in ("-sass", "-res-usage")
        ]
    text = "".join(each.stdout + each.stderr for each in said)
    size = kernel.metadata.shared
    print(json.dumps({"name": kernel.metadata.name, "shared": size, "text": text}))
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
MOST_SHARED_KIB = {80: 99, 90: 227}
"""The most shared memory of a block, by compute capability (CUDA C++ Programming Guide, table of
compute capabilities). 8.6 and 8.9 have fewer than 8.0, and the kernels are the same."""


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "products"), [(90, "HGMMA"), (80, "HMMA")])
def test_kernels_use_tensor_cores_and_spill_nothing(
    capability: int, products: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(capability)], capture_output=True, text=True, check=True
    )
    *kernels, counts = map(json.loads, ran.stdout.splitlines())
    # Others would be compiled when a picture comes, which takes seconds.
    assert counts["after"] == counts["compiled"] == len(kernels)
    for kernel in kernels:
        name, text = kernel["name"], kernel["text"]
        assert kernel["shared"] <= MOST_SHARED_KIB[capability] * 1024, name
        assert re.search(r"STACK:0\b", text), f"{name} spills"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name} spills"
        if name != "convolve_image":  # it is in fp32
            assert re.search(rf"\b{products}\b", text), f"{name} has no {products}"
