"""The bytes of an output: hashed, compared, and not read without need."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.state import fingerprint as module
from lightcone.state.fingerprint import (
    UNTRUSTED,
    Data,
    Stamp,
    difference,
    fingerprint,
    fingerprint_foreign,
    unchanged,
)
from lightcone.system.files import flush_tree
from tests.helpers import wait_until


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read, as they are."""
    paths: list[str] = []
    original = module._hash

    def count(path: str, found: os.stat_result) -> str:
        paths.append(path)
        return original(path, found)

    monkeypatch.setattr(module, "_hash", count)
    return paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "deep/er").mkdir(parents=True)
    (top / "a.txt").write_text("a")
    (top / "deep/b.txt").write_text("b")
    (top / "deep/er/c.txt").write_text("c")
    return top


def edit(path: Path, text: str) -> None:
    """Write other bytes, at another time."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before, before + 1_000_000_000))


def copy_with_times(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    shutil.copystat(path, other)
    shutil.copy2(other, path)


def touch_back(path: Path, text: str) -> None:
    when = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(when, when))


def chmod(path: Path) -> None:
    path.chmod(0o600 if path.stat().st_mode & 0o044 else 0o644)


def link(path: Path) -> None:
    os.link(path, path.with_name("link"))
    path.with_name("link").unlink()


def move_and_return(path: Path) -> None:
    os.rename(path, path.with_name("moved"))
    os.rename(path.with_name("moved"), path)


Copy = Callable[[Path, str], None]
Touch = Callable[[Path], None]


def test_the_version_of_a_file_is_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content")
    data = fingerprint(path)
    assert data.version == hashlib.sha256(b"content").hexdigest()
    found = path.stat()
    assert data.files == {
        "": Stamp(7, found.st_mtime_ns, found.st_ino, data.version, found.st_ctime_ns)
    }
    assert unchanged(path, data)


def test_an_empty_file_and_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    assert fingerprint(tmp_path / "f").version == hashlib.sha256(b"").hexdigest()
    empty = fingerprint(tmp_path / "d")
    assert empty.files == {}
    assert unchanged(tmp_path / "d", empty)


def test_the_version_of_a_tree(tree: Path, tmp_path: Path) -> None:
    data = fingerprint(tree)
    assert set(data.files) == {"a.txt", "deep/b.txt", "deep/er/c.txt"}
    other = tmp_path / "other"
    (other / "deep/er").mkdir(parents=True)
    (other / "empty").mkdir()
    for name in sorted(data.files, reverse=True):
        (other / name).write_text((tree / name).read_text())
    (other / "a.txt").chmod(0o755)
    assert fingerprint(other).version == data.version
    os.rename(other / "a.txt", other / "z.txt")
    assert fingerprint(other).version != data.version


def test_a_tree_of_one_file_is_not_that_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("x")
    assert fingerprint(tmp_path / "d").version != fingerprint(tmp_path / "d/x").version


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda top: edit(top / "a.txt", "A"), "has a changed file a.txt"),
        (lambda top: edit(top / "deep/b.txt", "longer"), "has a changed file deep/b.txt"),
        (lambda top: (top / "deep/new").touch(), "has a new file deep/new"),
        (lambda top: (top / "a.txt").unlink(), "lacks a.txt"),
        (lambda top: os.rename(top / "deep/er", top / "moved"), "has a new file moved/c.txt"),
        (lambda top: os.rename(top, top.with_name("gone")), "is missing"),
    ],
)
def test_what_differs_in_a_tree(tree: Path, change: Callable[[Path], None], words: str) -> None:
    data = fingerprint(tree)
    assert difference(tree, data) == ""
    change(tree)
    assert difference(tree, data) == words
    assert not unchanged(tree, data)


def test_what_differs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    data = fingerprint(path)
    edit(path, "y")
    assert difference(path, data) == "was changed"
    path.unlink()
    assert difference(path, data) == "is missing"
    path.mkdir()
    assert difference(path, data) == "is now a directory"
    (path / "a").touch()
    tree = fingerprint(path)
    (path / "a").unlink()
    path.rmdir()
    path.touch()
    assert difference(path, tree) == "is no longer a directory"
    assert difference(path / "below", tree) == "cannot be read (Not a directory)"


def test_a_touched_file_is_read_and_found_the_same(tree: Path, reads: list[str]) -> None:
    data = fingerprint(tree)
    reads.clear()
    assert unchanged(tree, data)
    assert reads == []
    os.utime(tree / "a.txt", ns=(1, 1))
    assert unchanged(tree, data)
    assert reads == [str(tree / "a.txt")]


def test_a_file_of_another_size_is_not_even_read(tree: Path, reads: list[str]) -> None:
    data = fingerprint(tree)
    edit(tree / "a.txt", "longer")
    reads.clear()
    assert not unchanged(tree, data)
    assert reads == []


def test_known_files_are_not_read_again(tree: Path, reads: list[str]) -> None:
    data = fingerprint(tree)
    reads.clear()
    edit(tree / "deep/b.txt", "B")
    again = fingerprint(tree, data)
    assert reads == [str(tree / "deep/b.txt")]
    assert again == fingerprint(tree)
    assert again.version != data.version


def test_another_inode_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    data = fingerprint(path)
    (tmp_path / "y").write_text("z")
    os.utime(tmp_path / "y", ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    os.rename(tmp_path / "y", path)
    assert difference(path, data) == "was changed"


def test_stamps_of_fresh_outputs_can_be_trusted(tree: Path) -> None:
    for _ in range(5):
        (tree / "a.txt").write_text("fresh")
        data = fingerprint(tree)
        assert all(stamp.mtime_ns != UNTRUSTED for stamp in data.files.values())


def test_a_stamp_within_the_tick_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    """As on a file system whose clock does not move on: same size, same time, other bytes."""
    path = tmp_path / "x"
    path.write_text("before")
    when = path.stat().st_mtime_ns
    monkeypatch.setattr(module, "_clock", lambda *given: when)
    started = time.monotonic()
    data = fingerprint(path)
    assert time.monotonic() - started < 10
    assert data.files[""].mtime_ns == UNTRUSTED
    assert unchanged(path, data)
    path.write_text("after!")
    os.utime(path, ns=(when, when))
    assert not unchanged(path, data)
    reads.clear()
    assert fingerprint(path, data).version == hashlib.sha256(b"after!").hexdigest()
    assert reads


def test_a_file_changed_while_it_is_hashed_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    original = module._hash

    def hash_and_edit(name: str, found: os.stat_result) -> str:
        digest = original(name, found)
        edit(path, "after!")
        return digest

    monkeypatch.setattr(module, "_hash", hash_and_edit)
    data = fingerprint(path)
    monkeypatch.undo()
    assert data.files[""].mtime_ns == UNTRUSTED
    assert not unchanged(path, data)


@pytest.mark.parametrize("copy", [copy_with_times, touch_back])
def test_equal_size_and_mtime_and_other_bytes(tmp_path: Path, copy: Copy) -> None:
    """As after ``cp -p``: size, mtime and inode are the recorded ones, and the ctime is not."""
    path = tmp_path / "x"
    path.write_text("old")
    os.utime(path, ns=(1, 1))
    data = fingerprint(path)
    before = path.stat()
    copy(path, "new")
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert difference(path, data) == "was changed"
    assert fingerprint(path, data).version != data.version
    assert not data.files[""].matches(after)


@pytest.mark.parametrize("touch", [chmod, link, move_and_return])
def test_a_changed_ctime_alone_is_no_change(tmp_path: Path, touch: Touch, reads: list[str]) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    data = fingerprint(path)
    before = path.stat().st_ctime_ns

    def has_changed() -> bool:
        touch(path)
        return path.stat().st_ctime_ns != before

    wait_until(has_changed, "another ctime")
    reads.clear()
    assert unchanged(path, data)
    assert reads == [str(path)]


def test_foreign_files_are_trusted_once_they_have_aged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    data = fingerprint_foreign(path, lambda name, found: None)
    assert data.files[""].mtime_ns == UNTRUSTED
    os.utime(path, ns=(10**18, 10**18))
    # The mtime is long past, and the bytes can have changed as late as the ctime.
    assert fingerprint_foreign(path, lambda name, found: None).files[""].mtime_ns == UNTRUSTED
    monkeypatch.setattr(module, "_COARSEST_TICK_NS", -(10**10))
    data = fingerprint_foreign(path, lambda name, found: None)
    assert data.files[""].mtime_ns == 10**18
    assert os.listdir(tmp_path) == ["x"]


def test_a_time_in_the_future_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    future = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(future, future))
    assert fingerprint(path).files[""].mtime_ns == UNTRUSTED
    assert fingerprint_foreign(path, lambda name, found: None).files[""].mtime_ns == UNTRUSTED
    assert unchanged(path, fingerprint(path))


def test_links(tmp_path: Path, tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    (tree / "loop").symlink_to(".")
    (tree / "dangling").symlink_to("nowhere")
    data = fingerprint(tree)
    assert {"link", "loop", "dangling"} <= set(data.files)
    (tree / "dangling").unlink()
    (tree / "dangling").symlink_to("elsewhere")
    assert difference(tree, data) == "has a changed file dangling"
    top = tmp_path / "top"
    top.symlink_to(tree)
    assert fingerprint(top).version == fingerprint(tree).version
    assert unchanged(top, fingerprint(tree))
    with pytest.raises(FileNotFoundError):
        fingerprint(tree / "dangling")


def test_special_files_are_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    data = fingerprint(tree)
    assert "pipe" in data.files
    assert unchanged(tree, data)
    flush_tree(tree)


def test_what_desktops_leave_does_not_count(tree: Path) -> None:
    data = fingerprint(tree)
    for name in (".DS_Store", "deep/.nfs00000001", ".lightcone-manifest.json"):
        (tree / name).write_text("x")
    assert unchanged(tree, data)
    assert fingerprint(tree).version == data.version


def test_odd_names(tmp_path: Path) -> None:
    top = tmp_path / "d"
    top.mkdir()
    for name in (b"two words", b"line\nend", b"\xff\xfe", "ü".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(top), name))).write_text("x")
    data = fingerprint(top)
    assert len(data.files) == 4
    assert unchanged(top, data)


def test_nothing_is_left_behind(tree: Path) -> None:
    fingerprint(tree)
    fingerprint(tree / "a.txt")
    flush_tree(tree)
    assert sorted(os.listdir(tree)) == ["a.txt", "deep"]
    assert os.listdir(tree.parent) == ["tree"]


def test_flush(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    original = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tree.parent))
        original(descriptor)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("descriptors have no names here")
    monkeypatch.setattr(os, "fsync", record)
    (tree / "dangling").symlink_to("nowhere")
    flush_tree(tree)
    assert set(synced) == {
        "tree/a.txt",
        "tree/deep/b.txt",
        "tree/deep/er/c.txt",
        "tree/deep/er",
        "tree/deep",
        "tree",
        ".",
    }
    synced.clear()
    flush_tree(tree / "a.txt")
    assert synced == ["tree/a.txt", "tree"]


def test_flush_passes_on_what_the_disk_says(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        flush_tree(tree)


def test_data_is_a_plain_value() -> None:
    assert Data("v") == Data("v", {})
