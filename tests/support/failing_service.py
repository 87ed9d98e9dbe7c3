"""A service with the real engine, one of whose models is fast and has a release on this machine.

    python -m tests.support.failing_service RELEASES PATH BYTES SHA256 [FOLDER]

Failed downloads of weights are retried soon, so that tests need not wait for a minute.
"""

import functools
import sys
from dataclasses import replace
from pathlib import Path

from tests.support import processes
from tests.support.checkpoints import NAME
from upscaler.engine import pool, weights
from upscaler.models import MODELS, Checkpoint, UpscalingModel
from upscaler.settings import Device, Settings

NETWORK = MODELS[UpscalingModel.ANIMEVIDEO_V3].network
RETRY_AFTER_S = 0.5


def main() -> None:
    releases, path, size_bytes, digest, *folder = sys.argv[1:]
    official = Checkpoint(path, int(size_bytes), digest)
    fast = replace(MODELS[NAME], network=NETWORK, official=official)
    vars(pool).update(MODELS={**MODELS, NAME: fast}, RETRY_AFTER_S=RETRY_AFTER_S)
    weights.fetch = functools.partial(weights.fetch, releases=releases)
    weights_folder = Path(folder[0]) if folder else None
    processes.serve(pool.EnginePool(Settings(weights=weights_folder, device=Device.CPU)))


if __name__ == "__main__":
    main()
