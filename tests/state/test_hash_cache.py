"""The stamps of files outlive a plan, and never speak for other bytes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.state import hash_cache as module
from lightcone.state.fingerprint import UNTRUSTED, Stamp
from lightcone.state.hash_cache import HashCache
from lightcone.state.plan import assess, plan
from tests.projects import Project

SPEC = """
inputs: [{id: raw, source: data/raw.bin}, {id: all, source: data}]
outputs:
  - {id: x, inputs: [raw], recipe: {command: "cat tool {inputs.raw} > {output}/x"}}
  - {id: y, inputs: [all], recipe: {command: "ls {inputs.all} > {output}/x"}}
"""


def identities(project: Project, kept: Path | None = None) -> dict[str, str]:
    assessed = plan(project.outputs(), hashes=kept).values()
    return {
        each.output.name: each.provenance.identity
        for each in assessed
        if each.provenance is not None
    }


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch, settled: None) -> Project:
    monkeypatch.setattr(module, "LARGE", 4)
    project.spec(SPEC)
    project.write("tool", "12")
    project.write("data/raw.bin", "1234")
    project.write("data/small", "1")
    return project


def test_files_are_read_once(project: Project, reads: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "scratch/hashes"
    plan(project.outputs(), hashes=kept)
    assert sorted(reads) == ["raw.bin", "small", "tool"]  # once, though two inputs have it
    reads.clear()
    plan(project.outputs(), hashes=kept)
    assert assess(project.output("baseline/x"), {}, kept).why == "never made"
    # One output alone is assessed without the table of the small files.
    assert reads == ["tool"]
    assert len(list(kept.iterdir())) == 2  # the large file's, and the table
    project.write("data/raw.bin", "5678")
    project.age(project.root / "tool")
    reads.clear()
    plan(project.outputs(), hashes=kept)
    plan(project.outputs(), hashes=kept)
    assert sorted(reads) == ["raw.bin", "tool"]
    assert len(list(kept.iterdir())) == 2


def change_status(path: Path) -> None:
    path.chmod(0o640)


def copy_over(path: Path) -> None:
    """As in a clone: another inode, and other times."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.rename(other, path)


