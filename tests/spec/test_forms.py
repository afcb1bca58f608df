"""The less usual forms of a spec: sub-analyses within sub-analyses, references through several."""

from __future__ import annotations

import pytest

from lightcone.errors import SpecError
from lightcone.spec.selection import select
from tests.projects import Project

ROOT = """
inputs: [{id: raw, source: data/raw.csv}]
decisions: {cut: {options: {strict: {}, loose: {}}}}
outputs:
  - {id: best, from: outer.best}
  - {id: plot, inputs: [best, outer.inner.fit], recipe: {command: "cat {inputs} > {output}"}}
analyses:
  outer: {path: stages/outer}
  beside:
    inputs:
      - {id: deep, from: ../outer.inner.fit}
      - {id: alias, from: ../outer.best}
    outputs:
      - {id: all, inputs: [deep, alias], recipe: {command: "cat {inputs} > {output}"}}
"""
OUTER = """
inputs: [{id: data, from: ../raw}]
decisions:
  cut: {from: ../cut}
  size: {options: {small: {}, large: {}}}
outputs:
  - {id: best, from: inner.fit}
  - {id: own, inputs: [data], decisions: [size], recipe: {command: "cat {inputs} > {output}"}}
analyses:
  inner: {path: ../inner}
"""
INNER = """
inputs: [{id: data, from: ../data}, {id: above, from: ../../raw}]
decisions:
  cut: {from: ../../cut}
  depth: {default: low, options: {low: {}, high: {}}}
outputs:
  - id: fit
    inputs: [data, above]
    decisions: [cut, depth]
    recipe: {command: "fit {inputs.data} {inputs.above} {decisions.cut} {decisions.depth} {output}"}
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.write("stages/outer/astra.yaml", OUTER)
    project.write("stages/inner/astra.yaml", INNER)
    project.write("data/raw.csv", "1")
    return project


def test_references_through_several_analyses(project: Project) -> None:
    project.spec(
        ROOT,
        {
            "u": "decisions: {cut: loose}\n"
            "analyses: {outer: {decisions: {size: small}, "
            "analyses: {inner: {decisions: {depth: high}}}}}"
        },
    )
    found = {each.id: each for each in project.outputs()}
    assert sorted(found) == ["beside.all", "outer.inner.fit", "outer.own", "plot"]
    fit = "stages/inner/results/u/fit"
    assert found["outer.inner.fit"].command == f"fit data/raw.csv data/raw.csv loose high {fit}"
    assert found["outer.inner.fit"].decisions == (("cut", "loose"), ("depth", "high"))
    assert set(found["outer.inner.fit"].aliases) == {"best", "outer.best"}
    assert found["outer.own"].command == "cat data/raw.csv > stages/outer/results/u/own"
    for name in ("plot", "beside.all"):
        assert (
            found[name].command == f"cat {fit} {fit} > results/u/{found[name].id[-4:].lstrip('.')}"
        )
        assert [each.producer for each in found[name].inputs] == ["outer.inner.fit"] * 2
    for name in ("best", "u/best", "outer.best", "u/outer.inner.fit"):
        assert [each.id for each in select(list(found.values()), [name])] == ["outer.inner.fit"]


def test_a_universe_that_picks_one_of_a_sub_analysis_that_picks_one(project: Project) -> None:
    project.spec(
        ROOT,
        {
            "picked": "decisions: {cut: loose}\nanalyses: {outer: {universe: big}}",
            "both": "decisions: {cut: strict}\nanalyses: {outer: {decisions: {size: small}, "
            "analyses: {inner: {universe: thorough}}}}",
            "same": "decisions: {cut: strict}",
        },
    )
    big = "decisions: {size: large}\nanalyses: {inner: {universe: thorough}}"
    project.write("stages/outer/universes/big.yaml", big)
    project.write("stages/outer/universes/same.yaml", "decisions: {size: small}")
    project.write("stages/inner/universes/thorough.yaml", "decisions: {depth: high}")
    project.write("stages/inner/universes/same.yaml", "decisions: {depth: low}")
    found = {
        each.name: dict(each.decisions)
        for each in project.outputs()
        if each.id in ("outer.own", "outer.inner.fit")
    }
    assert found == {
        "picked/outer.own": {"size": "large"},
        "picked/outer.inner.fit": {"cut": "loose", "depth": "high"},
        "both/outer.own": {"size": "small"},
        "both/outer.inner.fit": {"cut": "strict", "depth": "high"},
        "same/outer.own": {"size": "small"},
        "same/outer.inner.fit": {"cut": "strict", "depth": "low"},
    }
    # The results lie under the project's universe, whatever the sub's is called.
    assert project.output("picked/outer.own").display_path == "stages/outer/results/picked/own"
    project.write("stages/outer/universes/big.yaml", big.replace("thorough", "through"))
    with pytest.raises(SpecError) as caught:
        project.outputs()
    assert str(caught.value) == (
        "stages/outer/universes/big.yaml chooses universe 'through' of 'inner', where there is no "
        "such file: choose one of same, thorough."
    )


def test_conditions_of_a_sub_analysis_on_what_is_decided_above(project: Project) -> None:
    project.spec(
        """
decisions: {cut: {options: {strict: {}, loose: {}}}}
outputs:
  - {id: gone, from: sub.only}
  - {id: all, inputs: [sub.only, sub.always], recipe: {command: "cat {inputs} > {output}/x"}}
analyses:
  sub:
    decisions:
      cut: {from: ../cut}
      how: {when: cut.loose, options: {a: {}, b: {}}}
    outputs:
      - id: only
        when: [cut.loose, ~how.b]
        decisions: [how]
        recipe: {command: "echo > {output}/x"}
      - {id: always, decisions: [cut, how], recipe: {command: "echo > {output}/x"}}
""",
        {
            "a": "decisions: {cut: loose}\nanalyses: {sub: {decisions: {how: a}}}",
            "b": "decisions: {cut: loose}\nanalyses: {sub: {decisions: {how: b}}}",
            "c": "decisions: {cut: strict}\nanalyses: {sub: {decisions: {how: a}}}",
        },
    )
    found = {each.name: each for each in project.outputs()}
    assert [name for name in found if name.endswith("only")] == ["a/sub.only"]
    assert found["a/sub.only"].aliases == ("gone",)
    assert found["a/all"].command == "cat results/a/only results/a/always > results/a/all/x"
    assert found["b/all"].command == "cat results/b/always > results/b/all/x"
    assert found["b/sub.always"].decisions == (("cut", "loose"), ("how", "b"))
    assert found["c/sub.always"].decisions == (("cut", "strict"),)
