"""What a spec means: outputs, their commands, their order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightcone.errors import SpecError, UsageError
from lightcone.project.context import find_root
from lightcone.spec.output import Input, Resources
from tests.projects import Project

PLAIN = """
version: "1.0"
name: plain
inputs:
  - {id: raw, type: data, source: data/raw.csv}
decisions:
  cut: {label: Cut, default: strict, options: {strict: {label: s}, loose: {label: l}}}
outputs:
  - id: table
    type: table
    format: csv
    inputs: [raw, clean]
    decisions: [cut]
    recipe:
      command: python src/fit.py {inputs.raw} {inputs.clean} --cut {decisions.cut} -o {output}
  - id: clean
    type: data
    format: parquet
    inputs: [raw]
    recipe: {command: "python src/clean.py {inputs} > {output}"}
"""


def test_defaults_make_a_universe_named_baseline(project: Project) -> None:
    outputs = project.spec(PLAIN).outputs()
    assert [each.name for each in outputs] == ["baseline/clean", "baseline/table"]
    table = outputs[1]
    assert table.command == (
        "python src/fit.py data/raw.csv results/baseline/clean.parquet --cut strict"
        " -o results/baseline/table.csv"
    )
    assert table.root == project.root
    assert table.path == project.root / "results/baseline/table.csv"
    assert table.state_dir == project.root / "results/baseline/.lightcone/table"
    assert table.decisions == (("cut", "strict"),)
    assert not table.is_directory
    assert table.container is None
    assert table.resources == Resources()
    clean = f"{project.root}/results/baseline/clean.parquet"
    assert table.inputs == (
        Input("raw", "data/raw.csv", f"{project.root}/data/raw.csv", None, certain=True),
        Input("clean", "results/baseline/clean.parquet", clean, "clean"),
    )


def test_empty_universes_directory_is_as_none(project: Project) -> None:
    (project.root / "universes").mkdir()
    assert {each.universe for each in project.spec(PLAIN).outputs()} == {"baseline"}


def test_every_universe_or_the_one_named(project: Project) -> None:
    project.spec(
        PLAIN,
        {
            "b": "id: b\ndecisions: {cut: loose}",
            "a": "id: a\ndecisions: {cut: strict}",
            ".hidden": "decisions: [",
        },
    )
    names = [each.name for each in project.outputs()]
    assert names == ["a/clean", "a/table", "b/clean", "b/table"]
    assert [each.name for each in project.outputs("b")] == ["b/clean", "b/table"]
    assert "--cut loose" in project.output("b/table").command
    with pytest.raises(UsageError, match=r"no universe 'c': there are a, b\."):
        project.outputs("c")


def test_conditions(project: Project) -> None:
    project.spec(
        """
outputs:
  - {id: always, type: data, recipe: {command: "touch {output}/x"}}
  - {id: robustly, type: data, when: fit.robust, recipe: {command: "touch {output}/x"}}
  - {id: plainly, type: data, when: [~fit.robust], recipe: {command: "touch {output}/x"}}
  - id: scaled
    type: data
    decisions: [fit, scale]
    recipe: {command: "touch {output}/{decisions.fit}"}
decisions:
  fit: {label: f, default: plain, options: {plain: {label: p}, robust: {label: r}}}
  scale: {label: s, when: fit.robust, default: mad, options: {mad: {label: m}, iqr: {label: i}}}
""",
        {
            "plain": "decisions: {fit: plain}",
            "robust": "decisions: {fit: robust, scale: iqr}",
        },
    )
    plain = {each.id: each for each in project.outputs("plain")}
    robust = {each.id: each for each in project.outputs("robust")}
    assert sorted(plain) == ["always", "plainly", "scaled"]
    assert sorted(robust) == ["always", "robustly", "scaled"]
    assert plain["scaled"].decisions == (("fit", "plain"),)
    assert robust["scaled"].decisions == (("fit", "robust"), ("scale", "iqr"))


def test_a_command_may_name_a_decision_that_is_not_up_for_decision(project: Project) -> None:
    # What the universe says, though it need not, else the default.
    project.spec(
        """
outputs:
  - id: x
    decisions: [fit, scale]
    recipe: {command: "fit {decisions.fit} {decisions.scale} > {output}"}
decisions:
  fit: {options: {plain: {}, robust: {}}}
  scale: {when: fit.robust, default: mad, options: {mad: {}, iqr: {}}}
