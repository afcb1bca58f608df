"""Why an output is not ok, in words that a person understands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.state.manifest import read_manifest
from lightcone.state.verify import verify
from tests.helpers import clean_environment
from tests.needs import do_without
from tests.projects import Project

SPEC = """
inputs:
  - {id: raw, source: data/raw.csv}
  - {id: sky, source: "https://example.org/sky"}
decisions: {cut: {options: {strict: {}, loose: {}}}}
outputs:
  - id: clean
    format: csv
    inputs: [raw]
    recipe: {command: "sh src/clean.sh {inputs.raw} > {output}"}
  - id: fit
    format: csv
    inputs: [clean, sky]
    decisions: [cut]
    recipe:
      command: "cat {inputs.clean} src/fit.py > {output}; echo {decisions.cut} >> {output}"
  - id: plot
    format: csv
    inputs: [fit]
    recipe: {command: "wc -l < {inputs.fit} > {output}", container: null}
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.spec(SPEC, {"u": "decisions: {cut: strict}"})
    project.write("data/raw.csv", "1\n2\n")
    project.write("src/clean.sh", "cat $1\n")
    project.write("src/fit.py", "pass\n")
    assert project.make() == ["u/clean", "u/fit", "u/plot"]
    assert set(project.states().values()) == {"ok"}
    return project


def replaced(project: Project, old: str, new: str) -> Path:
    text = (project.root / "astra.yaml").read_text()
    assert old in text
    return project.write("astra.yaml", text.replace(old, new))


def commit(project: Project) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=project.root, check=True)


OK = {"u/clean": "ok", "u/fit": "ok", "u/plot": "ok"}
CASCADE = {
    "u/fit": "stale (input clean is to be remade)",
    "u/plot": "stale (input fit is to be remade)",
}

