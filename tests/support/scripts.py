"""Scripts that run in a process of their own, so that its memory can be measured."""

from tempfile import TemporaryFile
from typing import Final

from tests.support.forks import Forks

IMAGING: Final = Forks("upscaler.imaging.decode", "upscaler.imaging.encode")
ENGINE: Final = Forks(
    *("tests.support.checkpoints", "tests.support.networks", "upscaler.engine.cpu.whole_maps"),
    "upscaler.service.app",
)


def numbers_of(
    script: str, *arguments: object, forks: Forks = IMAGING, timeout_s: int = 120
) -> list[int]:
    """The numbers that a script of Python prints; it must end well.

    What `forks` has imported is there already.
    """
    command = ["-c", script, *map(str, arguments)]
    with TemporaryFile("w+") as said, TemporaryFile("w+") as errors:
        process = forks.start(command, stdout=said, stderr=errors)
        status = process.wait(timeout_s)
        for file in (said, errors):
            file.seek(0)
        assert status == 0, errors.read()[-2000:]
        return [int(word) for word in said.read().split()]
