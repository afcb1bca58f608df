"""Verification reads everything, and what it finds the next plan knows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.spec.output import Output
from lightcone.state.claims import Claim
from lightcone.state.fingerprint import Stamp, fingerprint
from lightcone.state.hash_cache import HashCache
from lightcone.state.manifest import read_manifest
from lightcone.state.plan import plan
from lightcone.state.verify import Verification, record_findings, verify
from tests.projects import Project

pytestmark = pytest.mark.usefixtures("settled")

SPEC = """
version: "0.0.14"
name: verified
inputs:
  - {id: raw, source: data/raw.csv}
  - {id: tree, source: data/tree}
  - {id: all, source: "data/*.txt"}
outputs:
  - {id: a, format: txt, inputs: [raw], recipe: {command: "sh code/a.sh {inputs.raw} > {output}"}}
  - {id: b, format: txt, inputs: [a], recipe: {command: "cat {inputs.a} > {output}"}}
  - id: c
    format: txt
    inputs: [tree, all]
    recipe: {command: "ls {inputs.tree} {inputs.all} > {output}"}
  - {id: report, type: report, format: txt}
"""
UNIVERSES = {"one": "id: one\n", "two": "id: two\n"}
HAND = "its manifest was changed by hand"


@pytest.fixture
def project(project: Project) -> Project:
    project.write("data/raw.csv", "1\n")
    project.write("data/tree/x/y.csv", "2\n")
    project.write("data/p.txt", "3\n")
    project.write("code/a.sh", "cat $1\n")
    project.spec(SPEC)
    project.make()
    return project


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "scratch/claims"


def told(verification: Verification) -> list[tuple[str, str, str]]:
    return [
        (each.output.name, each.trouble.value, each.description) for each in verification.findings
    ]


def corrupt(project: Project, path: Path, text: str) -> None:
    """Write bytes that no file status shows, as a failing disk does.

    The kernel alone sets a ctime, so every record gets the new one instead.
    """
    before = path.stat()
    assert before.st_size == len(text)
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    old, new = (f'"ctime_ns": {time}' for time in (before.st_ctime_ns, path.stat().st_ctime_ns))
    for output in project.outputs():
        file = output.state_dir / "manifest.json"
        file.write_text(file.read_text().replace(old, new))


def test_nothing_is_wrong(project: Project) -> None:
    assert verify(project.outputs()) == Verification(3)
    assert verify([]) == Verification(0)


def test_a_result_without_a_record(project: Project) -> None:
    """An output without a recipe is none of lc's."""
    shutil.rmtree(project.root / "results/baseline/.lightcone")
    project.write("results/baseline/a.txt", "forged\n")
    project.write("results/baseline/report.txt", "written by hand\n")
    (project.root / "results/baseline/b.txt").unlink()
    (project.root / "results/baseline/b.txt").symlink_to("nowhere")
    (project.root / "results/baseline/c.txt").unlink()
    found = verify(project.outputs())
    assert found.verified == 0
    assert told(found) == [
        (
            f"baseline/{name}",
            "no record",
            f"results/baseline/{name}.txt is there, and no manifest says what made it",
        )
        for name in "ab"
    ]


def test_an_empty_directory_is_no_result(project: Project) -> None:
    project.spec("outputs: [{id: d, recipe: {command: 'touch {output}/x'}}]")
    output = project.output("d")
    output.path.mkdir(parents=True)
    assert verify([output]) == Verification(0)
    (output.path / "x").touch()
    assert [finding.trouble for finding in verify([output]).findings] == ["no record"]


def test_a_result_that_is_being_made(project: Project, claims: Path) -> None:
    output = project.output("a")
    claim = Claim.take(output, claims)
    assert isinstance(claim, Claim)
    claim.set_aside("lc run, pid 1", 0o022, "0" * 64)
    output.path.write_text("half")
    assert verify(project.outputs()) == Verification(2)
    claim.restore()
    claim.release()
    assert verify(project.outputs()) == Verification(3)


def _replace(path: Path) -> None:
    path.with_name("new").write_text("9\n")
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("data/raw.csv", _replace, ("a", "changed", "input raw (data/raw.csv) changed since")),
        ("code/a.sh", _replace, ("a", "changed", "code/a.sh changed since it was made")),
        ("data/raw.csv", os.unlink, ("a", "missing", "input raw (data/raw.csv) cannot be read or")),
        ("code/a.sh", os.unlink, ("a", "missing", "code/a.sh cannot be read or is gone")),
        (
            "data/tree/x/y.csv",
            _replace,
            ("c", "changed", "input tree (data/tree): x/y.csv changed since"),
        ),
        ("data/p.txt", _replace, ("c", "changed", "input all (data/*.txt): data/p.txt changed")),
        ("data/p.txt", os.unlink, ("c", "missing", "input all (data/*.txt) cannot be read or is")),
    ],
)
def test_sources_that_no_longer_match(
    project: Project,
    name: str,
    change: Callable[[Path], None],
    expected: tuple[str, str, str],
) -> None:
    change(project.root / name)
    found = verify(project.outputs())
    output, trouble, description = expected
    ((named, kind, words),) = told(found)
    assert (named, kind) == (f"baseline/{output}", f"{trouble} source")
    assert words.startswith(description)
    # A plan sees it by itself, so there is nothing to record.
    assert found.corrected == []


