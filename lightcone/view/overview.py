"""The program of a session's first window: the live view.

Run by the session's terminal server, ``python -P -m lightcone.view.overview SOCKET``.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from lightcone.session.terminal import tmux
from lightcone.view.screen import show

__all__ = ["main"]

_INTERVAL = 2.0


class _Viewers:
    """Whether a terminal is attached; asks the terminal server every few seconds."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        # The program starts as a terminal attaches, and draws first: asking takes an import.
        self._next_check = time.monotonic() + _INTERVAL
        self._attached = True

    def are_attached(self) -> bool:
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + _INTERVAL
            self._attached = tmux.is_watched(self._socket)
        return self._attached


def main(runtime: Path) -> None:
    """Show the session whose sockets are in the directory ``runtime``."""
    viewers = _Viewers(runtime / "tmux")
    # Where the session does not answer, its other windows say why.
    with contextlib.suppress(OSError):
        show(runtime / "control", interactive=False, should_continue=viewers.are_attached)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
