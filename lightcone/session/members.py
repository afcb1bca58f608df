"""The processes of a session, found by the lock that they hold.

A process of the session holds ``members.lock`` shared, through a descriptor of its own, from its
first moment to its last. No other process takes that lock shared, and the kernel lists its holders
(Linux): that proves that a process is one of ours, whatever else of the session is gone or stuck.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lightcone.project.context import Context
from lightcone.session.terminal import tmux
from lightcone.system import guard

if TYPE_CHECKING:
    import psutil

__all__ = ["ask", "holders", "kill", "resume"]

_MARGIN = 10.0
_TICK = 0.02


def holders(lock: Path, *, shared: bool = False) -> list[int]:
    """The processes of this user that hold ``lock``, exclusively or shared (Linux)."""
    if not os.path.isdir("/proc/self/fdinfo"):
        return []
    import psutil  # most calls look for no holder

    return [pid for pid in psutil.pids() if _has(pid, lock, shared)]


def _has(pid: int, lock: Path, shared: bool) -> bool:
    mode = b"READ" if shared else b"WRITE"
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                link = f"/proc/{pid}/fd/{number}"
                # Spares most descriptors what follows; stat(2) might wait for a lost file server.
                if lock.name not in os.readlink(link):
                    continue
                with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
                    if any({b"FLOCK", mode} <= set(line.split()) for line in file):
                        return _is_same(link, lock)
    return False


def _is_same(link: str, lock: Path) -> bool:
    """Whether a descriptor's link leads to the file of ``lock``, by device and inode.

    Another mount namespace may have a lock of the same path.
    """
    status = os.stat(link)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(status, os.stat(lock)):
            return True
    # A lock file that was removed is held all the same. It has left nothing to compare but its
    # former path, which counts on the same file system only.
    removed = status.st_nlink == 0 and os.readlink(link) == f"{os.path.realpath(lock)} (deleted)"
    return removed and status.st_dev == os.stat(lock.parent).st_dev


def resume(context: Context) -> list[psutil.Process]:
    """Let the session's programs go on where they have been stopped: they could not end.

    Returns:
        The processes of its terminal server, for :func:`lightcone.session.terminal.tmux.kill`.
    """
    members = holders(context.members_lock, shared=True)
    terminal = tmux.resume(context.tmux_socket, members)
    for pid in members:
        _send(context, pid, signal.SIGCONT)
    return terminal


def ask(context: Context) -> None:
    """Ask the session's programs to end; their guards see to the rest."""
    for pid in _outermost(holders(context.members_lock, shared=True)):
        _send(context, pid, signal.SIGTERM)


def kill(context: Context) -> None:
    """End every process of the session: its recipes are given the grace, and then killed too."""
    resume(context)
    for pid in holders(context.owner_lock):
        # Nothing of it is worth waiting for, and it may never act on a request.
        _send(context, pid, signal.SIGKILL)
    ask(context)
    deadline = time.monotonic() + context.settings.grace + _MARGIN
    while members := holders(context.members_lock, shared=True):
        late = time.monotonic() - deadline
        for pid in _outermost(members) if late > 0 else ():
            guard.end_all(pid, 0.0)
            _send(context, pid, signal.SIGKILL)
        if late > _MARGIN:
            return  # in the kernel's hands
        time.sleep(_TICK)


def _outermost(members: list[int]) -> list[int]:
    """Those that are below no other: guards, and programs that have lost theirs."""
    import psutil

    below = set()
    for member in members:
        with contextlib.suppress(psutil.Error):
            below |= {child.pid for child in psutil.Process(member).children(recursive=True)}
    return [pid for pid in members if pid not in below]


def _send(context: Context, pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process that holds a lock of the session."""
    import psutil

    with contextlib.suppress(OSError, psutil.Error), contextlib.ExitStack() as stack:
        process, handle = psutil.Process(pid), -1
        if hasattr(os, "pidfd_open"):
            handle = os.pidfd_open(pid)
            stack.callback(os.close, handle)
        # Another process may have got the id since it was found.
        if not _has(pid, context.members_lock, shared=True):
            return
        if handle >= 0:
            signal.pidfd_send_signal(handle, signum)
        else:
            process.send_signal(signum)  # compares the time at which the process began
