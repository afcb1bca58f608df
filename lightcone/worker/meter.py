"""Measures, on request, the processors and memory that a worker's commands use."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

__all__ = ["Meter"]

_PERIOD = 0.2
_MAX_AGE = 30.0


class Meter:
    """Measures the processes of a worker; costs nothing between two readings.

    Processors are reckoned from one reading to the next, so the first takes a moment longer.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._sampled_at = -_MAX_AGE

    def read(self, commands: Mapping[str, int]) -> dict[str, Any]:
        """Measure the worker with all its processes, and each of the ``commands``.

        Args:
            commands: the process id of each, by its name.

        Returns:
            ``cpus`` that are busy and ``memory`` in bytes, and in ``commands`` the two of each.
        """
        if time.monotonic() - self._sampled_at > _MAX_AGE:
            self._sample()
            time.sleep(_PERIOD)
        previous, sampled_at = self._seconds, self._sampled_at
        processes = self._sample()
        elapsed = max(self._sampled_at - sampled_at, 1e-3)
        children: dict[int, list[int]] = {}
        for pid, (parent, _) in processes.items():
            children.setdefault(parent, []).append(pid)

        def used(root: int) -> tuple[float, int]:
            cpus, memory, pending = 0.0, 0, [root]
            while pending:
                pid = pending.pop()
                pending += children.get(pid, ())
                if pid in processes:
                    seconds = self._seconds[pid]
                    # A new process has done all of its work since.
                    cpus += max(seconds - previous.get(pid, 0.0), 0.0) / elapsed
                    memory += processes[pid][1]
            return round(cpus, 2), memory

        # Its guard, which adopts processes that detach themselves from a command.
        cpus, memory = used(os.getppid())
        return {
            "cpus": cpus,
            "memory": memory,
            "commands": {name: used(pid) for name, pid in commands.items()},
        }

    def _sample(self) -> dict[int, tuple[int, int]]:
        """Return the parent and memory of every process, and store its processor seconds."""
        processes, self._seconds = {}, {}
        for process in psutil.process_iter(["ppid", "cpu_times", "memory_info"]):
            info = process.info
            if info["cpu_times"] is None or info["memory_info"] is None:
                continue  # another user's, where the system does not show these
            processes[process.pid] = (int(info["ppid"] or 0), int(info["memory_info"].rss))
            self._seconds[process.pid] = info["cpu_times"].user + info["cpu_times"].system
        self._sampled_at = time.monotonic()
        return processes
