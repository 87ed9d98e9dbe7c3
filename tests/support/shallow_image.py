"""`upscaler image` with a network of one convolution: `python -m tests.support.shallow_image`."""

import sys

from tests.support import networks
from tests.support.checkpoints import small
from upscaler.cli.main import main
from upscaler.engine import weights

if __name__ == "__main__":
    loaded = weights.Loaded(networks.lively(small()), "00")
    weights.load = lambda *_: loaded
    sys.exit(main(["image", "--scale", "1", "--quiet", *sys.argv[1:]]))
