"""The table of processes: which are below a command, and which carry its mark."""

from __future__ import annotations

import contextlib
import math
import threading
import time

__all__ = ["MARK", "ProcessTable"]

MARK = "LIGHTCONE_TASK"
"""The variable in their environment by which a command's processes are known."""

_FRESH = 0.05


class ProcessTable:
    """What the system tells of its processes; of another user's, no marks.

    Where many commands end at once, all of them are served by one look.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, list[int]] = {}
        self._children_until = -math.inf
        self._marked: dict[str, set[int]] = {}
        self._marked_begun = self._marked_until = -math.inf

    def below(self, root: int) -> set[int]:
        """The living processes below ``root``, which is below this process, as of just now."""
        with self._lock:
            if time.monotonic() >= self._children_until:
                self._children = _children_below_here()
                self._children_until = time.monotonic() + _FRESH
            found, queue = set[int](), [root]
            while queue:
                children = self._children.get(queue.pop(), [])
                queue += [pid for pid in children if pid not in found]
                found.update(children)
            return found

    def marked(self, mark: str, since: float = -math.inf) -> set[int]:
        """Those that carry ``mark``, as of just now and not before ``since`` (monotonic)."""
        with self._lock:
            if self._marked_begun < since or time.monotonic() >= self._marked_until:
                self._marked_begun = time.monotonic()
                self._marked = _marked()
                self._marked_until = time.monotonic() + _FRESH
            return set(self._marked.get(mark, ()))


# Two looks, as psutil takes three times as long for both of every process as for its environment.
def _children_below_here() -> dict[int, list[int]]:
    import psutil

    children: dict[int, list[int]] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                children.setdefault(process.ppid(), []).append(process.pid)
    return children


def _marked() -> dict[str, set[int]]:
    import psutil

    marked: dict[str, set[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK)
            if mark is not None:
                marked.setdefault(mark, set()).add(process.pid)
    return marked
