"""Private directories, atomic writes and locks."""

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
from lightcone.files import Lock, check_locks, private_directory, write_atomically
from tests.helpers import wait_until

_REMEDY = "use another"
_HOLD = """\
import sys, time
from pathlib import Path
from lightcone.files import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.acquire(shared=sys.argv[2] == "shared"), flush=True)
sys.stdin.read()
"""


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_private_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert private_directory(path, _REMEDY) == path
    assert _mode(path) == 0o700
    assert private_directory(path, _REMEDY) == path


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o701])
def test_private_directory_that_is_open_is_closed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    private_directory(path, _REMEDY)
    assert _mode(path) == 0o700


def test_private_directory_is_not_one_that_all_share(tmp_path: Path) -> None:
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    with pytest.raises(SessionError, match=r"all users share: use another\.$"):
        private_directory(path, _REMEDY)
    assert _mode(path) == 0o1777


def test_private_directory_is_no_link_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(SessionError, match=r": use another\.$"):
            private_directory(tmp_path / name, _REMEDY)


def test_private_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match=r"cannot be made \(Not a directory\): use another\.$"):
        private_directory(tmp_path / "file" / "below", _REMEDY)


def test_private_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(SessionError, match=r"belongs to another user: use another\.$"):
        private_directory(tmp_path, _REMEDY)


@pytest.mark.parametrize("durable", [True, False])
def test_write_replaces_the_whole_file(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for data in (b"first", b"second, and longer", b""):
        write_atomically(path, data, durable=durable)
        assert path.read_bytes() == data
    assert _mode(path) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_writers_at_once_leave_one_of_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([65 + index]) * 10_000 for index in range(8)]
    threads = [
        threading.Thread(target=write_atomically, args=(path, content), kwargs={"durable": False})
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


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
    assert not Lock.is_free(tmp_path / "lock", of_all=True)
    first.release()
    second.release()
    assert Lock.is_free(tmp_path / "lock", of_all=True)


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
        assert not Lock.is_free(path, of_all=True)
        holder.kill()
        wait_until(lambda: Lock.is_free(path, of_all=True), "the kernel frees the lock")


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
