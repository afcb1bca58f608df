"""The spawn lock: one call at a time starts or ends a session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.session import members
from lightcone.session.liveness import START_DEADLINE
from lightcone.system.locks import Lock

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["spawn_lock_held", "spawn_lock_timeout", "take_spawn_lock", "wait_for_spawn_lock"]

_TICK = 0.02


def take_spawn_lock(context: Context, timeout: float = 0.0) -> FileLock | None:
    """Take the lock; None where another call holds it for ``timeout`` seconds.

    A file system that has no working locks is refused.
    """
    if timeout == 0 and not Lock.is_free(context.spawn_lock):
        return None
    from filelock import FileLock, Timeout  # most calls find a session, and need no lock

    lock = FileLock(context.spawn_lock, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout, poll_interval=_TICK)
    except Timeout:
        return None
    return lock


def wait_for_spawn_lock(context: Context, seconds: float) -> None:
    """Wait at most ``seconds`` until no process holds the lock."""
    shared = Lock(context.spawn_lock)
    if shared.acquire(shared=True, timeout=seconds):
        shared.release()


@contextlib.contextmanager
def spawn_lock_held(context: Context) -> Iterator[None]:
    """Hold the spawn lock for the length of the block.

    Raises:
        SessionError: on entry, where another has it for too long.
    """
    lock = take_spawn_lock(context, START_DEADLINE)
    if lock is None:
        raise spawn_lock_timeout(context)
    try:
        yield
    finally:
        lock.release()


def spawn_lock_timeout(context: Context) -> SessionError:
    """The error of a call that could not get the lock in time."""
    holders = " and ".join(f"process {pid}" for pid in members.holders(context.spawn_lock))
    return SessionError(
        f"Somebody has been starting or ending this session for {START_DEADLINE:.0f} s "
        f"({f'{holders} holds ' if holders else ''}{context.spawn_lock}): look at 'lc session "
        "status', and run again."
    )