CHANGES: dict[str, tuple[Callable[[Project], object], dict[str, str]]] = {
    "nothing": (lambda p: None, {}),
    "a commit": (lambda p: commit(p), {}),
    "a readme": (lambda p: p.write("README.md", "x"), {}),
    "a touched script": (lambda p: p.age(p.root / "src/fit.py"), {}),
    "a touched input": (lambda p: p.age(p.root / "data/raw.csv"), {}),
    "a touched output": (lambda p: p.age(p.root / "results/u/fit.csv"), {}),
    "a copied script": (lambda p: p.write("src/fit.py", "pass\n"), {}),
    "resources": (
        lambda p: replaced(p, "container: null", "container: null, resources: {cpus: 4}"),
        {},
    ),
    "a description": (lambda p: replaced(p, "id: fit\n", "id: fit\n    description: new\n"), {}),
    "another option that nobody chooses": (
        lambda p: replaced(p, "loose: {}", "loose: {}, wild: {}"),
        {},
    ),
    "a script": (
        lambda p: p.write("src/fit.py", "other\n"),
        {"u/fit": "stale (src/fit.py changed)", "u/plot": "stale (input fit is to be remade)"},
    ),
    "a script that is gone": (
        lambda p: (p.root / "src/fit.py").unlink(),
        {"u/fit": "stale (src/fit.py is gone)", "u/plot": "stale (input fit is to be remade)"},
    ),
    "a decision": (
        lambda p: p.write("universes/u.yaml", "decisions: {cut: loose}"),
        {
            "u/fit": "stale (decision cut: strict → loose)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
    "a decision no longer listed": (
        lambda p: (
            replaced(p, "    decisions: [cut]\n", ""),
            replaced(p, "echo {decisions.cut} >>", "echo strict >>"),
        ),
        {
            "u/fit": "stale (decision cut: strict → none)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
    "a recipe": (
        lambda p: replaced(p, "wc -l", "wc -c"),
        {"u/plot": "stale (recipe changed)"},
    ),
    "another file in a recipe": (
        lambda p: (p.write("src/new.py", ""), replaced(p, "src/fit.py >", "src/new.py >")),
        {
            "u/fit": "stale (recipe changed; src/fit.py is no longer used; src/new.py is new)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
    "a container": (
        lambda p: replaced(p, "container: null", "container: python:3.12"),
        {"u/plot": "stale (container: none → python:3.12)"},
    ),
    "an external input": (
        lambda p: p.write("data/raw.csv", "3\n"),
        {"u/clean": "stale (input raw changed (data/raw.csv))"} | CASCADE,
    ),
    "another external input": (
        lambda p: (
            p.write("data/new.csv", "3\n"),
            replaced(p, "data/raw.csv", "data/new.csv"),
        ),
        {"u/clean": "stale (input raw: data/raw.csv → data/new.csv)"} | CASCADE,
    ),
    "the same bytes elsewhere": (
        lambda p: (
            p.write("data/new.csv", "1\n2\n"),
            replaced(p, "data/raw.csv", "data/new.csv"),
        ),
        {"u/clean": "stale (input raw: data/raw.csv → data/new.csv)"} | CASCADE,
    ),
    "an address": (
        lambda p: replaced(p, "example.org/sky", "example.org/sea"),
        {
            "u/fit": "stale (input sky: https://example.org/sky → https://example.org/sea)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
    "an input more": (
        lambda p: replaced(p, "inputs: [fit]", "inputs: [fit, clean]"),
        {"u/plot": "stale (input clean was added)"},
    ),
    "an input less": (
        lambda p: replaced(p, "inputs: [clean, sky]", "inputs: [clean]"),
        {
            "u/fit": "stale (input sky was removed)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
    "an output that is gone": (
        lambda p: (p.root / "results/u/clean.csv").unlink(),
        {"u/clean": "missing (results/u/clean.csv is missing)"} | CASCADE,
    ),
    "an output that was edited": (
        lambda p: p.write("results/u/clean.csv", "forged\n"),
        {"u/clean": "stale (results/u/clean.csv was changed)"} | CASCADE,
    ),
    "a manifest that is gone": (
        lambda p: shutil.rmtree(p.root / "results/u/.lightcone/clean"),
        {"u/clean": "missing (results/u/clean.csv is there, but not known to be finished)"}
        | CASCADE,
    ),
    "a manifest that is damaged": (
        lambda p: p.write("results/u/.lightcone/clean/manifest.json", "{"),
        {"u/clean": "stale (its manifest is damaged)"} | CASCADE,
    ),
    "a manifest of tomorrow": (
        lambda p: p.write("results/u/.lightcone/clean/manifest.json", '{"version": 9}'),
        {
            "u/clean": "newer (results/u/.lightcone/clean/manifest.json was written by a newer lc: "
            "upgrade lc)"
        }
        | CASCADE,
    ),
    "results that were never made": (
        lambda p: shutil.rmtree(p.root / "results"),
        dict.fromkeys(OK, "missing (never made)"),
    ),
    "many at once": (
        lambda p: (
            p.write("universes/u.yaml", "decisions: {cut: loose}"),
            p.write("src/fit.py", "other\n"),
            p.write("results/u/fit.csv", "forged\n"),
            p.write("data/raw.csv", "4\n"),
        ),
        {
            "u/clean": "stale (input raw changed (data/raw.csv))",
            "u/fit": "stale (results/u/fit.csv was changed; decision cut: strict → loose; "
            "src/fit.py changed; and 1 more)",
            "u/plot": "stale (input fit is to be remade)",
        },
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_why(name: str, project: Project) -> None:
    change, expected = CHANGES[name]
    change(project)
    assert project.states() == OK | expected


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"a manifest of tomorrow"}))
def test_making_puts_it_right(name: str, project: Project) -> None:
    change, _ = CHANGES[name]
    change(project)
    project.write("src/fit.py", "pass and some more\n")
    assert set(project.make()) <= OK.keys()
    assert project.states() == OK


def test_what_comes_out_the_same_stops_the_cascade(project: Project) -> None:
    project.write("src/clean.sh", "cat $1 # as before\n")
    assert project.why("u/clean") == "src/clean.sh changed"
    assert project.make() == ["u/clean"]
    assert project.states() == OK


def test_what_comes_out_different_does_not(project: Project) -> None:
    project.write("src/clean.sh", "tac $1\n")
    clean = project.output("u/clean")
    provenance = project.plan()["u/clean"].provenance
    assert provenance is not None
    project.execute(clean)
    project.record(clean, provenance)
    assert project.states() == OK | {
        "u/fit": "stale (input clean was remade)",
        "u/plot": "stale (input fit is to be remade)",
    }


def test_several_inputs_to_be_remade(project: Project) -> None:
    names = [f"o{i}" for i in range(5)]
    lines = ["outputs:"]
    for name in names:
        lines.append(f"- {{id: {name}, format: t, recipe: {{command: 'echo > {{output}}'}}}}")
    lines.append(f"- {{id: all, format: t, inputs: [{', '.join(names)}], recipe: *r}}")
    lines.insert(0, "x: &r {command: 'cat {inputs} > {output}'}")
    shutil.rmtree(project.root / "universes")
    project.write("astra.yaml", "\n".join(lines))
    project.make()
    for i in range(5):
        project.write(f"results/baseline/o{i}.t", "forged")
    assert project.why("baseline/all") == "inputs o0, o1, o2 and 2 more are to be remade"
    for i in range(2, 5):
        shutil.rmtree(project.root / f"results/baseline/.lightcone/o{i}")
        project.write(f"results/baseline/o{i}.t", "\n")
    assert len(project.make()) == 5


def test_results_moved_to_another_universe(project: Project) -> None:
    project.write("universes/v.yaml", "decisions: {cut: strict}")
    shutil.copytree(project.root / "results/u", project.root / "results/v")
    assert project.why("v/clean") == "its manifest is that of u/clean"


def test_a_sub_analysis_that_is_used_alone_as_well(tmp_path: Path) -> None:
    """Its commands run in another directory there, so they are others."""
    outer, inner = Project(tmp_path), Project(tmp_path / "sub")
    outer.spec("analyses: {sub: {path: sub}}")
    inner.spec("outputs: [{id: x, format: txt, recipe: {command: 'echo 1 > {output}'}}]")
    assert outer.make() == ["baseline/sub.x"]
    advice = "use lc in one of the two places only"
    assert inner.why("baseline/x") == (
        f"its manifest is that of baseline/sub.x, made by the project around this one: {advice}"
    )
    assert inner.make() == ["baseline/x"]
    assert outer.why("baseline/sub.x") == (
        "its manifest is that of baseline/x, made by a run in the directory of that sub-analysis: "
        + advice
    )


def test_a_failure_of_the_same_identity(project: Project) -> None:
    project.write("src/clean.sh", "exit 3\n")
    clean = project.output("u/clean")
    project.fail(clean, exit_code=3)
    assert project.states()["u/clean"] == "failed (recipe failed with exit code 3)"
    assert project.states()["u/fit"] == "stale (input clean is to be remade)"
    project.fail(clean, exit_code=-9)
    assert project.why("u/clean") == "recipe was ended by SIGKILL"
    project.fail(clean, exit_code=-200)
    assert project.why("u/clean") == "recipe was ended by signal 200"
    project.fail(clean, exit_code=0, reason="it exited with 0 and wrote nothing")
    assert project.why("u/clean") == "recipe failed: it exited with 0 and wrote nothing"
    project.fail(clean, reason="ended by Ctrl-C", interrupted=True)
    assert project.states()["u/clean"] == "interrupted (ended by Ctrl-C)"
    project.fail(clean)
    assert project.states()["u/clean"] == "failed (recipe failed)"
    project.write("src/clean.sh", "exit 0\n")
    assert project.states()["u/clean"] == "stale (src/clean.sh changed)"


def test_a_failure_that_is_no_more(project: Project) -> None:
    clean = project.output("u/clean")
    project.fail(clean, exit_code=3)
    assert project.states() == OK
    (clean.state_dir / "failure.json").write_text("[1")
    (project.root / "results/u/clean.csv").unlink()
    assert project.states()["u/clean"] == "missing (results/u/clean.csv is missing)"
    (clean.state_dir / "failure.json").write_text("[1]")
    assert project.states()["u/clean"] == "missing (results/u/clean.csv is missing)"


def test_force(project: Project) -> None:
    plan = project.plan(force=[("u", "fit")])
    assert {name: (each.state.value, each.why) for name, each in plan.items()} == {
        "u/clean": ("ok", ""),
        "u/fit": ("stale", "to be made again"),
        "u/plot": ("stale", "input fit is to be remade"),
    }
    assert plan["u/fit"].provenance is not None
    project.write("src/fit.py", "other\n")
    assert project.plan(force=[("u", "fit")])["u/fit"].why == "src/fit.py changed"


def test_what_cannot_be_read(project: Project, tmp_path: Path) -> None:
    (project.root / "src/fit.py").chmod(0)
    project.age(project.root / "src/fit.py")
    status = [sys.executable, "-P", "-m", "lightcone", "status"]
    if os.geteuid() == 0:  # who reads everything, but for these
        if shutil.which("setpriv") is None:
            do_without("root reads everything, and there is no setpriv")
        status = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *status]
    own = {name: str(tmp_path) for name in ("LIGHTCONE_RUNTIME_DIR", "LIGHTCONE_SCRATCH")}
    result = subprocess.run(
        status,
        cwd=project.root,
        env=clean_environment() | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "src/fit.py, which u/fit depends on, cannot be read" in result.stderr


def test_nothing_is_written(project: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.root.rglob("*")}
    project.write("results/u/clean.csv", "forged\n")
    before[project.root / "results/u/clean.csv"] = 0
    project.plan()
    after = {path: path.stat().st_mtime_ns for path in project.root.rglob("*")}
    assert before.keys() == after.keys()
    changed = {path for path in after if before[path] != after[path]}
    assert changed == {project.root / "results/u/clean.csv"}


def test_a_manifest_knows_what_it_was_made_from(project: Project) -> None:
    found = read_manifest(project.output("u/fit").state_dir)
    assert found is not None
    assert found.provenance.command == project.output("u/fit").command
    assert set(found.provenance.files) == {"src/fit.py"}
    assert found.provenance.decisions == {"cut": "strict"}
    clean = read_manifest(project.output("u/clean").state_dir)
    assert clean is not None
    assert found.provenance.inputs["clean"].version == clean.data.version
    assert found.provenance.inputs["sky"].version == "text:https://example.org/sky"


LEFT_BEHIND = ("__pycache__/lib.cpython-311.pyc", ".fit.py.swp", "fit.py~", ".#fit.py", "._fit.py")


def importing(project: Project) -> Project:
    shutil.rmtree(project.root / "universes")
    project.write("src/fit.py", "")
    return project.spec(
        "inputs: [{id: src, source: src}]\n"
        "outputs: [{id: x, inputs: [src], recipe: {command: 'ls {inputs.src} > {output}/x'}}]"
    )


def test_what_editors_and_interpreters_leave_in_an_input(project: Project) -> None:
    importing(project).make()
    for name in LEFT_BEHIND:
        project.write(f"src/deep/{name}", name)
        project.write(f"src/{name}", name)
    assert project.states() == {"baseline/x": "ok"}
    project.write("src/new.py", "")
    project.write("src/fit.py", "changed")
    why = "input src changed (src: fit.py changed, and 1 more)"
    assert project.states() == {"baseline/x": f"stale ({why})"}
    (project.root / "src/new.py").unlink()
    project.write("src/fit.py", "")
    assert project.states() == {"baseline/x": "ok"}
    (project.root / "src/fit.py").unlink()
    assert project.states() == {"baseline/x": "stale (input src changed (src: fit.py is gone))"}


def test_what_is_left_behind_in_a_result(project: Project) -> None:
    importing(project).make()
    for name in LEFT_BEHIND:
        project.write(f"results/baseline/x/{name}", name)
    assert project.states() == {"baseline/x": "ok"}
    checked = verify(project.outputs())
    assert (checked.verified, checked.findings) == (1, [])
    project.write("results/baseline/x/more", "")
    assert project.why("baseline/x") == "results/baseline/x has a new file more"
    assert len(verify(project.outputs()).findings) == 1


def test_patterns_of_files_that_do_not_count(project: Project) -> None:
    project.write("src/a.tmp", "1")
    project.write("src/notes/deep/b", "1")
    importing(project).make()
    project.write("lightcone.toml", '[results]\nignore = ["*.tmp", "notes/*"]\n')
    # What was made of more is still good.
    assert project.states() == {"baseline/x": "ok"}
    project.write("src/a.tmp", "2")
    project.write("src/deep/c.tmp", "2")
    project.write("src/notes/deep/b", "2")
    assert project.states() == {"baseline/x": "ok"}
    project.write("lightcone.toml", "")
    why = "input src changed (src: a.tmp changed, and 2 more)"
    assert project.states() == {"baseline/x": f"stale ({why})"}


def test_a_pattern_has_the_files_that_its_shell_sees(project: Project) -> None:
    project.write("src/fit.py~", "")
    importing(project)
    project.spec((project.root / "astra.yaml").read_text().replace("source: src", "source: src/*"))
    project.make()
    (project.root / "src/fit.py~").unlink()
    why = "input src changed (src/*: src/fit.py~ is gone)"
    assert project.states() == {"baseline/x": f"stale ({why})"}
