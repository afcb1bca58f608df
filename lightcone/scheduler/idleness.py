"""When a session has gone unused, or has been forgotten, for so long that it ends by itself."""

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
    """Who has taken a lease of a session and not given it up.

    A lease of which nothing is heard any more expires: its owner may have died without a word.

    Args:
        expiry: seconds in which a lease has to be used again.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._unused: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._was_taken = False

    @property
    def names(self) -> list[str]:
        """The leases that are held, the one taken first at the beginning."""
        return list(self._unused)

    @property
    def are_over(self) -> bool:
        """Whether there have been leases and the last has been given up."""
        return self._was_taken and not self._unused

    def take(self, name: str) -> None:
        """Take a lease, or use it again."""
        self._was_taken = True
        self._unused[name] = 0.0

    def begin_use(self, name: str) -> None:
        """It is in use from now on, and does not expire."""
        self.take(name)
        self._held[name] += 1

    def end_use(self, name: str) -> None:
        """What began with :meth:`begin_use` is over."""
        self._held[name] -= 1
        if name in self._unused:
            self._unused[name] = 0.0

    def release(self, name: str) -> None:
        """Give a lease up; one that nobody has is none."""
        self._unused.pop(name, None)

    def pass_time(self, seconds: float) -> None:
        """Let those expire that have not been used for so long."""
        for name in [name for name in self._unused if not self._held[name]]:
            self._unused[name] += seconds
            if self._unused[name] >= self._expiry:
                del self._unused[name]


# What a program asks of the engine when it wants something of the results it holds.
_QUESTIONS = ("gather", "who_has", "broadcast", "run_function")


class Idleness:
    """Follows the uses of a session.

    A session is *unused* while nobody has a task, a result, a run or a command there. It is
    *forgotten* while a program holds results there, and nothing is computed and nothing asked.

    Args:
        scheduler: the session's.
        is_called: whether a run or a command is there.
        leases: the session's.
        idle_timeout: seconds without use after which the session is to end.
        forgotten_timeout: the same for one that is forgotten.
        beginning: seconds that whoever started it may take until he uses it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        is_called: Callable[[], bool],
        leases: Leases,
        idle_timeout: float,
        forgotten_timeout: float,
        beginning: float = 0.0,
    ) -> None:
        self.interval = min(1.0, idle_timeout / 4, forgotten_timeout / 4)
        self._scheduler = scheduler
        self._is_called = is_called
        self._leases = leases
        self._idle_timeout = idle_timeout
        self._forgotten_timeout = forgotten_timeout
        self._watch = Stopwatch(self.interval)
        self._least = self._unused = -beginning
        self._unasked = 0.0
        self._questions = 0
        self._seen = (0, 0, 0)
        for name in _QUESTIONS:
            scheduler.handlers[name] = self._counted(scheduler.handlers[name])

    def in_use(self) -> bool:
        """Whether anybody has a task, a result, a run or a command here."""
        return bool(self._scheduler.tasks) or self._is_called()

    def look(self) -> str:
        """Why the session is to end now, or "": to be called every :attr:`interval` seconds."""
        passed = self._watch.lap()
        self._leases.pass_time(passed)
        news = self._has_news()
        if self._has_clients():
            self._least = 0.0
        self._unused = self._least if news or self.in_use() else self._unused + passed
        self._unasked = 0.0 if news or self._is_busy() else self._unasked + passed
        if self._leases.are_over and not (self.in_use() or self._has_clients()):
            return "its last lease was given up"
        if self._unused >= self._idle_timeout:
            return f"idle for {format_seconds(self._idle_timeout)}"
        if self._scheduler.tasks and self._unasked >= self._forgotten_timeout:
            return (
                f"forgotten for {format_seconds(self._forgotten_timeout)}: a program held results "
                "and asked nothing"
            )
        return ""

    def _has_clients(self) -> bool:
        """Whether a program is connected, were it only to compute something later."""
        return any(client != "fire-and-forget" for client in self._scheduler.clients)

    def _has_news(self) -> bool:
        """Whether anything has happened since the last look, perhaps begun and ended."""
        seen = (self._scheduler.transition_counter, len(self._scheduler.tasks), self._questions)
        news, self._seen = seen != self._seen, seen
        return news

    def _is_busy(self) -> bool:
        workers = self._scheduler.workers.values()
        return self._is_called() or any(worker.processing for worker in workers)

    def _counted(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def call(*arguments: Any, **named: Any) -> Any:
            self._questions += 1
            return handler(*arguments, **named)

        return call
