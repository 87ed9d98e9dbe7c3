"""The command line: `upscaler image`, `serve`, `weights` and `bench`.

Each command imports torch and FastAPI only when it runs, so that the others start fast. The exit
status is 0 for success, 1 for a failure, and 2 for an invalid command or input.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from upscaler.cli import bench, image, options, serve, weights
from upscaler.cli.output import STDOUT, error_text, fail
from upscaler.errors import FileRefused, ImageError, InvalidRequest, UpscalerError
from upscaler.files import escape_unencodable

COMMANDS: Final = {
    "image": image.run,
    "serve": serve.run,
    "weights": weights.run,
    "bench": bench.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's arguments; return the exit status."""
    # A SystemExit unwinds the stack, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    escape_unencodable()
    args = options.parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except ModuleNotFoundError as error:
        # Any other missing module is a bug or a broken installation, which needs its traceback.
        if error.name not in ("torch", "safetensors"):
            raise
        return fail("this needs the engine: pip install 'octo-upscaler[engine]'", 1)
    except BrokenPipeError:
        # The reader of our output closed the pipe, as `head` does.
        _close_stdout()
        return 1
    except (UpscalerError, OSError) as error:
        if isinstance(error, OSError) and error.filename == STDOUT:
            _close_stdout()
        wrong_command = isinstance(error, InvalidRequest | ImageError | FileRefused)
        return fail(error_text(error), 2 if wrong_command else 1)
    except KeyboardInterrupt:
        return fail("interrupted", 130)  # 128 + SIGINT, as shells report it


def _close_stdout() -> None:
    """Discard what standard output has not written: Python's flush at exit would fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
