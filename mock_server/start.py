"""Where the command `upscaler-mock` begins: all that it needs is loaded at one go.

Meanwhile the garbage collector rests. It would look through all modules again and again, for a
tenth of the time until the mock is ready, and whatever they define is there to stay.
"""

import gc


def main() -> int:
    """Load the command and carry it out; return its status."""
    gc.disable()
    from mock_server.cli import main  # noqa: PLC0415  not before the line above

    gc.freeze()
    gc.enable()
    return main()
