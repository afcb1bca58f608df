"""Time in which this process was awake: a machine that sleeps, or a stopped process, uses none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Stopwatch", "SuspendAwareTimer"]

_STEP = 1.0


class Stopwatch:
    """Seconds in which this process ran, for one who looks at it every ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self._longest = 2 * step
        self._last = time.monotonic()

    def lap(self) -> float:
        """The seconds since the last look, less those in which this process did not run."""
        now = time.monotonic()
        passed = min(now - self._last, self._longest)
        self._last = now
        return passed


class SuspendAwareTimer(threading.Thread):
    """Calls ``function(*arguments)`` once this process has been awake for ``seconds``."""

    def __init__(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        super().__init__(daemon=True)
        self._left = seconds
        self._function = function
        self._arguments = arguments
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Call nothing any more."""
        self._cancelled.set()

    def run(self) -> None:
        """The thread's part."""
        watch = Stopwatch(_STEP)
        while self._left > 0:
            if self._cancelled.wait(min(self._left, _STEP)):
                return
            self._left -= watch.lap()
        self._function(*self._arguments)
