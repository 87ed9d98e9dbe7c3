"""The time as the mock takes it."""

import time
from collections.abc import Callable


class Clock:
    """The seconds since 1970, or those of another `source`, and as many more as it was advanced."""

    def __init__(self, source: Callable[[], float] | None = None) -> None:
        self._began_s = 0.0 if source else time.time() - time.monotonic()
        self._source = source or time.monotonic  # which nobody puts right meanwhile
        self.advanced_s = 0.0

    def __call__(self) -> float:
        return self._began_s + self._source() + self.advanced_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once; raises ValueError for less than none."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("a clock can only be advanced, by a number of seconds")
        self.advanced_s += seconds

    def reset(self) -> None:
        """Be right again."""
        self.advanced_s = 0.0
