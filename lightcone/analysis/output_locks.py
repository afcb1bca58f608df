"""The locks of outputs, on scratch: an output is made by one, or read by many."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightcone.analysis.journal import is_over, read_journal
from lightcone.locks import Lock, renew

__all__ = ["Busy", "acquire", "lock_path", "read_inputs", "wait_for"]

_RETRY_ELSEWHERE = 2.0


@dataclass(frozen=True)
class Busy:
    """Somebody else has the claim.

    Attributes:
        by: who, in words.
        lock: the lock to wait for; None where it cannot be waited for from here.
        shared: whether it is enough that nobody has it to himself, as for an input.
    """

    by: str
    lock: Path | None
    shared: bool = False


def lock_path(claims: Path, path: Path, real_path: Callable[[str], str] = os.path.realpath) -> Path:
    """The lock of the output at ``path``, the same for every name of its directory.

    ``real_path`` may remember what it has said, for as long as no directory is moved.
    """
    directory, name = os.path.split(path)
    place = os.path.join(real_path(directory), name)
    return claims / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.lock"


def acquire(lock: Lock, *, shared: bool = False) -> bool:
    """Take an output's lock, unless somebody has it, and keep it from looking old.

    Raises:
        SessionError: where it cannot be had.
    """
    while lock.acquire(shared=shared):
        held = os.fstat(lock.fd)
        with contextlib.suppress(OSError):
            if os.path.samestat(held, os.stat(lock.path, follow_symlinks=False)):
                renew(lock.fd, held)
                return True
        lock.close()  # a cleaner has removed it meanwhile, and somebody may have the next one
    return False


def read_inputs(
    claims: Path,
    inputs: Sequence[tuple[Path, Path]],
    real_path: Callable[[str], str] = os.path.realpath,
) -> list[Lock] | Busy:
    """Locks that keep outputs from being remade while they are read.

    Contexts with locks of their own are not kept from it, but one that is at it now is ``Busy``.

    Args:
        claims: the directory of the locks.
        inputs: the path and the state directory of each output.
        real_path: see :func:`lock_path`.

    Raises:
        SessionError: where a lock cannot be had.
    """
    with contextlib.ExitStack() as until_all:
        locks: list[Lock] = []
        for path, state in inputs:
            lock = Lock(lock_path(claims, path, real_path))
            taken = acquire(lock, shared=True)
            if taken:
                until_all.callback(lock.close)
                locks.append(lock)
                told = read_journal(state)
                if told is None or told.get("lock") == str(lock.path) or is_over(told):
                    continue
            who = f"its input {path.name}, which is being made"
            return Busy(who, None if taken else lock.path, shared=True)
        until_all.pop_all()
        return locks


def wait_for(lock: Path | None, shared: bool) -> None:
    """Return when it is worth trying again to have what was :class:`Busy`.

    Raises:
        SessionError: where the lock cannot be asked.
    """
    if lock is None:
        time.sleep(_RETRY_ELSEWHERE)
        return
    held = Lock(lock)
    held.acquire(shared=shared, timeout=None)
    held.release()