""",
        {"a": "decisions: {fit: plain}", "b": "decisions: {fit: plain, scale: iqr}"},
    )
    assert project.output("a/x").command == "fit plain mad > results/a/x"
    assert project.output("b/x").command == "fit plain iqr > results/b/x"
    assert project.output("a/x").decisions == (("fit", "plain"),)


def test_options_are_what_is_written(project: Project) -> None:
    # FACTS.md: option ids like "30" or 200m, and YAML's truth values.
    project.spec(
        """
outputs:
  - id: x
    decisions: [flag, size, width, share, day, mode]
    recipe:
      command: "run {decisions.flag} {decisions.size} {decisions.width} {decisions.share}
        {decisions.day} {decisions.mode} > {output}/x"
decisions:
  flag: {label: f, default: off, options: {on: {label: a}, off: {label: b}}}
  size: {label: s, default: 200m, options: {200m: {label: a}, 1_000m: {label: b}}}
  width: {label: w, default: "30", options: {"30": {label: a}, 010: {label: b}}}
  share: {label: p, default: 0.10, options: {0.10: {label: a}, 1e-3: {label: b}}}
  day: {label: d, default: 2020-01-01, options: {2020-01-01: {label: a}, 12:30: {label: b}}}
  mode: {label: m, default: Yes, options: {Yes: {label: a}, true: {label: b}}}
""",
        {
            "a": "decisions: {flag: on, size: '1_000m', width: 30, share: 1e-3, day: 12:30, "
            "mode: true}",
            "b": "decisions: {flag: off, size: 200m, width: '010', share: '0.10', "
            "day: 2020-01-01, mode: 'Yes'}",
        },
    )
    assert project.output("a/x").command.startswith("run on 1_000m 30 1e-3 12:30 true > ")
    assert project.output("b/x").command.startswith("run off 200m 010 0.10 2020-01-01 Yes > ")


def test_sources(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    (tmp_path / "far.csv").touch()
    project.write("data/near.csv", "")
    project.write("data/two words.csv", "")
    sources = {
        "near": "data/near.csv",
        "dotted": "./data/near.csv",
        "absolute": f"{project.root}/data/near.csv",
        "far": f"{tmp_path}/far.csv",
        "variable": "$DATA/far.csv",
        "absent": "data/absent.csv",
        "spaced": "data/two words.csv",
        "pattern": "data/*.csv",
        "address": "https://example.org/x?a=1&b=2",
        "prose": "Gaia DR3 (TAP service)",
        "package": "astropy:coordinates/sun",
    }
    inputs = "\n".join(f"  - {{id: {i}, source: '{s}'}}" for i, s in sources.items())
    outputs = "\n".join(
        f"  - id: o_{i}\n    inputs: [{i}]\n"
        f"    recipe: {{command: 'cat {{inputs.{i}}} > {{output}}'}}"
        for i in sources
    )
    project.spec(f"inputs:\n{inputs}\noutputs:\n{outputs}\n")
    made = {each.id.removeprefix("o_"): each for each in project.outputs()}
    shown = {i: o.command.removeprefix("cat ").partition(" > ")[0] for i, o in made.items()}
    assert shown == {
        "near": "data/near.csv",
        "dotted": "./data/near.csv",
        "absolute": "data/near.csv",
        "far": f"{tmp_path}/far.csv",
        "variable": "$DATA/far.csv",
        "absent": "data/absent.csv",
        "spaced": "'data/two words.csv'",
        "pattern": "data/*.csv",
        "address": "'https://example.org/x?a=1&b=2'",
        "prose": "'Gaia DR3 (TAP service)'",
        "package": "astropy:coordinates/sun",
    }
    near = project.root / "data/near.csv"
    assert {i: o.inputs[0].path for i, o in made.items()} == {
        "near": near,
        "dotted": near,
        "absolute": near,
        "far": tmp_path / "far.csv",
        "variable": tmp_path / "far.csv",
        "absent": project.root / "data/absent.csv",
        "spaced": project.root / "data/two words.csv",
        "pattern": None,
        "address": None,
        "prose": None,
        "package": project.root / "astropy:coordinates/sun",
    }


def test_an_input_without_source_is_only_missed_where_it_is_named(project: Project) -> None:
    project.spec(
        """
inputs: [{id: idea, type: data}, {id: raw, source: raw.csv}]
outputs:
  - {id: x, inputs: [idea, raw], recipe: {command: "cat {inputs} > {output}"}}
"""
    )
    assert project.output("x").command == "cat raw.csv > results/baseline/x"
    assert [each.id for each in project.output("x").inputs] == ["raw"]


def test_an_output_without_recipe_is_put_there_by_hand(project: Project) -> None:
    project.spec(
        """
