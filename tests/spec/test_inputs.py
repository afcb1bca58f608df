"""What comes from outside has to be there where its source is a path, and only there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightcone.state.plan import plan, unmakeable
from lightcone.state.products import Products
from tests.helpers import Sandbox
from tests.projects import Project

CHAIN = """\
inputs:
  - {id: raw, source: data/raw.csv}
  - {id: survey, source: Gaia DR3 (TAP service)}
outputs:
  - {id: clean, format: txt, inputs: [raw], recipe: {command: "cat {inputs.raw} > {output}"}}
  - {id: plot, format: txt, inputs: [clean], recipe: {command: "cat {inputs.clean} > {output}"}}
  - {id: other, format: txt, inputs: [survey], recipe: {command: "echo {inputs.survey} > {output}"}}
"""
ABSENT = "input raw: data/raw.csv does not exist: put it there, or correct astra.yaml"


@pytest.mark.parametrize(
    "source",
    [
        "data/raw.csv",
        "absent/raw.csv",
        "raw.csv",
        "raw.FITS.gz",
        "./x",
        "../x",
        "/no/such file",
        "~/no-such-file-of-lightcone",
        "$THERE/x",
        "data/x",
        "data/*.csv",
        ".cache/x.csv",
        "  data/raw.csv  ",
    ],
)
def test_a_source_that_is_a_path_has_to_be_there(
    source: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERE", "/no/such/directory")
    (project.root / "data").mkdir()
    project.spec(CHAIN.replace("data/raw.csv", f"'{source}'"))
    found = project.plan()["baseline/clean"]
    assert found.lacks_input and found.provenance is None
    shown = source.strip()
    assert found.why == f"input raw: {shown} does not exist: put it there, or correct astra.yaml"


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/raw.csv",
        "s3://bucket/raw.csv",
        "example.org/raw.csv",
        "host:/data/raw.csv",
        "doi:10.5281/zenodo.1234",
        "10.5281/zenodo.1234",
        "10.1234/x.csv",
        "SDSS",
        "DR16",
        "Gaia DR3 (TAP service)",
        "see data/raw.csv in the archive",
        "org/dataset",
        "astropy.cosmology",
        "astro-ph/0302209",
        "$NOT_SET_BY_ANYBODY/x",
    ],
)
def test_a_source_that_is_none_is_the_recipes_affair(source: str, project: Project) -> None:
    (project.root / "data").mkdir()
    project.spec(CHAIN.replace("data/raw.csv", f"'{source}'"))
    found = project.plan()["baseline/clean"]
    assert (found.lacks_input, found.why) == (False, "never made")
    assert found.provenance is not None


def test_what_is_there_is_enough(project: Project) -> None:
    for name in ("data/raw.csv", "results.d/x", "elsewhere"):
        project.write(name, "1")
    for source in ("data/raw.csv", "./data/../data/raw.csv", "results.d", "elsewhere", "*/raw.csv"):
        project.spec(CHAIN.replace("data/raw.csv", f"'{source}'"))
        assert project.why("baseline/clean") == "never made"


def test_a_link_to_nothing_is_not_enough(project: Project) -> None:
    (project.root / "data").mkdir()
    os.symlink("gone.csv", project.root / "data/raw.csv")
    assert project.spec(CHAIN).why("baseline/clean") == ABSENT


def test_several_are_told_of_together(project: Project) -> None:
    inputs = ", ".join(f"{{id: i{n}, source: ./{n}}}" for n in range(5))
    command = "cat {inputs} > {output}"
    project.spec(
        f"inputs: [{inputs}]\n"
        "outputs: [{id: x, format: csv, inputs: [i0, i1, i2, i3, i4], "
        f"recipe: {{command: '{command}'}}}}]"
    )
    assert project.why("baseline/x") == (
        "input i0: ./0 does not exist; input i1: ./1 does not exist; input i2: ./2 does not exist; "
        "and 2 more: put them there, or correct astra.yaml"
    )


def test_in_a_sub_analysis_of_its_own(project: Project) -> None:
    project.spec("analyses: {sub: {path: parts/sub}}\noutputs: []")
    project.write("parts/sub/astra.yaml", CHAIN)
    assert project.plan()["baseline/sub.clean"].lacks_input
    project.write("parts/sub/data/raw.csv", "1")
    assert project.why("baseline/sub.clean") == "never made"


def test_what_another_recipe_may_put_there_is_waited_for(project: Project) -> None:
    project.spec(
        """
