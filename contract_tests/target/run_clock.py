"""How long a run goes on: until its time is up, or until somebody interrupts it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from contract_tests.failures import TimeUp

SLICE_S: Final = 0.2
"""Whoever waits looks this often whether the run still goes on."""


class RunClock:
    """Ends a run after `max_time_s` seconds, by default never, or as soon as it is interrupted.

    Python raises KeyboardInterrupt wherever the main thread happens to be, and drops it where that
    is a callback of the garbage collector (Hypothesis has one) or a finalizer. So a SIGINT is
    remembered here as well, and everything that takes time asks by `check`.
    """

    def __init__(self, max_time_s: float | None = None) -> None:
        self.interrupted = False
        self._max_time_s = max_time_s
        self._until_s = float("inf")
        self._raises = False
        self.start()

    def start(self) -> None:
        """Count the time from now on."""
        if self._max_time_s is not None:
            self._until_s = time.monotonic() + self._max_time_s

    @property
    def left_s(self) -> float:
        """The seconds that are left, at least 0; infinite without a limit."""
        return max(0.0, self._until_s - time.monotonic())

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run was interrupted, TimeUp if its time is up."""
        if self.interrupted:
            raise KeyboardInterrupt
        if not self.left_s:
            raise TimeUp(f"the {self._max_time_s:g} s of --max-time have passed")

    def pause(self, seconds: float) -> None:
        """Sleep, or raise what `check` raises as soon as it is known that the run ends before."""
        self.check()
        until_s = time.monotonic() + seconds
        if seconds >= self.left_s:
            raise TimeUp(
                f"a pause of {seconds:g} s would go beyond the {self._max_time_s:g} s of --max-time"
            )
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, SLICE_S))
            self.check()

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """Remember every SIGINT of the block, and raise KeyboardInterrupt within `raising` alone.

        Elsewhere in the block, such as while reports are written, the work at hand is completed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # signals belong to the main thread, and whoever called this has it
            return
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let a SIGINT raise at once; one that came before, or was dropped, is raised here."""
        self._raises = True
        try:
            if self.interrupted:
                raise KeyboardInterrupt
            yield
            if self.interrupted:
                raise KeyboardInterrupt
        finally:
            self._raises = False

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupted = True
        if self._raises:
            raise KeyboardInterrupt