outputs:
  - {id: by_hand, format: csv}
  - {id: x, format: csv, inputs: [by_hand], recipe: {command: "cp {inputs.by_hand} {output}"}}
"""
    )
    (output,) = project.outputs()
    assert output.command == "cp results/baseline/by_hand.csv results/baseline/x.csv"
    place = f"{project.root}/results/baseline/by_hand.csv"
    assert output.inputs == (
        Input("by_hand", "results/baseline/by_hand.csv", place, None, certain=True),
    )


def test_an_input_that_a_universe_does_not_make(project: Project) -> None:
    spec = """
outputs:
  - {{id: extra, when: full.with, recipe: {{command: "touch {{output}}/x"}}}}
  - {{id: base, recipe: {{command: "touch {{output}}/x"}}}}
  - {{id: all, inputs: [base, extra], recipe: {{command: "cat {wanted} > {{output}}/x"}}}}
decisions: {{full: {{default: without, options: {{with: {{}}, without: {{}}}}}}}}
"""
    project.spec(spec.format(wanted="{inputs}"))
    assert project.output("all").command == "cat results/baseline/base > results/baseline/all/x"
    project.spec(spec.format(wanted="{inputs.extra}"))
    with pytest.raises(SpecError, match="input 'extra' is not made in universe 'baseline'"):
        project.outputs()


def test_recipes_without_placeholders_and_outputs_without_recipes(project: Project) -> None:
    project.spec(
        """
outputs:
  - {id: x, recipe: {command: "  python src/x.py\\n"}}
  - {id: none}
  - {id: empty, recipe: null}
"""
    )
    (output,) = project.outputs()
    assert (output.id, output.command) == ("x", "python src/x.py")


def test_resources_and_containers(project: Project) -> None:
    project.spec(
        """
container: python:3.12
outputs:
  - id: x
    recipe:
      command: "touch {output}"
      resources: {cpus: 0.5, memory: 16Gi, gpus: 2, time_limit: 1h30m, disk: lots}
  - {id: y, recipe: {command: "touch {output}", container: null}}
  - {id: z, recipe: {command: "touch {output}", container: other}}
analyses:
  sub:
    outputs:
      - {id: x, recipe: {command: "touch {output}"}}
    analyses:
      deep:
        container: own
        outputs: [{id: x, recipe: {command: "touch {output}"}}]
"""
    )
    found = {each.id: each for each in project.outputs()}
    assert found["x"].resources == Resources(0.5, 16 << 30, 2, 5400.0)
    assert {name: each.container for name, each in found.items()} == {
        "x": "python:3.12",
        "y": None,
        "z": "other",
        "sub.x": "python:3.12",
        "sub.deep.x": "own",
    }


NESTED = """
version: "1.0"
name: nested
inputs:
  - {id: raw, type: data, source: data/raw.csv}
decisions:
  cut: {label: c, default: strict, options: {strict: {label: s}, loose: {label: l}}}
outputs:
  - id: report
    inputs: [fit.slope, clean, fit.deep.bottom]
    recipe: {command: "cat {inputs.fit.slope} {inputs} > {output}/x"}
  - {id: slope, from: fit.slope}
  - {id: again, from: fit.lower}
  - {id: of_alias, inputs: [again], recipe: {command: "cat {inputs.again} > {output}/x"}}
  - {id: clean, inputs: [raw], recipe: {command: "cat {inputs.raw} > {output}/x"}}
analyses:
  prepare:
    inputs: [{id: raw, from: ../raw}]
    outputs:
      - {id: table, inputs: [raw], recipe: {command: "cat {inputs.raw} > {output}/x"}}
  fit:
    inputs:
      - {id: raw, from: ../raw}
      - {id: table, from: ../prepare.table}
    decisions:
      cut: {from: ../cut}
      own: {label: o, default: a, options: {a: {label: a}, b: {label: b}}}
    outputs:
      - id: slope
        inputs: [raw, table]
        decisions: [cut, own]
        recipe:
          command: "fit {inputs.raw} {inputs.table} {decisions.cut} {decisions.own} > {output}/x"
      - {id: lower, from: deep.bottom}
    analyses:
      deep:
        inputs:
          - {id: everything, from: ../../raw}
          - {id: beside, from: ../../prepare.table}
        decisions: {cut: {from: ../cut}, own: {from: ../own}}
        outputs:
          - id: bottom
            inputs: [everything, beside]
            decisions: [cut, own]
            recipe: {command: "low {inputs} {decisions.cut} {decisions.own} > {output}/x"}
