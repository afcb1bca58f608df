"""The spawn lock: one call at a time starts or ends a session, and the others wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session import members

__all__ = ["DEADLINE", "held", "locked", "spawn_lock"]

DEADLINE = 60.0
"""Seconds that a call waits for its turn, and for a session that is starting."""
_TICK = 0.02


def spawn_lock(context: Context) -> FileLock:
    """The lock, which refuses a file system that has no working ones."""
    return FileLock(context.spawn_lock, mode=0o600, fallback_to_soft=False)


@contextlib.contextmanager
def held(context: Context) -> Iterator[None]:
    """Context in which this call has the lock.

    Raises:
        SessionError: on entry, where another has it for too long.
    """
    lock = spawn_lock(context)
    try:
        lock.acquire(timeout=DEADLINE, poll_interval=_TICK)
    except Timeout as error:
        raise locked(context) from error
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
