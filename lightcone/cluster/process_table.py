"""The table of processes: who is below whom, and who carries which mark."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time

from lightcone.cluster.guard import children_of_all, descendants

__all__ = ["MARK", "ProcessTable"]

MARK = "LIGHTCONE_TASK"
"""The variable in their environment by which a command's processes are known."""

_FRESH = 0.05
_ENTRY = f"\0{MARK}=".encode()


class ProcessTable:
    """What the system tells of its processes; of another user's, or on macOS, no marks.

    Where many commands end at once, all of them are served by one look.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, list[tuple[int, bool]]] = {}
        self._marked: dict[str, set[int]] = {}
        self._begun = self._done = -math.inf

    def below(self, root: int) -> set[int]:
        """The living processes below ``root``, as of just now."""
        with self._lock:
            self._look(-math.inf)
            return set(descendants(root, self._children))

    def marked(self, mark: str, since: float = -math.inf) -> set[int]:
        """Those that carry ``mark``, as of just now and not before ``since`` (monotonic)."""
        with self._lock:
            self._look(since)
            return set(self._marked.get(mark, ()))

    def _look(self, since: float) -> None:
        if self._begun >= since and time.monotonic() < self._done + _FRESH:
            return
        self._begun = time.monotonic()
        self._children, self._marked = children_of_all(), {}
        for pid in [pid for children in self._children.values() for pid, _ in children]:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
                _, found, rest = (b"\0" + file.read()).partition(_ENTRY)
                if found:
                    mark = os.fsdecode(rest.partition(b"\0")[0])
                    self._marked.setdefault(mark, set()).add(pid)
        self._done = time.monotonic()