"""


def test_inline_sub_analyses(project: Project) -> None:
    project.spec(NESTED, {"u": "decisions: {cut: loose}\nanalyses: {fit: {decisions: {own: b}}}"})
    found = {each.id: each for each in project.outputs()}
    u = "results/u"
    assert {name: each.command for name, each in found.items()} == {
        "prepare.table": f"cat data/raw.csv > {u}/table/x",
        "clean": f"cat data/raw.csv > {u}/clean/x",
        "fit.slope": f"fit data/raw.csv {u}/table loose b > {u}/slope/x",
        "fit.deep.bottom": f"low data/raw.csv {u}/table loose b > {u}/bottom/x",
        "report": f"cat {u}/slope {u}/slope {u}/clean {u}/bottom > {u}/report/x",
        "of_alias": f"cat {u}/bottom > {u}/of_alias/x",
    }
    assert found["fit.slope"].aliases == ("slope",)
    assert set(found["fit.deep.bottom"].aliases) == {"again", "fit.lower"}
    order = list(found)
    for name, needs in {"report": ["fit.slope", "clean"], "fit.slope": ["prepare.table"]}.items():
        assert all(order.index(needed) < order.index(name) for needed in needs)
    assert [each.producer for each in found["of_alias"].inputs] == ["fit.deep.bottom"]


SUB = """
version: "1.0"
name: sub
inputs:
  - {id: own, source: data/own.csv}
  - {id: given, from: ../raw}
decisions:
  cut: {label: c, options: {strict: {label: s}, loose: {label: l}}}
outputs:
  - id: fit
    inputs: [own, given]
    decisions: [cut]
    recipe: {command: "fit {inputs.own} {inputs.given} {decisions.cut} > {output}/x"}
"""
ROOT_OF_SUB = """
inputs: [{id: raw, source: data/raw.csv}]
outputs:
  - {id: all, inputs: [part.fit], recipe: {command: "cat {inputs.part.fit}/x > {output}/x"}}
analyses: {part: {path: stages/part}}
"""


def test_sub_analyses_by_path(project: Project) -> None:
    # Results in the sub's own directory, commands in the root.
    project.spec(
        ROOT_OF_SUB,
        {
            "inline": "analyses: {part: {decisions: {cut: strict}}}",
            "picked": "analyses: {part: {universe: fast}}",
            "same": "id: same",
        },
    )
    project.write("stages/part/astra.yaml", SUB)
    project.write("stages/part/universes/fast.yaml", "id: fast\ndecisions: {cut: loose}")
    project.write("stages/part/universes/same.yaml", "id: same\ndecisions: {cut: loose}")
    found = {each.name: each for each in project.outputs()}
    fit = found["inline/part.fit"]
    place = "stages/part/results/inline/fit"
    assert fit.command == f"fit data/own.csv data/raw.csv strict > {place}/x"
    assert fit.root == project.root
    assert fit.path == project.root / place
    assert fit.state_dir == project.root / "stages/part/results/inline/.lightcone/fit"
    assert found["picked/part.fit"].decisions == (("cut", "loose"),)
    assert found["same/part.fit"].decisions == (("cut", "loose"),)
    assert found["inline/all"].command == f"cat {place}/x > results/inline/all/x"


def test_a_sub_analysis_finds_its_own_data(project: Project) -> None:
    project.spec(ROOT_OF_SUB, {"u": "analyses: {part: {decisions: {cut: strict}}}"})
    project.write("stages/part/astra.yaml", SUB)
    project.write("stages/part/data/own.csv", "")
    command = project.output("u/part.fit").command
    assert command.startswith("fit stages/part/data/own.csv data/raw.csv ")
    project.write("data/own.csv", "")
    command = project.output("u/part.fit").command
    assert command.startswith("fit data/own.csv data/raw.csv ")


def test_a_sub_analysis_outside_the_project(project: Project) -> None:
    project.spec(
        ROOT_OF_SUB.replace("stages/part", "../elsewhere"),
        {"u": "analyses: {part: {decisions: {cut: strict}}}"},
    )
    project.write("../elsewhere/astra.yaml", SUB)
    output = project.output("u/part.fit")
    assert output.path == project.root.parent / "elsewhere/results/u/fit"
    assert output.command.endswith(f"> {output.path}/x")


def test_defaults_of_conditional_decisions_below(project: Project) -> None:
    project.spec(
        """
