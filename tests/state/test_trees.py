"""Links in a tree: what they lead to counts, and following them ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.state.fingerprint import Data, difference, fingerprint, fingerprint_foreign
from lightcone.state.trees import walk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree beside the data that links in it lead to."""
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/a.txt").write_text("a")
    (tmp_path / "tree/deep/b.txt").write_text("b")
    (tmp_path / "big/run/one").mkdir(parents=True)
    (tmp_path / "big/run/x.dat").write_text("x")
    (tmp_path / "big/run/one/y.dat").write_text("y")
    return tmp_path / "tree"


def names(top: Path) -> list[str]:
    return sorted(name for name, _, _ in walk(str(top)))


def foreign(top: Path) -> Data:
    return fingerprint_foreign(top, lambda name, status: None)


def versions(top: Path) -> set[str]:
    """The version of a tree, as of an output and as of an input."""
    return {fingerprint(top).version, foreign(top).version}


def test_a_link_to_a_file_is_that_file(tree: Path) -> None:
    (tree / "x.dat").symlink_to("../big/run/x.dat")
    (tree / "again.dat").symlink_to("x.dat")
    data = fingerprint(tree)
    assert {"again.dat", "x.dat"} <= data.files.keys()
    assert data.files["x.dat"].matches((tree / "../big/run/x.dat").stat())
    before = versions(tree)
    assert len(before) == 1 and difference(tree, data) == ""
    (tree / "../big/run/x.dat").write_text("z")
    assert not before & versions(tree)
    assert difference(tree, data) in {f"has a changed file {x}" for x in ("x.dat", "again.dat")}


def test_a_copy_in_place_of_the_link_is_the_same(tree: Path) -> None:
    (tree / "run").symlink_to(tree.parent / "big/run")
    (tree / "c.txt").symlink_to("a.txt")
    data = fingerprint(tree)
    (tree / "run").unlink()
    (tree.parent / "big/run").rename(tree / "run")
    (tree / "c.txt").unlink()
    (tree / "c.txt").write_text("a")
    assert versions(tree) == {data.version}
    assert difference(tree, data) == ""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda run: (run / "one/y.dat").write_text("z"), "has a changed file run/one/y.dat"),
        (lambda run: (run / "one/new").write_text("n"), "has a new file run/one/new"),
        (lambda run: (run / "x.dat").unlink(), "lacks run/x.dat"),
    ],
)
def test_a_link_to_a_directory_is_the_tree_there(
    tree: Path, change: Callable[[Path], object], what: str
) -> None:
    (tree / "run").symlink_to("../big/run")
    assert names(tree) == ["a.txt", "deep/b.txt", "run/one/y.dat", "run/x.dat"]
    data, before = fingerprint(tree), versions(tree)
    change(tree.parent / "big/run")
    assert difference(tree, data) == what
    assert not before & versions(tree)


def test_a_directory_that_is_not_there_any_more(tree: Path) -> None:
    """As of a disk that is not mounted."""
    (tree / "run").symlink_to("../big/run")
    data = fingerprint(tree)
    (tree.parent / "big").rename(tree.parent / "away")
    assert difference(tree, data) == "lacks run/one/y.dat"


def test_each_directory_counts_once(tree: Path) -> None:
    """Under the first name; further links to it count by where they point."""
    (tree / "latest").symlink_to("deep")
    (tree / "r1").symlink_to("../big/run")
    (tree / "r2").symlink_to(tree.parent / "big/run")
    (tree / "s").symlink_to("../big")
    (tree.parent / "big/other").write_text("o")
    assert names(tree) == [
        "a.txt",
        "deep/b.txt",
        "latest",
        "r1/one/y.dat",
        "r1/x.dat",
        "r2",
        "s/other",
    ]


def test_cycles_end(tree: Path) -> None:
    (tree / "self").symlink_to(".")
    (tree / "up").symlink_to("..")
    (tree / "everything").symlink_to("/")
    (tree / "run").symlink_to("../big/run")
    big = tree.parent / "big"
    (big / "run/back").symlink_to(big)
    (big / "run/home").symlink_to(tree)
    (big / "run/one/loop").symlink_to("loop")
    data = fingerprint(tree)
    assert sorted(data.files) == [
        "a.txt",
        "deep/b.txt",
        "everything",
        "run/back",
        "run/home",
        "run/one/loop",
        "run/one/y.dat",
        "run/x.dat",
        "self",
        "up",
    ]
    assert difference(tree, data) == ""
    (tree / "up").unlink()
    (tree / "up").symlink_to("../..")
    assert difference(tree, data) == "has a changed file up"


