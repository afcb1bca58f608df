"""Which keys of a spec are known, which are ignored in silence and which with a warning."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightcone.errors import SpecError
from lightcone.project.settings import Settings
from lightcone.spec import keys
from lightcone.spec.outputs import load_outputs
from tests.projects import Project

_PLACES = {
    "Analysis": keys.ANALYSIS,
    "Decision": keys.DECISION,
    "Input": keys.INPUT,
    "Option": keys.OPTION,
    "Output": keys.OUTPUT,
    "Recipe": keys.RECIPE,
    "Resources": keys.RESOURCES,
    "Universe": keys.UNIVERSE,
    "UniverseNode": keys.UNIVERSE_NODE,
}
# Classes of the schema that say nothing about what is made.
_PROSE = {"KeyValuePair", "DecisionSelection"}


def _schema() -> dict[str, Any]:
    """The classes of ASTRA's own schema that an analysis or a universe is made of."""
    found = importlib.util.find_spec("astra")
    assert found is not None
    assert found.submodule_search_locations is not None
    classes: dict[str, Any] = {}
    for place in found.submodule_search_locations:
        for name in ("analysis", "universe"):
            path = Path(place, "schema", f"{name}.yaml")
            if path.exists():
                classes |= yaml.safe_load(path.read_text())["classes"]
    return classes


def _warnings(project: Project) -> list[str]:
    warnings: list[str] = []
    load_outputs(project.root, Settings(), warnings=warnings)
    return warnings


def test_the_known_keys_are_those_of_astra() -> None:
    classes = _schema()
    assert classes.keys() - _PROSE == _PLACES.keys()
    for name, place in _PLACES.items():
        declared = {*classes[name].get("attributes", {}), *classes[name].get("slots", [])}
        assert place.known == declared, name


@pytest.mark.parametrize("name", _PLACES)
def test_the_table_contradicts_nowhere_itself(name: str) -> None:
    place = _PLACES[name]
    assert not place.accepted & place.moved.keys()
    assert (place.deciding or frozenset()) <= place.known
    assert place.deciding is not None or place.advice
    for advice in place.moved.values():
        assert advice.endswith((".", "?"))


def test_older_specs_are_read_in_silence(project: Project) -> None:
    """Keys that versions of ASTRA from its first have had, and that decide nothing."""
    project.spec(
        """
$schema: https://astra-spec.org/v1/analysis.schema.json
id: study
version: "0.1.0"
name: Study
narrative: {summary: s, methods: m}
authors: [someone]
tags: [a]
success_criteria: [{claim: c, output: x, condition: value > 0.95}]
insights: {i: {claim: c}}
papers: []
inputs:
  - {id: raw, type: data, label: l, description: d, source: data/raw.csv}
  - {id: before, type: analysis, ref: analyses/before, ref_version: "1", use_outputs: [y]}
outputs:
  - {id: headline, type: metric, description: d, label: l, from: part.y}
  - id: x
    type: metric
    label: l
    description: d
    rationale: r
    notes: n
    tags: [a]
    inputs: [raw]
    decisions: [cut]
    recipe:
      description: d
      command: "fit {inputs.raw} {decisions.cut} > {output}"
      container: box
      resources: {cpus: 1, memory: 1Gi, disk: 1Gi, time_limit: 1h}
decisions:
  cut:
    label: l
    description: d
    rationale: r
    tags: [a]
    type: method
    importance: 2
    default: a
    options:
      a: {label: l, description: d, insights: [i], evidence: [{insight: i}]}
      b: {label: l, excluded: true, excluded_reason: slow}
analyses:
  part:
    narrative: {summary: s}
    inputs: [{id: raw, type: data, description: d, label: l, from: ../raw}]
    decisions: {cut: {from: ../cut, label: l, rationale: r, tags: [a]}}
    outputs: [{id: y, inputs: [raw], recipe: {command: "cp {inputs.raw} {output}"}}]
""",
        {
            "u": "$schema: s\nid: u\nname: U\nversion: '1'\ndescription: d\ntags: [a]\n"
            "decisions: {cut: a}\nanalyses: {part: {description: d}}"
        },
    )
    assert [each.name for each in project.outputs()] == ["u/x", "u/part.y"]
    assert _warnings(project) == []


