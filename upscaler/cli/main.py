"""The command line: `upscaler image`, `serve`, `weights` and `bench`.

Each command is imported only when it runs, so that the others start fast. The exit status is 0 for
success, 1 for a failure, and 2 for an invalid command or input.
"""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from upscaler.cli import options
from upscaler.cli.output import error_text, fail
from upscaler.errors import FileRefused, ImageError, InvalidRequest, UpscalerError
from upscaler.files import STDOUT, discard_stdout, escape_unencodable, flushed_stdout
from upscaler.install import install_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's arguments; return the exit status."""
    # A SystemExit unwinds the stack, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    escape_unencodable()
    try:
        with flushed_stdout():
            args = options.parser().parse_args(argv)
            status: int = import_module(f"upscaler.cli.{args.command}").run(args)
            return status
    except ModuleNotFoundError as error:
        # Any other missing module is a bug or a broken installation, which needs its traceback.
        if error.name not in ("torch", "safetensors"):
            raise
        return fail(f"this needs the engine: {install_command('engine')}", 1)
    except BrokenPipeError:
        # The reader of our output closed the pipe, as `head` does.
        discard_stdout()
        return 1
    except (UpscalerError, OSError) as error:
        if isinstance(error, OSError) and error.filename == STDOUT:
            discard_stdout()
        wrong_command = isinstance(error, InvalidRequest | ImageError | FileRefused)
        return fail(error_text(error), 2 if wrong_command else 1)
    except KeyboardInterrupt:
        return fail("interrupted", 130)  # 128 + SIGINT, as shells report it
