"""Private directories and atomic writes."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from lightcone.errors import SessionError
from lightcone.system.files import private_directory, write_atomically

_REMEDY = "use another"


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
    with pytest.raises(OSError, match="No space") as failed:
        write_atomically(path, b"new")
    assert str(failed.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{path}'"
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