def test_a_key_that_decides_nothing_is_ignored_with_one_warning(project: Project) -> None:
    project.spec(
        """
multiverses: []
nmae: Study
outputs:
  - {id: a, target: x, recipe: {command: "echo > {output}"}}
  - {id: b, target: y, kind: figure, recipe: {command: "echo > {output}"}}
  - {id: c, target: z, descripton: d, recipe: {command: "echo > {output}"}}
analyses:
  part: {path: part}
  inline: {outputs: [{id: d, target: x}], x-mine: [1]}
""",
    )
    project.write("part/astra.yaml", "outputs: [{id: e, target: x, 5: x}]\nsources: []\n")
    remedy = "remove it, or correct its name."
    assert _warnings(project) == [
        f"astra.yaml has an unknown key 'multiverses', which is ignored: {remedy}",
        "astra.yaml has an unknown key 'nmae', which is ignored: did you mean 'name'?",
        "Output 'a' in astra.yaml (and 3 more) has an unknown key 'target', which is ignored: "
        + remedy,
        f"Output 'b' in astra.yaml has an unknown key 'kind', which is ignored: {remedy}",
        "Output 'c' in astra.yaml has an unknown key 'descripton', which is ignored: did you mean "
        "'description'?",
        f"astra.yaml, analyses.inline has an unknown key 'x-mine', which is ignored: {remedy}",
        f"part/astra.yaml has an unknown key 'sources', which is ignored: {remedy}",
        f"Output 'e' in part/astra.yaml has an unknown key 'target', which is ignored: {remedy}",
        f"Output 'e' in part/astra.yaml has an unknown key '5', which is ignored: {remedy}",
    ]
    assert len(project.outputs()) == 3


@pytest.mark.parametrize("key", ["seeds", "scores", "status", "optional", "where", "units", "path"])
def test_a_word_of_another_meaning_is_no_typo(key: str, project: Project) -> None:
    project.spec(f"outputs: [{{id: x, {key}: a}}]")
    remedy = "remove it, or correct its name."
    assert _warnings(project) == [
        f"Output 'x' in astra.yaml has an unknown key '{key}', which is ignored: {remedy}"
    ]


def test_many_warnings_are_cut_short(project: Project) -> None:
    entries = "\n".join(f"  - {{id: o{i}, zz_{i}: a}}" for i in range(50))
    project.spec(f"outputs:\n{entries}\n")
    warnings = _warnings(project)
    assert len(warnings) == 21
    assert warnings[0].startswith("Output 'o0' in astra.yaml has an unknown key 'zz_0', which")
    assert warnings[-1] == "and 30 more like the last one."


def test_files_and_references_that_are_ignored_are_warnings(project: Project) -> None:
    project.spec(
        """
outputs:
  - {id: good, from: part.x}
  - {id: gone, from: part.y}
  - {id: crooked, from: x}
  - {id: x, recipe: {command: "echo > {output}"}}
analyses: {part: {outputs: [{id: x, recipe: {command: "echo > {output}"}}]}}
"""
    )
    project.write("universes/slow.yml", "decisions: {}")
    assert _warnings(project) == [
        "Output 'gone' in astra.yaml stands for no output, as its 'from: part.y' leads to none of "
        "a sub-analysis: correct it.",
        "Output 'crooked' in astra.yaml stands for no output, as its 'from: x' leads to none of a "
        "sub-analysis: correct it.",
        "universes/slow.yml is ignored: rename it to slow.yaml to have its universe.",
    ]


