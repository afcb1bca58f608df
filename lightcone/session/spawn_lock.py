"""The spawn lock: one call at a time starts or ends a session, and the others wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session import members

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["DEADLINE", "held", "locked", "spawn_lock", "take"]

DEADLINE = 60.0
"""Seconds that a call waits for its turn, and for a session that is starting."""
_TICK = 0.02


def spawn_lock(context: Context) -> FileLock:
    """The lock, which refuses a file system that has no working ones."""
    from filelock import FileLock  # most calls find a session, and need no lock

    return FileLock(context.spawn_lock, mode=0o600, fallback_to_soft=False)


def take(lock: FileLock, timeout: float = 0.0) -> bool:
    """Take the lock; False where another has had it for ``timeout`` seconds."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=timeout, poll_interval=_TICK)
    except Timeout:
        return False
    return True


@contextlib.contextmanager
def held(context: Context) -> Iterator[None]:
    """Context in which this call has the lock.

    Raises:
        SessionError: on entry, where another has it for too long.
    """
    lock = spawn_lock(context)
    if not take(lock, DEADLINE):
        raise locked(context)
    try:
        yield
    finally:
        lock.release()


def locked(context: Context) -> SessionError:
    """The error of a call whose turn has not come, which names whose it is."""
    who = " and ".join(f"process {pid}" for pid in members.holders(context.spawn_lock))
    return SessionError(
        f"Somebody has been starting or ending this session for {DEADLINE:.0f} s "
        f"({f'{who} holds ' if who else ''}{context.spawn_lock}): look at 'lc session status', "
        "and run again."
    )
