"""The processes of a session, known by the lock that they hold, and ended without its help.

A process of the session holds ``members.lock`` shared, through a descriptor of its own, from its
first moment to its last. Nobody else takes that lock so, and the kernel tells who has it (Linux):
that is the proof that a process is one of ours, whatever else of the session is gone or stuck.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from lightcone.project.context import Context
from lightcone.session.terminal import tmux
from lightcone.system import guard

__all__ = ["ask", "holders", "kill", "resume"]

_MARGIN = 10.0
_TICK = 0.02


def holders(lock: Path, *, shared: bool = False) -> list[int]:
    """The processes of this user that hold ``lock``, exclusively or shared (Linux)."""
    if not os.path.isdir("/proc/self/fdinfo"):
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if _has(pid, lock, shared)]


def _has(pid: int, lock: Path, shared: bool) -> bool:
    path, mode = os.path.realpath(lock), b"READ" if shared else b"WRITE"
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                # A lock file that was removed is held all the same.
                if os.readlink(f"/proc/{pid}/fd/{number}") in (path, f"{path} (deleted)"):
                    with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
                        if any({b"FLOCK", mode} <= set(line.split()) for line in file):
                            return True
    return False


def resume(context: Context) -> None:
    """Let the session's programs go on, where they have been stopped: they could not end."""
    tmux.resume(context.tmux_socket)
    for pid in holders(context.members_lock, shared=True):
        _send(context, pid, signal.SIGCONT)


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
    below = {pid for member in members for pid in guard.descendants(member)}
    return [pid for pid in members if pid not in below]


def _send(context: Context, pid: int, signum: signal.Signals) -> None:
    handle = -1
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        # Another process may have got the id since it was found.
        if _has(pid, context.members_lock, shared=True):
            signal.pidfd_send_signal(handle, signum)
    if handle >= 0:
        os.close(handle)
