"""`upscaler serve` with networks that only repeat pixels: all of it is real but their depth.

python tests/support/shallow_serve.py --port 0
"""

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from upscaler.cli.main import main
from upscaler.engine import weights
from upscaler.engine.networks import build
from upscaler.models import MODELS, Compact, Model


def load(model: Model, *_: object) -> weights.Loaded:
    """A network without weights, which adds nothing to the pixels of its input."""
    net = build(model.network).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.zero_()
    return weights.Loaded(net, "00")


if __name__ == "__main__":
    for name, model in MODELS.items():
        shallow = Compact(scale=model.scale, num_conv=0)
        MODELS[name] = replace(model, network=shallow, receptive_field=2, halo=2, multiple=1)
    found = weights.Found(Path(), weights.Source.FOLDER, None)
    with patch.object(weights, "load", load), patch.object(weights, "find", lambda *_: found):
        sys.exit(main(["serve", *sys.argv[1:]]))