def test_many_links_between_directories(tree: Path) -> None:
    """Every way through 40 directories that lead to each other would have no end."""
    rooms = [tree.parent / f"rooms/{number:02}" for number in range(40)]
    for room in rooms:
        room.mkdir(parents=True)
        (room / "f").write_text(room.name)
        for other in rooms:
            (room / f"to{other.name}").symlink_to(other)
    (tree / "room").symlink_to(rooms[0])
    began = time.monotonic()
    found = fingerprint(tree)
    assert time.monotonic() - began < 10
    assert len([name for name in found.files if name.endswith("/f")]) == 40
    assert fingerprint(tree).version == found.version


def test_a_second_link_on_the_way(tree: Path) -> None:
    """What counts by where it points counts by where it leads, too."""
    for name in ("v1", "v2"):
        (tree.parent / "big" / name).mkdir()
        (tree.parent / "big" / name / "f").write_text(name)
        (tree / name).symlink_to(f"../big/{name}")
    (tree.parent / "big/current").symlink_to("v1")
    (tree / "z").symlink_to("../big/current")
    data = fingerprint(tree)
    (tree.parent / "big/current").unlink()
    (tree.parent / "big/current").symlink_to("v2")
    assert difference(tree, data) == "has a changed file z"
    known = fingerprint_foreign(tree, lambda name, status: data.files.get(name))
    assert known.version != data.version


def test_what_leads_nowhere_counts_by_its_text(tree: Path) -> None:
    (tree / "gone").symlink_to("nowhere")
    data = fingerprint(tree)
    (tree / "gone").unlink()
    (tree / "gone").symlink_to("elsewhere")
    assert difference(tree, data) == "has a changed file gone"
    (tree.parent / "tree/elsewhere").write_text("e")
    assert difference(tree, fingerprint(tree)) == ""


def test_what_the_kernel_makes_up_is_not_read(tree: Path) -> None:
    if not os.path.exists("/proc/self/mounts"):
        pytest.skip("no /proc here")
    (tree / "mtab").symlink_to("/proc/self/mounts")
    (tree / "self").symlink_to("/proc/self")
    (tree / "null").symlink_to("/dev/null")
    assert names(tree) == ["a.txt", "deep/b.txt", "mtab", "null", "self"]
    assert difference(tree, fingerprint(tree)) == ""


def test_a_directory_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the top of most disks. In the tree itself it is an error, as for any program."""
    original = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/one"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    (tree / "run").symlink_to("../big/run")
    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tree) == ["a.txt", "deep/b.txt", "run/one", "run/x.dat"]
    assert difference(tree, fingerprint(tree)) == ""
    (tree / "one").mkdir()
    with pytest.raises(PermissionError):
        names(tree)


def test_names_that_do_not_count_behind_a_link(tree: Path) -> None:
    (tree / "run").symlink_to("../big/run")
    before = foreign(tree).version
    for name in (".x.dat.swp", "x.dat~", "#x.dat#", "__pycache__/m.pyc", ".nfs000000000a1b2c3d"):
        path = tree.parent / "big/run" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("left")
    (tree / ".#a.txt").symlink_to("ada@host.1234:5678")
    assert foreign(tree).version == before


def test_a_link_into_a_directory_that_is_ignored(tree: Path) -> None:
    """The ignored name does not count; that of the link does."""
    (tree / "work").mkdir()
    (tree / "work/w.txt").write_text("w")
    (tree / "data").symlink_to("work")

    def hashed() -> Data:
        return fingerprint_foreign(
            tree, lambda name, status: None, lambda name: name.startswith("work")
        )

    assert sorted(hashed().files) == ["a.txt", "data/w.txt", "deep/b.txt"]


def test_no_file_costs_more_than_one_status(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none is resolved, unless there are links to directories."""
    (tree / "x.dat").symlink_to("../big/run/x.dat")
    data = fingerprint(tree)
    calls: list[str] = []

    def refuse(path: str) -> str:
        calls.append(path)
        return path

    for name in ("lstat", "stat", "readlink"):
        monkeypatch.setattr(os, name, refuse)
    found = list(walk(str(tree)))
    monkeypatch.undo()
    assert calls == []
    assert all(data.files[name].matches(status) for name, _, status in found)