@pytest.mark.parametrize("touch", [change_status, copy_over])
def test_bytes_decide_once(
    project: Project, reads: list[str], tmp_path: Path, touch: Callable[[Path], None]
) -> None:
    kept = tmp_path / "hashes"
    project.make()
    results = [each.path / "x" for each in project.outputs()]
    for path in [*results, project.root / "tool", project.root / "data/raw.bin"]:
        touch(path)
    reads.clear()
    first = plan(project.outputs(), hashes=kept)
    assert {each.state.value for each in first.values()} == {"ok"}
    assert sorted(reads) == ["raw.bin", "tool", "x", "x"]
    reads.clear()
    assert plan(project.outputs(), hashes=kept) == first
    assert reads == []
    times = results[0].stat()
    results[0].write_text("13" + results[0].read_text()[2:])
    os.utime(results[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    states = [each.state.value for each in plan(project.outputs(), hashes=kept).values()]
    assert states == ["stale", "ok"]


def test_files_that_are_gone_leave_the_table(project: Project, tmp_path: Path) -> None:
    kept = tmp_path / "hashes"
    plan(project.outputs(), hashes=kept)
    (project.root / "data/small").unlink()
    project.write("tool", "34")
    plan(project.outputs(), hashes=kept)
    tables = [json.loads(path.read_bytes()) for path in kept.iterdir()]
    (files,) = [table["files"] for table in tables if "files" in table]
    assert list(files) == [str(project.root / "tool")]


@pytest.mark.parametrize("files", [None, [], 5, {"a": 5}, {"a": []}, {"a": [1, 2, 3, 4, 5]}])
def test_damage_of_the_table_is_read_as_nothing(
    project: Project, tmp_path: Path, files: object
) -> None:
    kept = tmp_path / "hashes"
    expected = plan(project.outputs(), hashes=kept)
    for path in kept.iterdir():
        table = json.loads(path.read_bytes())
        if "files" in table:
            path.write_text(json.dumps(table | {"files": files}))
    assert plan(project.outputs(), hashes=kept) == expected


def test_what_changed_since_a_result_was_made_is_read_once(
    project: Project, reads: list[str], tmp_path: Path
) -> None:
    project.make()
    project.write("data/raw.bin", "5678")
    reads.clear()
    first = plan(project.outputs(), hashes=tmp_path / "hashes")
    assert plan(project.outputs(), hashes=tmp_path / "hashes") == first
    assert reads == ["raw.bin"]
    assert {each.state.value for each in first.values()} == {"stale"}


def test_without_a_directory_nothing_is_kept(project: Project, reads: list[str]) -> None:
    plan(project.outputs())
    plan(project.outputs())
    assert reads.count("raw.bin") == 2


def stamped(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino, "ab" * 32, found.st_ctime_ns)


def test_what_may_have_changed_in_the_tick_is_not_kept(project: Project, tmp_path: Path) -> None:
    path = project.root / "data/raw.bin"
    hashes = HashCache(tmp_path / "hashes")
    hashes.keep(str(path), stamped(path)._replace(mtime_ns=UNTRUSTED))
    assert not (tmp_path / "hashes").exists()
    ahead = time.time_ns() + 3600 * 10**9
    for name in ("data/raw.bin", "data/small", "tool"):
        os.utime(project.root / name, ns=(ahead, ahead))
    plan(project.outputs(), hashes=tmp_path / "hashes")
    assert not (tmp_path / "hashes").exists()


@pytest.mark.parametrize("other", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_what_looks_different_is_not_believed(
    project: Project, tmp_path: Path, other: tuple[int, int, int, int]
) -> None:
    path = project.root / "data/raw.bin"
    hashes = HashCache(tmp_path)
    stamp = stamped(path)
    hashes.keep(str(path), stamp)
    assert hashes.find(str(path), path.stat()) == stamp
    size, mtime, inode, ctime = other
    another = Stamp(
        stamp.size + size,
        stamp.mtime_ns + mtime,
        stamp.inode + inode,
        stamp.sha256,
        stamp.ctime_ns + ctime,
    )
    hashes.keep(str(path), another)
    assert hashes.find(str(path), path.stat()) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"path": 1}',
        '{"path": "PATH", "size": 4}',
        None,
    ],
)
def test_damage_is_read_as_nothing(project: Project, tmp_path: Path, content: str | None) -> None:
    path = project.root / "data/raw.bin"
    hashes = HashCache(tmp_path)
    hashes.keep(str(path), stamped(path))
    (entry,) = tmp_path.glob("*.json")
    if content is None:
        table = json.loads(entry.read_bytes()) | {"path": "/another"}
        content = json.dumps(table)
    entry.write_text(content.replace("PATH", str(path)))
    assert hashes.find(str(path), path.stat()) is None
    hashes.keep(str(path), stamped(path))
    assert hashes.find(str(path), path.stat()) == stamped(path)


def test_where_nothing_can_be_kept(project: Project, reads: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan(project.outputs(), hashes=tmp_path / "file/hashes")
    plan(project.outputs(), hashes=tmp_path / "file")
    assert reads.count("raw.bin") == 2


def test_it_may_be_removed_at_any_time(project: Project, tmp_path: Path) -> None:
    kept = tmp_path / "hashes"
    expected = plan(project.outputs(), hashes=kept)
    shutil.rmtree(kept)
    assert plan(project.outputs(), hashes=kept) == expected
    assert len(list(kept.iterdir())) == 2


def test_plans_of_several_processes(project: Project, tmp_path: Path) -> None:
    """Each says what it would say alone, while others plan and somebody clears the cache."""
    kept = tmp_path / "hashes"
    expected = identities(project)
    assert len(expected) == 2
    program = """
import shutil, sys
from pathlib import Path
from lightcone.state import hash_cache
from tests.projects import Project
from tests.state.test_hash_cache import identities
hash_cache.LARGE = 4
root, kept, clears = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "0"
for _ in range(30):
    if clears:
        shutil.rmtree(kept, ignore_errors=True)
    print(identities(Project(root), kept))
"""
    with contextlib.ExitStack() as stack:
        planning = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, project.root, kept, str(number)],
                    stdout=subprocess.PIPE,
                    encoding="utf-8",
                    cwd=Path(__file__).parents[2],
                )
            )
            for number in range(3)
        ]
        for each in planning:
            assert each.communicate()[0].splitlines() == [str(expected)] * 30


def test_many_at_once(project: Project, tmp_path: Path) -> None:
    path = project.root / "data/raw.bin"
    stamp, found = stamped(path), path.stat()
    seen: set[Stamp | None] = set()

    def use() -> None:
        hashes = HashCache(tmp_path)
        for _ in range(100):
            hashes.keep(str(path), stamp)
            seen.add(hashes.find(str(path), found))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {stamp}
    assert len(os.listdir(tmp_path)) == 2  # with the project
