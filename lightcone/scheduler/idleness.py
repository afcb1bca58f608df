"""Leases and idle timeouts: when a session ends by itself."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from distributed import Scheduler

from lightcone.system.clock import Stopwatch
from lightcone.system.units import format_seconds

__all__ = ["Idleness", "Leases"]


class Leases:
    """The leases of a session that are held.

    A lease that is not used for long expires, because its owner may have died without releasing it.

    Args:
        expiry: seconds in which a lease has to be used again.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._idle_seconds: dict[str, float] = {}
        self._uses: Counter[str] = Counter()
        self._ever_taken = False

    @property
    def names(self) -> list[str]:
        """The names of the leases that are held, oldest first."""
        return list(self._idle_seconds)

    @property
    def all_released(self) -> bool:
        """Whether there have been leases and the last has been released."""
        return self._ever_taken and not self._idle_seconds

    def take(self, name: str) -> None:
        """Take a lease, or renew it."""
        self._ever_taken = True
        self._idle_seconds[name] = 0.0

    def begin_use(self, name: str) -> None:
        """Take a lease and keep it from expiring while it is in use."""
        self.take(name)
        self._uses[name] += 1

    def end_use(self, name: str) -> None:
        """End a use that began with :meth:`begin_use`."""
        self._uses[name] -= 1
        if name in self._idle_seconds:
            self._idle_seconds[name] = 0.0

    def release(self, name: str) -> None:
        """Release a lease; does nothing where it is not held."""
        self._idle_seconds.pop(name, None)

    def advance(self, seconds: float) -> None:
        """Advance the clock of unused leases, which expire after ``expiry`` seconds."""
        for name in [name for name in self._idle_seconds if not self._uses[name]]:
            self._idle_seconds[name] += seconds
            if self._idle_seconds[name] >= self._expiry:
                del self._idle_seconds[name]


# The engine's handlers that a program calls to use the results it holds.
_REQUESTS = ("gather", "who_has", "broadcast", "run_function")


class Idleness:
    """Tracks the uses of a session and decides when it ends.

    A session is *unused* while it has no task, result, run or command. It is *forgotten* while a
    program holds results there, computes nothing and requests nothing.

    Args:
        scheduler: the session's.
        has_callers: whether a run or a command is connected.
        leases: the session's.
        idle_timeout: seconds without use after which the session is to end.
        forgotten_timeout: the same for a forgotten session.
        startup_allowance: further seconds before the first use of the session.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        has_callers: Callable[[], bool],
        leases: Leases,
        idle_timeout: float,
        forgotten_timeout: float,
        startup_allowance: float = 0.0,
    ) -> None:
        self.interval = min(1.0, idle_timeout / 4, forgotten_timeout / 4)
        self._scheduler = scheduler
        self._has_callers = has_callers
        self._leases = leases
        self._idle_timeout = idle_timeout
        self._forgotten_timeout = forgotten_timeout
        self._stopwatch = Stopwatch(self.interval)
        self._floor = self._unused = -startup_allowance
        self._forgotten = 0.0
        self._requests = 0
        self._activity = (0, 0, 0)
        for name in _REQUESTS:
            scheduler.handlers[name] = self._count_calls(scheduler.handlers[name])

    def in_use(self) -> bool:
        """Return whether the session has tasks, results, runs or commands."""
        return bool(self._scheduler.tasks) or self._has_callers()

    def check(self) -> str:
        """Return why the session must end now, or ""; call every :attr:`interval` seconds."""
        elapsed = self._stopwatch.lap()
        self._leases.advance(elapsed)
        active = self._has_activity()
        if self._has_clients():
            self._floor = 0.0
        self._unused = self._floor if active or self.in_use() else self._unused + elapsed
        self._forgotten = 0.0 if active or self._is_busy() else self._forgotten + elapsed
        if self._leases.all_released and not (self.in_use() or self._has_clients()):
            return "its last lease was given up"
        if self._unused >= self._idle_timeout:
            return f"idle for {format_seconds(self._idle_timeout)}"
        if self._scheduler.tasks and self._forgotten >= self._forgotten_timeout:
            return (
                f"forgotten for {format_seconds(self._forgotten_timeout)}: a program held results "
                "and asked nothing"
            )
        return ""

    def _has_clients(self) -> bool:
        """Whether a program is connected, were it only to compute something later."""
        return any(client != "fire-and-forget" for client in self._scheduler.clients)

    def _has_activity(self) -> bool:
        """Whether anything has happened since the last check, perhaps begun and ended."""
        activity = (self._scheduler.transition_counter, len(self._scheduler.tasks), self._requests)
        active, self._activity = activity != self._activity, activity
        return active

    def _is_busy(self) -> bool:
        workers = self._scheduler.workers.values()
        return self._has_callers() or any(worker.processing for worker in workers)

    def _count_calls(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._requests += 1
            return handler(*arguments, **keywords)

        return call
