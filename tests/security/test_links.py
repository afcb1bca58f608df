"""Links where our files are to be: what they lead to is neither written nor opened to others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightcone.errors import SessionError
from lightcone.system.files import check_own, private_directory, write_atomically
from tests.helpers import Sandbox

_WORDS = "precious\n"
_LOCKS = ("owner.lock", "members.lock", "spawn.lock")
_REPLACED = (
    "session.json",
    "engine.json",
    "spawn.json",
    "tls/session.pem",
    "logs/scheduler.log",
    "logs/worker.log",
)


@pytest.fixture
def state(sandbox: Sandbox) -> Path:
    """The state directory of a session that has ended."""
    sandbox.lc("session", "start")
    state = sandbox.state()
    sandbox.lc("session", "stop")
    return state


@pytest.fixture
def precious(sandbox: Sandbox) -> Path:
    """A file of the user's that is no business of ours."""
    path = sandbox.home / "precious"
    path.write_text(_WORDS)
    path.chmod(0o644)
    return path


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_links_are_replaced_by_files(sandbox: Sandbox, state: Path, precious: Path) -> None:
    for name in _REPLACED:
        _link(state / name, precious)
    sandbox.lc("exec", "--", "true")
    for name in _REPLACED:
        assert not (state / name).is_symlink()
    sandbox.lc("session", "stop")
    assert precious.read_text() == _WORDS
    assert precious.stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("name", _LOCKS)
def test_lock_that_is_a_link_is_not_taken(
    sandbox: Sandbox, state: Path, precious: Path, name: str
) -> None:
    _link(state / name, precious)
    result = sandbox.lc("session", "start", check=3)
    assert f"{state / name} is not a file but a link or a directory: remove it." in result.stderr
    assert precious.read_text() == _WORDS
    (state / name).unlink()
    sandbox.lc("session", "start")


def test_temporary_file_is_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever guessed its name would have put something there."""
    monkeypatch.setattr(os, "urandom", lambda size: b"g" * size)
    precious = tmp_path / "precious"
    precious.write_text(_WORDS)
    for plant in (os.symlink, os.link):
        planted = tmp_path / f".file.{'67' * 8}.new"
        plant(precious, planted)
        with pytest.raises(FileExistsError):
            write_atomically(tmp_path / "file", b"ours")
        planted.unlink()
    assert precious.read_text() == _WORDS
    write_atomically(tmp_path / "file", b"ours")


def test_directories_above_a_private_one_are_private_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "a" / "b" / "c", "use another")
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        assert path.stat().st_mode & 0o7777 == 0o700


def test_directory_that_cannot_be_closed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that show the same modes for everything."""
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(0o777)
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    with pytest.raises(SessionError, match=r"cannot be closed to other users, .*: use another\.$"):
        private_directory(path, "use another")


def test_what_is_not_there_is_nobody_elses(tmp_path: Path) -> None:
    check_own(tmp_path / "missing", "use another")
    check_own(tmp_path, "use another")
    (tmp_path / "file").touch()
    check_own(tmp_path / "file" / "below", "use another")
    with pytest.raises(SessionError, match="but a link or a file: use another"):
        check_own(tmp_path / "file", "use another")
