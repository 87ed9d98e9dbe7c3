"""The mock's clock, which tests can advance."""

import time
from collections.abc import Callable


class Clock:
    """Seconds since 1970, or those of another `source`, plus what the clock was advanced by."""

    def __init__(self, source: Callable[[], float] | None = None) -> None:
        # The system's time can be set back while a mock runs (NTP); the monotonic clock cannot.
        self._offset_s = 0.0 if source else time.time() - time.monotonic()
        self._source = source or time.monotonic
        self.advanced_s = 0.0

    def __call__(self) -> float:
        return self._offset_s + self._source() + self.advanced_s

    def advance(self, seconds: float) -> None:
        """Advance the clock; raises ValueError if `seconds` is negative or not finite."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("a clock can only be advanced, by a number of seconds from 0")
        self.advanced_s += seconds

    def reset(self) -> None:
        """Show the source's time again."""
        self.advanced_s = 0.0