def test_universes_that_are_not_read_are_warnings(project: Project) -> None:
    project.spec(
        "outputs: [{id: x, recipe: {command: y}}]\nanalyses: {part: {path: part}}", {"a": "{}"}
    )
    project.write("part/astra.yaml", "{}")
    for name in (
        *("b.YAML", "a.yml", "c.yaml.txt", "old/deep/d.yaml", "old/e.yml", "empty/README.md"),
        *(".hidden.yml", "README.md", "a.yaml~", "a.yaml.bak", ".git/f.yaml"),
    ):
        project.write(f"universes/{name}", "{}")
    project.write("universe/g.yaml", "{}")
    project.write("part/Universes/h.yml", "{}")
    project.write("part/universe/README.md", "{}")
    assert _warnings(project) == [
        "universes/a.yml is ignored, as a.yaml is read: remove it, or call it <name>.yaml.",
        "universes/b.YAML is ignored: rename it to b.yaml to have its universe.",
        "universes/c.yaml.txt is ignored: rename it to c.yaml to have its universe.",
        "universes/old is ignored, with e.yml in it: universes are the files directly in "
        "universes; move it there to have its universe.",
        "part/Universes is ignored: rename it to universes to have its universes.",
    ]
    assert [each.universe for each in project.outputs()] == ["a"]


def test_merged_keys_are_checked_where_they_are_merged(project: Project) -> None:
    text = """
x-common: &common {%s: 2}
outputs: [{id: a, recipe: {<<: *common, command: "echo > {output}"}}]
"""
    project.spec(text % "resources")
    with pytest.raises(SpecError, match="'resources' must be a mapping"):
        project.outputs()
    project.spec(text % "cpus")
    with pytest.raises(SpecError, match="unknown key 'cpus': it belongs under 'resources' of a"):
        project.outputs()


_CONSTRAINED = """
decisions:
  fast: {default: with, options: {with: {}, without: {}}}
  how:
    when: fast.without
    default: x
    options: {x: {incompatible_with: [fast.without]}, y: {}}
outputs: [{id: a, decisions: [fast], recipe: {command: "echo > {output}"}}]
analyses:
  outer:
    decisions: {fast: {from: ../fast}}
    analyses:
      inner:
        decisions:
          fast: {from: ../fast}
          cut:
            default: low
            options: {low: {requires: [fast.with]}, high: {incompatible_with: [fast.with]}}
        outputs: [{id: b, decisions: [cut], recipe: {command: "echo > {output}"}}]
"""


def _chosen(fast: str, cut: str, how: str = "") -> str:
    decisions = f"{{fast: {fast}{f', how: {how}' if how else ''}}}"
    inner = f"{{analyses: {{inner: {{decisions: {{cut: {cut}}}}}}}}}"
    return f"decisions: {decisions}\nanalyses: {{outer: {inner}}}"


def test_constraints_reach_through_inherited_decisions(project: Project) -> None:
    project.spec(_CONSTRAINED, {"u": _chosen("with", "low")})
    assert len(project.outputs()) == 2
    project.spec(_CONSTRAINED, {"u": _chosen("without", "low", "y")})
    with pytest.raises(SpecError) as caught:
        project.outputs()
    assert str(caught.value) == (
        "universes/u.yaml chooses 'low' for decision 'cut' of 'outer.inner', which requires 'with' "
        "for 'fast', not 'without': choose another option for one of the two."
    )
    project.spec(_CONSTRAINED, {"u": _chosen("with", "high")})
    with pytest.raises(SpecError, match=r"'high' .* which is incompatible with 'with' for 'fast'"):
        project.outputs()


def test_an_inactive_decision_constrains_nothing(project: Project) -> None:
    project.spec(_CONSTRAINED, {"u": _chosen("with", "low", "x")})
    assert len(project.outputs()) == 2
    project.spec(_CONSTRAINED, {"u": _chosen("without", "high", "x")})
    with pytest.raises(SpecError, match="chooses 'x' for decision 'how', which is incompatible"):
        project.outputs()


def test_a_choice_that_repeats_an_inherited_one_is_fine(project: Project) -> None:
    text = _chosen("with", "low").replace(
        "analyses: {inner", "decisions: {fast: with}, analyses: {inner"
    )
    project.spec(_CONSTRAINED, {"u": text})
    assert len(project.outputs()) == 2
