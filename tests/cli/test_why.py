"""``lc why``: state, reasons, what determines an output, and what was not followed."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from lightcone.state.dependencies import SourceFiles
from lightcone.state.observed import Trace, select
from tests.helpers import Sandbox
from tests.projects import Project

SPEC = """\
inputs:
- {id: raw, source: data/raw.csv}
decisions: {cut: {options: {low: {}, high: {}}, default: low}}
outputs:
- {id: first, format: txt, inputs: [raw], recipe: {command: "cat {inputs.raw} > {output}"}}
- id: fit
  format: txt
  inputs: [raw, first]
  decisions: [cut]
  recipe:
    command: >-
      sh src/fit.sh {inputs.raw} {decisions.cut} run.log > {output}; cat conf/*.txt $X/y.txt
"""


@pytest.fixture
def project(sandbox: Sandbox) -> Project:
    project = Project(sandbox.project)
    project.write("data/raw.csv", "1\n")
    project.write("conf/a.txt", "a\n")
    project.write("src/more.sh", "")
    project.write("src/fit.sh", '. "$(dirname "$0")/more.sh"\necho "$1" "$2"; echo > "$3"\n')
    project.spec(SPEC.replace(" $X/y.txt", ""))
    project.make()
    return project


def test_what_determines_an_output(sandbox: Sandbox, project: Project) -> None:
    project.spec(SPEC)
    project.write("src/more.sh", "# changed\n")
    project.write("conf/b.txt", "b\n")
    project.write("conf/c.txt", "c\n")
    table = json.loads(sandbox.lc("why", "fit", "--json").stdout)
    assert (table["id"], table["universe"], table["state"]) == ("fit", "baseline", "stale")
    assert table["reasons"][:2] == ["recipe changed", "src/more.sh changed"]
    new = {"conf/b.txt is new", "conf/c.txt is new", "run.log is new"}
    assert set(table["reasons"][2:]) == new
    assert {each["path"]: each["found"] for each in table["files"]} == {
        "src/fit.sh": "command",
        "src/more.sh": "path in src/fit.sh:1",
        "conf/a.txt": "command conf/*.txt",
        "conf/b.txt": "command conf/*.txt",
        "conf/c.txt": "command conf/*.txt",
        "run.log": "command",
    }
    assert table["inputs"] == [
        {"id": "raw", "text": "data/raw.csv", "made_by": None, "state": None},
        {
            "id": "first",
            "text": "results/baseline/first.txt",
            "made_by": "first",
            "state": "ok",
        },
    ]
    assert table["decisions"] == {"cut": "low"}
    why = "$X/y.txt in the command: a variable in it is not set there"
    assert table["not_followed"] == [why]


def test_text(sandbox: Sandbox, project: Project) -> None:
    assert (
        sandbox.lc("why", "baseline/fit").stdout
        == """\
baseline/fit is ok
its command:
  sh src/fit.sh data/raw.csv low run.log > results/baseline/fit.txt; cat conf/*.txt
what determines it besides:
  decision   cut = low
  input      raw: data/raw.csv
  input      first: results/baseline/first.txt  made by first, ok
  file       conf/a.txt                         command conf/*.txt
  file       src/fit.sh                         command
  file       src/more.sh                        path in src/fit.sh:1
written by its recipe, so it does not count:
  run.log
"""
    )
    assert not (sandbox.project / "results/baseline/.lightcone/fit/log.txt").exists()


def test_of_what_cannot_be_made_the_files_are_there(sandbox: Sandbox, project: Project) -> None:
    (sandbox.project / "data/raw.csv").unlink()
    table = json.loads(sandbox.lc("why", "fit", "--json").stdout)
    assert table["reasons"] == ["input raw: data/raw.csv does not exist"]
    assert {each["path"] for each in table["files"]} == {"conf/a.txt", "src/fit.sh", "src/more.sh"}


def test_what_was_observed(sandbox: Sandbox, project: Project) -> None:
    output = project.output("fit")
    planned = project.plan()["baseline/fit"].provenance
    assert planned is not None
    trace = Trace(
        read={"conf/b.cfg", "src/fit.sh", "results/baseline/other.txt"},
        listed={"conf"},
        missing={"conf/none"},
    )
    for name in ("conf/b.cfg", "results/baseline/other.txt"):
        project.write(name, "")
    sources = SourceFiles(project.root)
    selection = select(trace, output, planned, time.time_ns() + 10**12, sources)
    project.record(output, replace(planned, observed=selection.observed))
    for is_gone in (False, True):
        if is_gone:
            (sandbox.project / "data/raw.csv").unlink()
        table = json.loads(sandbox.lc("why", "fit", "--json").stdout)
        found = {each["path"]: each["kind"] for each in table["files"]}
        assert found["conf/b.cfg"] == found["results/baseline/other.txt"] == "observed"
        assert found["src/fit.sh"] == "command"
        assert (table["listings"], table["missing"]) == (["conf"], ["conf/none"])
        assert table["undeclared"] == ["results/baseline/other.txt"]
    shown = [line.split() for line in sandbox.lc("why", "fit").stdout.splitlines()]
    assert ["file", "conf/b.cfg", "observed"] in shown
    assert ["result", "results/baseline/other.txt", "observed"] in shown
    assert ["names", "in", "conf", "observed"] in shown
    assert ["not", "there", "conf/none", "observed"] in shown


def test_mistakes(sandbox: Sandbox, project: Project) -> None:
    assert "no output 'fitt'" in sandbox.lc("why", "fitt", check=2).stderr
    project.spec(SPEC, {"a": "decisions: {cut: low}", "b": "decisions: {cut: high}"})
    assert "in several universes" in sandbox.lc("why", "fit", check=2).stderr
    assert "b/fit is missing" in sandbox.lc("why", "fit", "-u", "b").stdout
