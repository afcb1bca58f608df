"""The holders of a lock are known by the file that they have locked, and not by its path."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightcone.session import members
from tests.helpers import Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the holders are Linux's to tell")
_HOLD = """\
import fcntl, os, signal, sys
mode = {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}[sys.argv[2]]
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, mode)
print("held", flush=True)
signal.pause()
"""
_ELSEWHERE = """mount -t tmpfs none "$1" || exit; shift; exec "$@\""""


@contextlib.contextmanager
def _holder(lock: Path, mode: str, elsewhere: bool = False) -> Iterator[int]:
    """A process that holds a lock, on request on another file system at the same path."""
    command = [sys.executable, "-c", _HOLD, str(lock), mode]
    if elsewhere:
        command = ["unshare", "-m", "sh", "-c", _ELSEWHERE, "sh", str(lock.parent), *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "held\n":
                pytest.skip("this user may make no mount namespace")
            yield process.pid
        finally:
            process.kill()


def test_holders_are_told_by_how_they_hold(sandbox: Sandbox) -> None:
    lock = sandbox.runtime / "a.lock"
    assert members.holders(lock) == []
    with _holder(lock, "shared") as first, _holder(lock, "shared") as second:
        assert set(members.holders(lock, shared=True)) == {first, second}
        assert members.holders(lock) == []
        assert members.holders(lock.with_name("b.lock"), shared=True) == []
    with _holder(lock, "exclusive") as first:
        assert members.holders(lock) == [first]
        assert members.holders(lock, shared=True) == []


def test_a_lock_that_was_removed_is_held_all_the_same(sandbox: Sandbox) -> None:
    lock = sandbox.runtime / "a.lock"
    with _holder(lock, "shared") as first:
        lock.unlink()
        assert members.holders(lock, shared=True) == [first]
        with _holder(lock, "shared") as second:
            assert set(members.holders(lock, shared=True)) == {first, second}


def test_a_lock_of_another_mount_namespace_is_another(sandbox: Sandbox) -> None:
    lock = sandbox.runtime / "a.lock"
    with _holder(lock, "shared", elsewhere=True) as other:
        assert not lock.exists()
        assert members.holders(lock, shared=True) == []
        with _holder(lock, "shared") as first:
            assert members.holders(lock, shared=True) == [first]
            assert other != first
