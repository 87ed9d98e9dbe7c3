"""`python -m upscaler`: the command, where its script is not on the PATH."""

import sys

from upscaler.cli.main import main

sys.exit(main())
