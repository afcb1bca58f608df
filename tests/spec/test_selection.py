"""Which outputs the words of a command line mean."""

from __future__ import annotations

import pytest

from lightcone.errors import UsageError
from lightcone.spec.selection import named, select
from tests.projects import Project

SPEC = """
outputs:
  - {id: raw, recipe: {command: "touch {output}/x"}}
  - {id: table, inputs: [raw], recipe: {command: "touch {output}/x"}}
  - {id: plot, inputs: [table], recipe: {command: "touch {output}/x"}}
  - {id: alone, when: cut.a, recipe: {command: "touch {output}/x"}}
  - {id: slope, from: fit.slope}
  - {id: final, from: fit.best}
decisions: {cut: {options: {a: {}, b: {}}}}
analyses:
  fit:
    inputs: [{id: raw, from: ../raw}]
    outputs:
      - {id: slope, inputs: [base], recipe: {command: "touch {output}/x"}}
      - {id: base, recipe: {command: "touch {output}/x"}}
      - {id: best, from: deep.best}
    analyses: {deep: {outputs: [{id: best, recipe: {command: "touch {output}/x"}}]}}
"""


@pytest.fixture
def project(project: Project) -> Project:
    return project.spec(SPEC, {"a": "decisions: {cut: a}", "b": "decisions: {cut: b}"})


@pytest.mark.parametrize(
    ("names", "meant", "selected"),
    [
        (["raw"], "a/raw b/raw", "a/raw b/raw"),
        (["a/raw"], "a/raw", "a/raw"),
        (["a/plot"], "a/plot", "a/raw a/table a/plot"),
        (["b/table", "a/raw"], "a/raw b/table", "a/raw b/raw b/table"),
        (["alone"], "a/alone", "a/alone"),
        (["a/fit.slope"], "a/fit.slope", "a/fit.base a/fit.slope"),
        (["a/slope"], "a/fit.slope", "a/fit.base a/fit.slope"),
        (["b/final"], "b/fit.deep.best", "b/fit.deep.best"),
        (["b/fit.best"], "b/fit.deep.best", "b/fit.deep.best"),
        ([], "", ""),
    ],
)
def test_names(project: Project, names: list[str], meant: str, selected: str) -> None:
    outputs = project.outputs()
    assert {"/".join(key) for key in named(outputs, names)} == set(meant.split())
    assert [each.name for each in select(outputs, names)] == selected.split()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tabel", "There is no output 'tabel' with a recipe: did you mean 'table'?"),
        ("a/tabel", "There is no output 'a/tabel' with a recipe: did you mean 'table'?"),
        ("base", "There is no output 'base' with a recipe: did you mean 'fit.base'?"),
        ("c/raw", "There is no output 'c/raw': no universe 'c', there are a, b."),
        ("b/alone", "There is no output 'b/alone': universe 'b' has none, but a has it."),
        (
            "xyzzy",
            "There is no output 'xyzzy' with a recipe: there are raw, table, plot, alone, "
            "fit.base, fit.slope, slope, fit.deep.best, final, fit.best.",
        ),
        (
            "",
            "There is no output '' with a recipe: there are raw, table, plot, alone, "
            "fit.base, fit.slope, slope, fit.deep.best, final, fit.best.",
        ),
    ],
)
def test_unknown_names(project: Project, name: str, sentence: str) -> None:
    outputs = project.outputs()
    with pytest.raises(UsageError) as caught:
        select(outputs, ["raw", name])
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError):
        named(outputs, [name])