inputs: [{id: table, source: data/table.csv}]
outputs:
  - {id: by_hand, format: txt}
  - {id: fetch, format: txt, recipe: {command: "mkdir -p data; touch data/table.csv {output}"}}
  - id: fit
    format: txt
    inputs: [fetch, table, by_hand]
    recipe: {command: "cat {inputs} > {output}"}
"""
    )
    assert not project.plan()["baseline/fit"].lacks_input
    (fetch,) = [each for each in project.outputs() if each.id == "fetch"]
    provenance = project.plan()["baseline/fetch"].provenance
    assert provenance is not None
    products = Products(fetch, provenance)
    project.execute(fetch)
    project.record(fetch, provenance, products)
    why = "input by_hand: results/baseline/by_hand.txt does not exist"
    assert project.why("baseline/fit") == f"{why}: put it there, or correct astra.yaml"
    project.write("results/baseline/by_hand.txt", "1")
    assert project.make() == ["baseline/fit"]


def test_a_result_whose_input_is_gone_is_kept_and_known(project: Project) -> None:
    raw = project.write("data/raw.csv", "1")
    project.spec(CHAIN).make()
    raw.unlink()
    remade = "input clean is to be remade"
    assert project.states() == {
        "baseline/clean": f"stale ({ABSENT})",
        "baseline/plot": f"stale ({remade})",
        "baseline/other": "ok",
    }
    project.write("data/raw.csv", "1")
    assert set(project.states().values()) == {"ok"}


def test_results_made_without_it_stay_good(project: Project) -> None:
    """As they were by versions that did not ask, and by recipes that can do without."""
    project.spec(CHAIN.replace("cat {inputs.raw}", "echo {inputs.raw}"))
    (clean,) = [each for each in project.outputs() if each.id == "clean"]
    project.write("data/raw.csv", "1")
    provenance = project.plan()["baseline/clean"].provenance
    assert provenance is not None
    (project.root / "data/raw.csv").unlink()
    source = type(provenance.inputs["raw"])("data/raw.csv", "text:data/raw.csv")
    project.execute(clean)
    project.record(
        clean, type(provenance)(provenance.command, provenance.template, None, {}, {"raw": source})
    )
    assert project.states()["baseline/clean"] == "ok"


def test_what_is_out_of_reach(project: Project) -> None:
    outputs = project.spec(CHAIN).outputs()
    found = unmakeable(plan(outputs))
    assert {key[1]: by.id for key, by in found.items()} == {"clean": "clean", "plot": "clean"}


def test_lc_run_makes_the_rest(sandbox: Sandbox) -> None:
    root: Path = sandbox.new_project("lacking", CHAIN)
    for options in (("-n",), ()):
        told = sandbox.lc("run", *options, cwd=root, check=1).stdout.splitlines()
        assert f"baseline/clean: FAILED, {ABSENT}" in told
        assert "baseline/plot: blocked by baseline/clean" in told
        assert (root / "results/baseline/other.txt").exists() == (not options)
    assert "1 failed, 1 blocked" in sandbox.lc("run", cwd=root, check=1).stdout
    rows = json.loads(sandbox.lc("status", "--json", cwd=root).stdout)["outputs"]
    assert {row["id"]: (row["state"], row["why"]) for row in rows} == {
        "clean": ("missing", ABSENT),
        "plot": ("missing", "never made"),
        "other": ("ok", ""),
    }
    (root / "data").mkdir()
    (root / "data/raw.csv").write_text("1")
    assert "2 made" in sandbox.lc("run", cwd=root).stdout


def test_no_session_is_started_where_nothing_can_be_made(sandbox: Sandbox) -> None:
    root = sandbox.new_project("lacking", CHAIN)
    result = sandbox.lc("run", "plot", "--json", cwd=root, check=1)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0] == {
        "event": "failed",
        "id": "clean",
        "universe": "baseline",
        "reason": ABSENT,
    }
    assert events[1] == {"event": "blocked", "id": "plot", "universe": "baseline", "by": "clean"}
    assert (events[2]["failed"], events[2]["session"]) == (1, "none")
    assert sandbox.processes() == []
