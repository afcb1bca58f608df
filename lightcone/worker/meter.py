"""On a worker: what its commands use of the machine, looked at when somebody wants to see it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

__all__ = ["Meter"]

_PERIOD = 0.2
_OLD = 30.0


class Meter:
    """Measures the processes of a worker; between two readings it costs nothing.

    Processors are reckoned from one reading to the next, so the first takes a moment longer.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._at = -_OLD

    def read(self, commands: Mapping[str, int]) -> dict[str, Any]:
        """What the worker uses with all that it runs, and what each of the ``commands`` does.

        Args:
            commands: the process id of each, by its name.

        Returns:
            ``cpus`` that are busy and ``memory`` in bytes, and in ``commands`` the two of each.
        """
        if time.monotonic() - self._at > _OLD:
            self._look()
            time.sleep(_PERIOD)
        before, at = self._seconds, self._at
        found = self._look()
        passed = max(self._at - at, 1e-3)
        children: dict[int, list[int]] = {}
        for pid, (parent, _) in found.items():
            children.setdefault(parent, []).append(pid)

        def used(root: int) -> tuple[float, int]:
            cpus, memory, waiting = 0.0, 0, [root]
            while waiting:
                pid = waiting.pop()
                waiting += children.get(pid, ())
                if pid in found:
                    seconds = self._seconds[pid]
                    # One that is new has done all of its work since.
                    cpus += max(seconds - before.get(pid, 0.0), 0.0) / passed
                    memory += found[pid][1]
            return round(cpus, 2), memory

        # Its guard, who takes in what detaches itself from a command.
        cpus, memory = used(os.getppid())
        return {
            "cpus": cpus,
            "memory": memory,
            "commands": {name: used(pid) for name, pid in commands.items()},
        }

    def _look(self) -> dict[int, tuple[int, int]]:
        """The parent and memory of every process; the seconds of each are kept."""
        found, self._seconds = {}, {}
        for process in psutil.process_iter(["ppid", "cpu_times", "memory_info"]):
            told = process.info
            if told["cpu_times"] is None or told["memory_info"] is None:
                continue  # another user's, where the system does not tell
            found[process.pid] = (int(told["ppid"] or 0), int(told["memory_info"].rss))
            self._seconds[process.pid] = told["cpu_times"].user + told["cpu_times"].system
        self._at = time.monotonic()
        return found
