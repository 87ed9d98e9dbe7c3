"""What every run of the contract tests would do again: imported once, by who forks their processes.

Half of a short run is Hypothesis's table of characters, the constants that it looks for in our
sources, and collecting what imports leave behind. The tests themselves are not imported: they take
the settings of Hypothesis that are in force then.
"""

import gc

from hypothesis import given, settings
from hypothesis import strategies as st

from contract_tests import session, terminal

__all__ = ["session", "terminal"]


@settings(max_examples=1, database=None)
@given(st.characters(), st.integers())
def draw(character: str, number: int) -> None:
    """Enough for Hypothesis to make both."""


draw()
gc.collect()
gc.freeze()
