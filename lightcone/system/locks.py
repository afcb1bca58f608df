"""Kernel locks on files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

from lightcone.errors import SessionError

__all__ = ["Lock", "check_locks", "refresh_lock_file"]

_TICK = 0.02
_OLD = 24 * 3600.0


class Lock:
    """Advisory whole-file lock (``flock``), which ends with its last holder.

    The lock belongs to the open file, so a child process that is handed :attr:`fd` holds it too,
    and it lasts until every such process has ended or one of them calls :meth:`release`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def acquire(self, *, shared: bool = False, timeout: float | None = 0.0) -> bool:
        """Take the lock within ``timeout`` seconds (None: no limit), or return False.

        Raises:
            SessionError: where the file cannot be opened or its file system has no locks.
        """
        try:
            self.fd = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise SessionError(
                f"The lock file {self.path} cannot be opened ({error.strerror}): make room in its "
                "directory or make it writable, or set LIGHTCONE_SCRATCH to one that is."
            ) from error
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                try:
                    fcntl.flock(self.fd, mode if deadline is None else mode | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    if deadline is None or time.monotonic() >= deadline:
                        break
                time.sleep(_TICK)
        except OSError as error:
            self.close()
            raise _without_locks(self.path.parent) from error
        except BaseException:
            self.close()
            raise
        self.close()
        return False

    def release(self) -> None:
        """Release the lock for every process that shares this open file."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close this process's descriptor; other holders keep the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def mark(self, text: str) -> None:
        """Write ``text`` into the lock file, by which others know it; the lock is held.

        A full disk may keep it out.
        """
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, text.encode(), 0)

    def marks(self, size: int) -> str:
        """Return the first ``size`` characters of the lock file, which is open."""
        with contextlib.suppress(OSError):
            return os.pread(self.fd, size, 0).decode("ascii", "replace")
        return ""

    @staticmethod
    def open_existing(path: Path) -> Lock | None:
        """Open a lock file without taking or making it; None where that cannot be done."""
        lock = Lock(path)
        # A pipe there must not hold anybody up.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        try:
            lock.fd = os.open(path, flags)
        except (OSError, ValueError):
            return None
        if stat.S_ISREG(os.fstat(lock.fd).st_mode):
            return lock
        lock.close()
        return None

    def take(self) -> bool:
        """Take the lock of the open file, exclusively and at once, or return False.

        Raises:
            OSError: where the file system has no locks.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @staticmethod
    def is_free(path: Path, *, including_shared: bool = False) -> bool:
        """Whether no process holds the lock exclusively or, ``including_shared``, at all."""
        if not path.exists():
            return True
        probe = Lock(path)
        if not probe.acquire(shared=not including_shared):
            return False
        probe.release()
        return True


def refresh_lock_file(file: int | str, status: os.stat_result) -> None:
    """Renew an old lock file's time, so that cleaners do not remove it."""
    if status.st_mtime < time.time() - _OLD:
        with contextlib.suppress(OSError):
            os.utime(file)


def check_locks(directory: Path) -> None:
    """Raise SessionError unless locks taken in ``directory`` exclude each other."""
    first, second = (Lock(directory / ".lock-check") for _ in range(2))
    if not first.acquire(timeout=5.0):
        raise _without_locks(directory)
    try:
        if second.acquire():
            second.release()
            raise _without_locks(directory)
    finally:
        first.release()


def _without_locks(directory: Path) -> SessionError:
    return SessionError(
        f"The file system of {directory} has no working file locks: set LIGHTCONE_SCRATCH to a "
        "directory on one that has (on a cluster usually $SCRATCH, else a local disk)."
    )
