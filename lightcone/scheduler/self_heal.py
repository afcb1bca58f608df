"""Restores the sockets and files of a living session, and refreshes their timestamps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lightcone.errors import SessionError
from lightcone.scheduler.control_server import ControlServer
from lightcone.system.files import private_directory, write_atomically
from lightcone.system.locks import Lock, refresh_lock_file

__all__ = ["SelfHeal"]

_TOUCH_INTERVAL = 600.0


class SelfHeal:
    """Restores sockets, locks and files that a cleaner or a user removed.

    Args:
        control: the session's control socket, beside which its terminal server's is.
        locks: the locks that this process holds; True for a shared one.
        files: the files that other processes read, as they are now.
        publish: writes the session's record again.
        record: the record.
        claims: the directory of the outputs' locks, which may be held longer than a cleaner waits.
    """

    def __init__(
        self,
        control: ControlServer,
        locks: dict[Path, bool],
        files: list[Path],
        publish: Callable[[], None],
        record: Path,
        claims: Path,
    ) -> None:
        self._control = control
        self._terminal_socket = control.path.with_name("tmux")
        self._terminal = _find_terminal()
        self._locks = locks
        self._recreated_locks: list[Lock] = []
        self._files = {path: path.read_bytes() for path in files}
        self._publish = publish
        self._record = record
        self._claims = claims
        self._next_touch = 0.0

    async def check(self) -> None:
        """Restore missing files and sockets; to be called about once a second."""
        with contextlib.suppress(OSError, SessionError):
            self._restore_files()
        with contextlib.suppress(OSError, SessionError):
            await self._restore_sockets()
        if time.monotonic() > self._next_touch:
            self._next_touch = time.monotonic() + _TOUCH_INTERVAL
            paths = (*self._locks, *self._files, self._record)
            for path in (*paths, self._control.path, self._terminal_socket):
                with contextlib.suppress(OSError):
                    os.utime(path)
            await asyncio.to_thread(_refresh_locks, self._claims)

    def _restore_files(self) -> None:
        for path, shared in self._locks.items():
            if not path.exists():
                private_directory(path.parent, "")
                lock = Lock(path)
                if lock.acquire(shared=shared):
                    self._recreated_locks.append(lock)
        for path, content in self._files.items():
            if not path.exists():
                private_directory(path.parent, "")
                write_atomically(path, content)
        if not self._record.exists():
            self._publish()

    async def _restore_sockets(self) -> None:
        private_directory(self._control.path.parent, "")
        await self._control.restore()
        if self._terminal is not None and not self._terminal_socket.exists():
            with contextlib.suppress(psutil.Error):
                self._terminal.send_signal(signal.SIGUSR1)  # it makes its socket again


def _refresh_locks(claims: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(claims) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                refresh_lock_file(entry.path, entry.stat(follow_symlinks=False))


def _find_terminal() -> psutil.Process | None:
    """Find the terminal server that this process runs in: its guard's parent."""
    with contextlib.suppress(psutil.Error):
        terminal = psutil.Process(os.getppid()).parent()
        if terminal is not None and terminal.name().startswith("tmux"):
            return terminal
    return None
