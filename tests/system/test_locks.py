"""Kernel locks on files: who excludes whom, and until when."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lightcone.errors import SessionError
from lightcone.system.locks import Lock, check_locks
from tests.helpers import wait_until

_HOLD = """\
import sys, time
from pathlib import Path
from lightcone.system.locks import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.acquire(shared=sys.argv[2] == "shared"), flush=True)
sys.stdin.read()
"""


def test_lock_excludes_and_is_released(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    assert not second.acquire(timeout=0.05)
    assert not second.acquire(shared=True)
    first.release()
    assert second.acquire()
    second.release()
    second.release()


def test_lock_is_shared_by_those_who_share_it(tmp_path: Path) -> None:
    first, second, third = (Lock(tmp_path / "lock") for _ in range(3))
    assert first.acquire(shared=True)
    assert second.acquire(shared=True)
    assert not third.acquire()
    assert Lock.is_free(tmp_path / "lock")
    assert not Lock.is_free(tmp_path / "lock", including_shared=True)
    first.release()
    second.release()
    assert Lock.is_free(tmp_path / "lock", including_shared=True)


def test_lock_that_never_was_is_free_and_stays_unmade(tmp_path: Path) -> None:
    assert Lock.is_free(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_lock_is_waited_for(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire()
    timer = threading.Timer(0.1, first.release)
    timer.start()
    assert second.acquire(timeout=30)
    timer.join()
    second.release()


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_lock_ends_with_its_holder(tmp_path: Path, how: str) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not Lock.is_free(path, including_shared=True)
        holder.kill()
        wait_until(lambda: Lock.is_free(path, including_shared=True), "the kernel frees the lock")


def test_lock_is_held_by_a_child_that_was_handed_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock(path)
    assert lock.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fd]) as child:
        lock.close()
        assert not Lock.is_free(path)
        child.kill()
    assert Lock.is_free(path)


def test_lock_is_not_inherited_unasked(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock(path)
    assert lock.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.close()
        assert Lock.is_free(path)
        child.kill()


def test_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    for path in (tmp_path / "missing" / "lock", tmp_path / "link"):
        with pytest.raises(SessionError, match=r"cannot be opened .* set LIGHTCONE_SCRATCH"):
            Lock(path).acquire()


def test_working_locks_pass(tmp_path: Path) -> None:
    check_locks(tmp_path)
    check_locks(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(_: int, __: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(SessionError, match=f"{tmp_path} has no working file locks: set LIGHTCONE"):
        check_locks(tmp_path)


def test_file_system_whose_locks_exclude_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def everybody(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_UN:
            real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", everybody)
    with pytest.raises(SessionError, match="no working file locks"):
        check_locks(tmp_path)
