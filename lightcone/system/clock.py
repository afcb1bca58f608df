"""Timers on a suspend clock: time asleep or stopped does not count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Stopwatch", "SuspendAwareTimer"]

_STEP = 1.0


class Stopwatch:
    """Running time of this process; the caller reads it every ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self._longest = 2 * step
        self._last = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last call, less those spent suspended."""
        now = time.monotonic()
        passed = min(now - self._last, self._longest)
        self._last = now
        return passed


class SuspendAwareTimer(threading.Thread):
    """Timer thread: calls ``function(*arguments)`` after ``seconds`` of running time."""

    def __init__(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        super().__init__(daemon=True)
        self._remaining = seconds
        self._function = function
        self._arguments = arguments
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the timer, so that it does not call the function."""
        self._cancelled.set()

    def run(self) -> None:
        """Wait for the time to pass, then call the function."""
        watch = Stopwatch(_STEP)
        while self._remaining > 0:
            if self._cancelled.wait(min(self._remaining, _STEP)):
                return
            self._remaining -= watch.lap()
        self._function(*self._arguments)
