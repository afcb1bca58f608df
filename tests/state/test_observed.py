"""What counts of what a recipe was seen to use, and when it makes an output stale."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lightcone.spec.output import MANIFEST
from lightcone.state.dependencies import SourceFiles
from lightcone.state.manifest import (
    Observed,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)
from lightcone.state.observed import Selection, Trace, select
from tests.projects import Project

_SPEC = """\
version: "0.0.14"
name: observed
inputs:
  - {id: file, source: in.csv}
  - {id: tree, source: tree}
  - {id: glob, source: "g/*/a*.csv"}
outputs:
  - id: x
    format: txt
    inputs: [file, tree, glob]
    recipe: {command: "cat {inputs.file} {inputs.tree}/* {inputs.glob} > {output}"}
  - {id: y, format: txt, recipe: {command: "sh make.sh > {output}"}}
"""
_FUTURE = time.time_ns() + 3600 * 10**9


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project").spec(_SPEC)
    for name in ("in.csv", "tree/a", "g/1/a.csv", "g/1/b.csv", "other/p.json", "other/c.jl"):
        project.write(name, f"{name}\n")
    project.write("make.sh", "echo\n")
    project.make()
    return project


def _select(project: Project, name: str, trace: Trace, since: int = _FUTURE) -> Selection:
    output = project.output(name)
    provenance = project.plan()[output.name].provenance
    assert provenance is not None
    sources = SourceFiles(project.root)
    return select(trace, output, provenance, since, sources)


def _record(project: Project, name: str, trace: Trace) -> None:
    output = project.output(name)
    provenance = project.plan()[output.name].provenance
    assert provenance is not None
    selection = _select(project, name, trace)
    project.record(output, replace(provenance, observed=selection.observed))
    assert project.why(output.name) == ""


def test_what_does_not_count(project: Project) -> None:
    project.write("venv/pyvenv.cfg", "")
    for name in ("venv/lib/m.py", ".git/HEAD", "src/__pycache__/m.pyc", ".cache/f", "src/.m.swp"):
        project.write(name, "")
    seen = {
        *("in.csv", "tree", "tree/a", "g/1/a.csv", "results/baseline/x.txt"),
        *("results/baseline/.lightcone/x/log.txt", "venv/lib/m.py", ".git/HEAD"),
        *("src/__pycache__/m.pyc", ".cache/f", "src/.m.swp", "other"),
    }
    trace = Trace(
        read=seen,
        listed={"tree", "g", "g/1", ".git", "venv", "venv/bin"},
        missing={"venv/bin/cat", ".git/x", "tree/b", "results/baseline/none", "src/__pycache__/n"},
    )
    found = _select(project, "x", trace)
    assert found == Selection(Observed())


def test_what_counts(project: Project) -> None:
    trace = Trace(
        read={"other/p.json", "other/c.jl", "make.sh", "results/baseline/y.txt"},
        programs={"make.sh"},
        listed={".", "other", "results/baseline", "g/1/deep"},
        missing={"other/q"},
    )
    found = _select(project, "x", trace)
    assert list(found.observed.files) == [
        *("make.sh", "other/c.jl", "other/p.json", "results/baseline/y.txt")
    ]
    assert found.observed.listings == {
        ".": ("astra.yaml", "g", "in.csv", "make.sh", "other", "tree"),
        "g/1/deep": (),
        "other": ("c.jl", "p.json"),
        "results/baseline": ("y.txt",),
    }
    assert found.observed.missing == ("other/q",)
    assert found.results == ("results/baseline/y.txt",)
    assert found.data == ("other/p.json",)
    # What the command names counts already.
    assert not _select(project, "y", Trace(read={"make.sh"})).observed


def test_own_files_are_those_that_it_wrote_and_changed(project: Project) -> None:
    trace = Trace(read={"other/p.json"}, written={"other/p.json"}, listed={"other"})
    # Opened for writing and left as it was, as SQLite and HDF5 do.
    assert list(_select(project, "x", trace).observed.files) == ["other/p.json"]
    trace.entries["other"] = {"p.json": -1, "c.jl": -1}
    own = _select(project, "x", trace, since=0).observed
    assert own.files == {}
    assert own.listings == {"other": ("c.jl",)} and own.written == ("other/p.json",)
    made = Trace(read={"d/f"}, written={"d"}, missing={"d", "d/f"}, listed={"d"})
    project.write("d/f", "")
    assert not _select(project, "x", made, since=0).observed


def test_what_changed_meanwhile(project: Project) -> None:
    (project.root / "link").symlink_to("nowhere")
    trace = Trace(
        read={"other/p.json", "other/gone", "link"}, missing={"in2", "other/none"}, listed={"other"}
    )
    trace.entries["other"] = {"c.jl": -1, "p.json": -1, "left": -1, "p.json~": -1}
    project.write("in2", "")
    project.write("other/new", "")
    found = _select(project, "x", trace, since=0)
    assert found.changed == tuple(
        sorted(["in2", "link", "other/gone", "other/left", "other/new", "other/p.json"])
    )
    assert found.observed.listings == {"other": ("c.jl", "new", "p.json")}
    output = project.output("x")
    planned = project.plan()["baseline/x"].provenance
    assert planned is not None
    project.record(output, replace(planned, observed=found.observed))
    manifest = read_manifest(output.state_dir)
    assert manifest is not None and project.why("baseline/x") != ""
    write_manifest(output.state_dir, replace(manifest, disturbed=("other/new", "other/p.json")))
    (project.root / "in2").unlink()
    (project.root / "other/new").unlink()
    assert project.why("baseline/x") == (
        "other/new changed while it was made; other/p.json changed while it was made"
    )


def test_bytes_decide_where_only_the_status_changed(project: Project) -> None:
    read = Trace(read={"other/p.json"}, listed={"other"})
    since = time.time_ns() - 60 * 10**9
    file = project.root / "other/p.json"
    assert _select(project, "x", read, since).changed == ("other/c.jl", "other/p.json")
    _record(project, "x", read)
    file.chmod(0o600)
    # They are those that were observed before.
    assert _select(project, "x", read, since).changed == ()
    project.spec(_SPEC.replace("cat {inputs.file}", "cat  {inputs.file}"))
    read.entries["other"] = {"p.json": 0, "c.jl": 0}
    assert _select(project, "x", read, since).changed == ("other/p.json",)
    # Or the recipe did it.
    read.touched["other/p.json"] = 0
    assert _select(project, "x", read, since).changed == ()
    os.utime(file)
    assert _select(project, "x", read, since).changed == ("other/p.json",)
    read.touched["other/p.json"] = os.stat(file).st_ctime_ns
    assert _select(project, "x", read, since).changed == ()
    file.write_text("edited\n")
    assert _select(project, "x", read, since).changed == ("other/p.json",)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p.write("other/p.json", "2"), "other/p.json changed"),
        (lambda p: (p.root / "other/p.json").unlink(), "other/p.json is gone"),
        (lambda p: p.write("other/q", ""), "other/q is there now, which the recipe looked for"),
        (lambda p: p.write("other/q/f", ""), "other/q is there now, which the recipe looked for"),
        (lambda p: p.write("tree2/f", ""), "tree2/f is new in a directory that the recipe lists"),
        (
            lambda p: os.rename(p.root / "tree2/a", p.root / "a"),
            "tree2/a is gone from a directory that the recipe lists",
        ),
        (lambda p: os.rename(p.root / "tree2", p.root / "t"), "tree2 is gone"),
        (lambda p: p.age(p.root / "other/p.json"), ""),
        (lambda p: p.write("tree2/a", "other bytes"), ""),
        (lambda p: p.write("tree2/.#a", ""), ""),
    ],
)
def test_change_makes_stale(project: Project, change: object, why: str) -> None:
    project.write("tree2/a", "")
    trace = Trace(read={"other/p.json"}, missing={"other/q"}, listed={"tree2"})
    _record(project, "x", trace)
    assert callable(change)
    change(project)
    assert project.why("baseline/x") == why
    # Made again without being observed, it still counts.
    project.make()
    assert project.why("baseline/x") == ""
    project.write("other/p.json", "3")
    assert project.why("baseline/x").startswith("other/p.json ")


def test_another_command_has_used_nothing_so_far(project: Project) -> None:
    _record(project, "y", Trace(read={"other/p.json"}))
    project.spec(_SPEC.replace("sh make.sh", "sh ./make.sh"))
    assert project.why("baseline/y") == "recipe changed"
    provenance = project.plan()["baseline/y"].provenance
    assert provenance is not None and not provenance.observed


def test_new_file_of_a_listed_directory_counts_by_its_bytes(project: Project) -> None:
    _record(project, "x", Trace(listed={"other"}))
    project.write("other/new", "1\n")
    locked = project.write("other/pipe", "")
    locked.unlink()
    os.mkfifo(locked)
    # Made again without being observed.
    project.make()
    assert project.why("baseline/x") == ""
    project.write("other/new", "2\n")
    assert project.why("baseline/x") == "other/new changed"
    project.write("other/p.json", "2\n")
    assert project.why("baseline/x") == "other/new changed"


def test_identity_contains_what_was_observed(project: Project) -> None:
    planned = project.plan()["baseline/x"].provenance
    assert planned is not None
    identities = {planned.identity, replace(planned, observed=Observed()).identity}
    assert len(identities) == 1
    for trace in (Trace(read={"other/p.json"}), Trace(missing={"q"}), Trace(listed={"other"})):
        observed = _select(project, "x", trace).observed
        identities.add(replace(planned, observed=observed).identity)
    assert len(identities) == 4


def test_record_is_read_as_it_was_written(project: Project) -> None:
    trace = Trace(read={"other/p.json"}, missing={"q"}, listed={"other"}, written={"o"})
    _record(project, "x", trace)
    file = project.output("x").state_dir / MANIFEST
    table = json.loads(file.read_bytes())
    assert set(table["parts"]["observed"]) == {"files", "listings", "missing", "written"}
    for damage in ({"files": 3}, {"listings": {"d": 3}}, {"missing": [3]}, {"written": "x"}):
        parts = {**table["parts"], "observed": {**table["parts"]["observed"], **damage}}
        file.write_text(json.dumps({**table, "parts": parts}))
        assert inspect_manifest(file.parent) == Unusable("is damaged")
