"""`python -m upscaler`: the command, where its script is not on the PATH."""

import sys

from upscaler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
