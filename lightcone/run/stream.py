"""A command's output as lines to show: whole ones, and no more than can be looked at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["LineStream"]

_LONGEST = 4096
# A recipe that prints faster fills its log; the terminal, and the scheduler between, are spared.
_BYTES_PER_SECOND = 200_000.0


class LineStream:
    """Cuts bytes into lines and passes them on, keeping the last ones.

    Args:
        tell: gets the whole lines of each piece.
        tail: gets every line, shown or not.
    """

    def __init__(self, tell: Callable[[list[str]], None], tail: deque[str]) -> None:
        self._tell = tell
        self._tail = tail
        self._rest = b""
        self._budget = _BYTES_PER_SECOND
        self._last = time.monotonic()
        self._hidden = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the output."""
        pieces = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = pieces.pop()
        if len(self._rest) > _LONGEST:
            pieces.append(self._rest)
            self._rest = b""
        self._pass_on([_text(piece) for piece in pieces], len(data))

    def finish(self) -> None:
        """The output has ended; what is left is a line too."""
        rest, self._rest = self._rest, b""
        self._budget = _BYTES_PER_SECOND
        self._pass_on([_text(rest)] if rest else [], len(rest))

    def _pass_on(self, lines: list[str], size: int) -> None:
        self._tail.extend(lines)
        now = time.monotonic()
        earned = (now - self._last) * _BYTES_PER_SECOND
        self._budget, self._last = min(self._budget + earned, _BYTES_PER_SECOND), now
        if size > self._budget:
            self._hidden += len(lines)
            return
        self._budget -= size
        if self._hidden:
            lines = [f"[{self._hidden} lines not shown: they are in the log]", *lines]
            self._hidden = 0
        if lines:
            self._tell(lines)


def _text(line: bytes) -> str:
    # Of a line that was drawn over, as progress bars do, what was to be seen last.
    drawn = line.rstrip(b"\r").rpartition(b"\r")[2]
    return drawn[:_LONGEST].decode("utf-8", "replace")
