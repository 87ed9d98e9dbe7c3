"""Clocks that no test replaces, for what must go on while a test has frozen or moved the time.

freezegun and tests themselves replace the functions of the module `time`, in all modules that have
them. The timers of an event loop would then lie decades ahead as soon as the time is right again.
"""

import asyncio
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from types import ModuleType
from typing import Final


def _own_copy() -> ModuleType:
    """Return a copy of the module `time` that nobody else has."""
    spec = BuiltinImporter.find_spec("time")
    assert spec, "it is built in"
    assert spec.loader, "it has the importer's"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_time: Final = _own_copy()
monotonic: Final[Callable[[], float]] = _time.monotonic
time: Final[Callable[[], float]] = _time.time

if sys.platform == "win32":
    _Loop = asyncio.ProactorEventLoop
else:
    _Loop = asyncio.SelectorEventLoop


class EventLoop(_Loop):
    """asyncio's event loop, with timers by the real time."""

    def time(self) -> float:
        return monotonic()
