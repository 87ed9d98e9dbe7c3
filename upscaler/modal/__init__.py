"""The service on Modal: its settings, its GPU workers, and the command that uses them."""

import sys

# The first of our modules that Modal's command imports. A traceback would not say what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036  modal itself runs on 3.10
    sys.exit(
        f"Python 3.11 or newer is needed here, and this is {sys.version.split()[0]}. Make an "
        "environment with one, and in it: pip install modal~=1.6.4"
    )
