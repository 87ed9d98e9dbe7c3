"""The mock's clock, which tests can advance."""

from collections.abc import Callable

from mock_server import real_time


class Clock:
    """Seconds since 1970, or those of another `source`, plus what the clock was advanced by.

    A test that freezes or moves the time of its process does not move this clock.
    """

    def __init__(self, source: Callable[[], float] | None = None) -> None:
        # The system's time can be set back while a mock runs (NTP); the monotonic clock cannot.
        self._offset_s = 0.0 if source else real_time.time() - real_time.monotonic()
        self._source = source or real_time.monotonic
        self.advanced_s = 0.0

    def __call__(self) -> float:
        return self._offset_s + self._source() + self.advanced_s

    def another(self) -> "Clock":
        """Return a clock of the same source, which is advanced by itself."""
        other = Clock(self._source)
        other._offset_s = self._offset_s
        return other

    def advance(self, seconds: float) -> None:
        """Advance the clock; raises ValueError if `seconds` is negative or not finite."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("a clock can only be advanced, by a number of seconds from 0")
        self.advanced_s += seconds

    def reset(self) -> None:
        """Show the source's time again."""
        self.advanced_s = 0.0