def test_an_unreadable_source(project: Project) -> None:
    (project.root / "code/a.sh").unlink()
    (project.root / "code/a.sh").symlink_to("a.sh")
    assert told(verify(project.outputs())) == [
        ("baseline/a", "missing source", "code/a.sh cannot be read or is gone")
    ]


def test_a_plan_knows_what_was_found_of_a_result(project: Project, claims: Path) -> None:
    path = project.root / "results/baseline/a.txt"
    corrupt(project, path, "7\n")
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert told(found) == [("baseline/a", "tampered", "its bytes are not those that were made")]
    assert [finding.files for finding in found.findings] == [("results/baseline/a.txt",)]
    assert record_findings(found, claims) == []
    assert project.states() == {
        "baseline/a": "stale (results/baseline/a.txt was changed)",
        "baseline/b": "stale (input a is to be remade)",
        "baseline/c": "ok",
    }
    assert project.make() == ["baseline/a"]
    assert path.read_text() == "1\n"
    assert verify(project.outputs()) == Verification(3)


def test_bytes_that_are_there_again(project: Project, claims: Path) -> None:
    path = project.root / "results/baseline/a.txt"
    corrupt(project, path, "7\n")
    record_findings(verify(project.outputs()), claims)
    path.write_text("1\n")
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert found.findings == [] and len(found.corrected) == 1
    assert record_findings(found, claims) == []
    manifest = read_manifest(project.output("a").state_dir)
    assert manifest is not None and manifest.data.files[""].matches(path.stat())


@pytest.mark.parametrize(("name", "text"), [("data/raw.csv", "5\n"), ("code/a.sh", "cat $@\n")])
def test_a_plan_knows_what_was_found_of_a_source(
    project: Project, claims: Path, name: str, text: str
) -> None:
    """In every universe, also where only one was verified."""
    project.spec(SPEC, UNIVERSES)
    project.make()
    corrupt(project, project.root / name, text)
    assert set(project.states().values()) == {"ok"}
    outputs = project.outputs()
    ones = [each for each in outputs if each.universe == "one"]
    found = verify(ones, [each for each in outputs if each.universe == "two"])
    assert [(named, kind) for named, kind, _ in told(found)] == [("one/a", "changed source")]
    assert record_findings(found, claims) == []
    stale = [name for name, state in project.states().items() if state != "ok"]
    assert stale == ["one/a", "one/b", "two/a", "two/b"]
    project.make()
    assert verify(project.outputs()) == Verification(6)


def test_no_plan_uses_a_cached_hash_that_was_refuted(project: Project, tmp_path: Path) -> None:
    hashes, path = tmp_path / "hashes", project.root / "data/raw.csv"
    old = fingerprint(path).files[""].sha256
    path.write_text("5\n")
    now = path.stat()
    cache = HashCache(hashes, project.root)
    cache.keep(str(path), Stamp(2, now.st_mtime_ns, now.st_ino, old, now.st_ctime_ns))
    cache.save()
    assert _state_of_a(project, hashes) == "ok"
    verify(project.outputs(), hashes=hashes)
    assert _state_of_a(project, hashes) == "stale"


def _state_of_a(project: Project, hashes: Path) -> str:
    return plan(project.outputs(), hashes=hashes)["baseline", "a"].state.value


def _edit(output: Output, change: Callable[[dict[str, object]], object]) -> None:
    file = output.state_dir / "manifest.json"
    table = json.loads(file.read_bytes())
    change(table)
    file.write_text(json.dumps(table))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(identity="0" * 64),
        lambda table: table["data"].update(version="0" * 64),
    ],
)
def test_a_plan_knows_of_a_manifest_changed_by_hand(
    project: Project, claims: Path, change: Callable[[dict[str, object]], object]
) -> None:
    _edit(project.output("c"), change)
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert told(found) == [("baseline/c", "damaged record", HAND)]
    assert record_findings(found, claims) == []
    assert project.states()["baseline/c"] == f"stale ({HAND}, as 'lc verify' found)"
    assert told(verify(project.outputs())) == told(found)
    project.make()
    assert verify(project.outputs()) == Verification(3)


def test_what_is_made_meanwhile_is_not_recorded(project: Project, claims: Path) -> None:
    corrupt(project, project.root / "results/baseline/a.txt", "7\n")
    found = verify(project.outputs())
    project.write("data/raw.csv", "4\n")
    project.make()
    before = read_manifest(project.output("a").state_dir)
    assert record_findings(found, claims) == []
    assert read_manifest(project.output("a").state_dir) == before


def test_what_cannot_be_recorded_is_reported(project: Project, claims: Path) -> None:
    corrupt(project, project.root / "results/baseline/a.txt", "7\n")
    found = verify(project.outputs())
    claim = Claim.take(project.output("a"), claims)
    assert isinstance(claim, Claim)
    assert record_findings(found, claims) == ["baseline/a is in use by a recipe that reads it"]
    claim.release()
    claims.parent.rename(claims.parent.with_name("moved"))
    claims.parent.write_text("a file")
    (failure,) = record_findings(found, claims)
    assert "scratch" in failure
