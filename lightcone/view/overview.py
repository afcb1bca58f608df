"""The program of a session's first window: the screen, for as long as somebody is attached.

Run by the session's terminal server, ``python -P -m lightcone.view.overview SOCKET``.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from lightcone.session import tmux
from lightcone.view.screen import show

__all__ = ["main"]

_INTERVAL = 2.0


class _Audience:
    """Whether anybody is attached, asked of the terminal server every few seconds."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        # The program starts as a terminal attaches, and draws first: asking takes an import.
        self._next = time.monotonic() + _INTERVAL
        self._there = True

    def is_there(self) -> bool:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL
            self._there = tmux.is_watched(self._socket)
        return self._there


def main(runtime: Path) -> None:
    """Show the session whose sockets are in the directory ``runtime``."""
    audience = _Audience(runtime / "tmux")
    # Where the session does not answer, its other windows say why.
    with contextlib.suppress(OSError):
        show(runtime / "control", choosing=False, stay=audience.is_there)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