decisions: {fit: {default: robust, options: {plain: {}, robust: {}}}}
analyses:
  sub:
    decisions:
      scale: {when: fit.robust, default: mad, options: {mad: {}, iqr: {}}}
      trim: {when: scale.mad, default: half, options: {half: {}}}
    outputs:
      - {id: x, decisions: [scale, trim], recipe: {command: "x {decisions.scale} > {output}"}}
"""
    )
    assert project.output("sub.x").decisions == (("scale", "mad"), ("trim", "half"))


def test_a_decision_from_above_without_being_declared(project: Project) -> None:
    # The older tool let the outputs of a sub-analysis use the root's decisions by their name.
    project.spec(
        """
decisions: {cut: {default: strict, options: {strict: {}, loose: {}}}}
analyses:
  sub:
    outputs: [{id: x, decisions: [cut], recipe: {command: "x {decisions.cut} > {output}"}}]
"""
    )
    assert project.output("sub.x").command == "x strict > results/baseline/x"
    assert project.output("sub.x").decisions == (("cut", "strict"),)


def test_findings_that_stop_nobody(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """What astra's validator complains of, and the older tools made all the same."""
    project.spec(
        """
name: [not, text]
inputs:
  - {id: unused, from: ../nowhere}
outputs:
  - id: x
    type: nonsense
    decisions: [cut]
    recipe: {command: "echo {decisions.cut} > {output}/x", resources: {disk: 1Gi}}
  - {id: dangling, from: nowhere.x}
  - {id: crooked, from: x}
  - {id: upward, from: ../x}
  - {id: two, from: sub.y, type: data, description: old, inputs: [x], decisions: [cut]}
  - {id: user, inputs: [crooked, upward, two], recipe: {command: "ls {inputs} > {output}/x"}}
decisions:
  cut:
    default: absent
    options:
      strict: {insights: [unheard_of], excluded_reason: none given}
      loose: {excluded: true}
      bare:
      text: just a label
  other: {label: never used, options: {a: {}, b: {}}}
  more: {from: ../nothing_above}
prior_insights: [malformed]
findings: {found: {evidence: [{artifact: nothing}]}}
analyses: {sub: {outputs: [{id: y, recipe: {command: "touch {output}/y"}}]}}
""",
        {"u": "decisions: {cut: strict, more: ignored}", "v": "decisions: {cut: bare}"},
    )
    names = ["u/x", "u/sub.y", "u/user", "v/x", "v/sub.y", "v/user"]
    assert [each.name for each in project.outputs()] == names
    assert project.output("u/user").command == (
        "ls results/u/crooked results/u/upward results/u/y > results/u/user/x"
    )
    assert capfd.readouterr() == ("", "")


def test_a_chain_of_thousands(project: Project) -> None:
    count = 3000
    lines = [
        f"- {{id: o{i}, inputs: [{f'o{i + 1}' if i + 1 < count else ''}],"
        " recipe: {command: 'cat {inputs} > {output}'}}"
        for i in range(count)
    ]
    project.spec("outputs:\n" + "\n".join(lines))
    assert [each.id for each in project.outputs()] == [f"o{i}" for i in reversed(range(count))]


def test_find_root(project: Project, tmp_path: Path) -> None:
    project.spec(PLAIN)
    below = project.root / "src/deep"
    below.mkdir(parents=True)
    assert find_root(below) == project.root
    link = tmp_path / "link"
    os.symlink(project.root, link)
    assert find_root(link / "src") == project.root
    with pytest.raises(SpecError, match=r"no astra\.yaml in .* or above"):
        find_root(tmp_path)


def test_it_is_light() -> None:
    heavy = ("distributed", "dask", "libtmux", "pydantic", "linkml_runtime", "astra.datamodel")
    light = ("astra", "yaml")
    code = f"""
import sys
import lightcone.spec.output, lightcone.state.manifest
assert not any(name.split(".")[0] in {light} for name in sys.modules)
import lightcone.state.plan, lightcone.spec.outputs
assert not any(name.split(".")[0] in {light} for name in sys.modules)
from lightcone.project.settings import Settings
from pathlib import Path
lightcone.state.plan.plan(lightcone.spec.outputs.load_outputs(Path(sys.argv[1]), Settings()))
assert not [name for name in sys.modules if name.startswith({heavy})]
"""
    example = Path(__file__).parents[2] / "examples/hubble"
    subprocess.run([sys.executable, "-c", code, str(example)], check=True, timeout=60)
