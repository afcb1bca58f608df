"""What comes from outside has to be there where its source is a path, and only there."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from lightcone.errors import SpecError
from lightcone.state.plan import assess, plan, unmakeable
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
        "data/[ab].none",
        "$THERE/[!a]",
        "raw[0-9].csv",
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
        "about $NOT_SET_BY_ANYBODY, a sentence",
        "What is this?",
        "[see] the [notes]",
        "$(rm -r x)",
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
    why = project.spec(CHAIN).why("baseline/clean")
    target = f"a link to {project.root}/data/gone.csv, which does not exist"
    assert why == f"input raw: data/raw.csv is {target}: put it there, or correct astra.yaml"
    (project.root / "data/raw.csv").unlink()
    (project.root / "data").rmdir()
    os.symlink("/no/such/disk", project.root / "data")
    assert project.why("baseline/clean") == (
        "input raw: data/raw.csv does not exist, as data is a link to /no/such/disk, which does "
        "not exist: put it there, or correct astra.yaml"
    )


def handed_over(project: Project, source: str, *files: str) -> str:
    """What a recipe reads from a source, after a check that an edit of each file counts."""
    project.spec(CHAIN.replace("data/raw.csv", json.dumps(source)))
    project.make()
    text = (project.root / "results/baseline/clean.txt").read_text()
    for name in files:
        before = (project.root / name).read_text()
        project.write(name, "edited")
        assert project.plan()["baseline/clean"].state == "stale", name
        project.write(name, before)
        assert project.plan()["baseline/clean"].state == "ok", name
    return text


def test_one_rule_for_planning_hashing_and_the_command(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data/a*.csv", "data/ab.csv", "data/dol$x.txt", "data/dol.txt", "b/c [d]/e f.csv"):
        project.write(name, f"<{name}>")
    project.write("~/x", "<~/x>")
    monkeypatch.setenv("HERE", str(project.root / "b/c [d]"))
    monkeypatch.setenv("HOME", str(project.root / "b"))
    spaced = "b/c [d]/e f.csv"
    for source, files in {
        # A name of something that exists is that, whatever else it looks like.
        "data/a*.csv": ["data/a*.csv"],
        "data/dol$x.txt": ["data/dol$x.txt"],
        spaced: [spaced],
        "~/x": ["~/x"],
        # What is filled in is hashed and handed over, with its spaces and brackets.
        "~/c [d]/e f.csv": [spaced],
        "$HERE/e f.csv": [spaced],
        "${HERE}/*.csv": [spaced],
        # A pattern is all that it matches.
        "data/a[*].csv": ["data/a*.csv"],
        "data/[ab]?.csv": ["data/a*.csv", "data/ab.csv"],
        "data/a?.csv": ["data/a*.csv", "data/ab.csv"],
        "b/c */*.csv": [spaced],
    }.items():
        shutil.rmtree(project.root / "results", ignore_errors=True)
        assert handed_over(project, source, *files) == "".join(f"<{name}>" for name in files)


def test_the_identity_has_the_source_as_it_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So results with patterns and variables of earlier versions stay good, on any host."""
    project.write("data/a.csv", "a")
    for source in ("data/*.csv", "$HERE/*.csv", "$HERE/a.csv", "~/a.csv"):
        identities = set()
        for home in ("data", "elsewhere"):
            project.write(f"{home}/a.csv", "a")
            monkeypatch.setenv("HERE", str(project.root / home))
            monkeypatch.setenv("HOME", str(project.root / home))
            output = project.spec(CHAIN.replace("data/raw.csv", source)).output("clean")
            assert output.command == f"cat {source} > results/baseline/clean.txt"
            assert source in ("data/*.csv",) or output.shell_command.startswith(
                f"cat {project.root}/{home}/a.csv >"
            )
            provenance = project.plan()["baseline/clean"].provenance
            assert provenance is not None
            identities.add(provenance.identity)
        assert len(identities) == (2 if source == "$HERE/*.csv" else 1)


def test_a_text_is_handed_over_as_it_is_hashed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET", "one")
    text = CHAIN.replace("Gaia DR3 (TAP service)", "s3://$BUCKET/x?y=*")
    project.write("data/raw.csv", "1")
    project.spec(text).make()
    assert (project.root / "results/baseline/other.txt").read_text() == "s3://one/x?y=*\n"
    monkeypatch.setenv("BUCKET", "two")
    assert project.states()["baseline/other"].startswith("stale (input survey changed")
    monkeypatch.delenv("BUCKET")
    assert "survey: s3://$BUCKET/x?y=* needs BUCKET, which is not set" in project.why(
        "baseline/other"
    )


def test_an_unset_variable_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA", raising=False)
    for source, names in {"$DATA/x.csv": "DATA", "$DATA/${N_O}/two words": "DATA and N_O"}.items():
        found = project.spec(CHAIN.replace("data/raw.csv", f"'{source}'")).plan()["baseline/clean"]
        assert found.lacks_input and found.provenance is None
        are, it = ("are", "them") if " and " in names else ("is", "it")
        assert found.why == (
            f"input raw: {source} needs {names}, which {are} not set: set {it}, or correct "
            "astra.yaml"
        )


def test_the_files_of_a_pattern(project: Project) -> None:
    for name in ("a", "b c"):
        project.write(f"data/{name}.csv", f"<{name}>")
    project.spec(CHAIN.replace("data/raw.csv", "data/*.csv")).make()
    project.write("data/c.csv", "<c>")
    project.write("data/d.csv", "<d>")
    assert project.why("baseline/clean") == (
        "input raw changed (data/*.csv: data/c.csv is new, and 1 more)"
    )
    outputs = project.outputs()
    project.write("data/late.csv", "<late>")
    assessment = plan(outputs)["baseline", "clean"]
    # What appears after a plan is neither hashed nor handed over by it, but by the next one.
    assert assessment.provenance is not None
    assert "data/late.csv" not in assessment.provenance.inputs["raw"].files
    assert "late" not in assessment.output.shell_command
    later = assess(assessment.output, {})
    assert later.provenance is not None
    assert "data/late.csv" in later.provenance.inputs["raw"].files
    assert "data/late.csv" in later.output.shell_command
    project.make()
    text = (project.root / "results/baseline/clean.txt").read_text()
    assert text == "<a><b c><c><d><late>"
    (project.root / "data/c.csv").unlink()
    why = "input raw changed (data/*.csv: data/c.csv is gone)"
    assert project.why("baseline/clean") == why
    project.write("data/c.csv", "other")
    why = "input raw changed (data/*.csv: data/c.csv changed)"
    assert project.why("baseline/clean") == why


def test_several_matches_in_a_place_for_one(project: Project) -> None:
    project.write("data/a.csv", "<a>")
    text = CHAIN.replace("data/raw.csv", "data/*.csv").replace(
        "cat {inputs.raw}", "cat --number=no < {inputs.raw}"
    )
    project.spec(text.replace(" --number=no", ""))
    assert project.make()[0] == "baseline/clean"
    project.write("data/b.csv", "<b>")
    found = project.plan()["baseline/clean"]
    assert found.lacks_input
    assert found.why == (
        "input raw: data/*.csv matches 2 files, and {inputs.raw} is in a place for one: make it a "
        "word of its own in the command, with or without quotes"
    )
    with pytest.raises(SpecError, match=re.escape(found.why)):
        _ = found.output.shell_command


def test_a_pattern_in_a_sub_analysis_of_its_own(project: Project) -> None:
    project.spec("analyses: {sub: {path: parts/sub}}\noutputs: []")
    project.write("parts/sub/data/a.csv", "<a>")
    text = CHAIN.replace("data/raw.csv", "data/*.csv")
    project.write("parts/sub/astra.yaml", text)
    output = project.output("sub.clean")
    assert output.shell_command.startswith("cat parts/sub/data/a.csv >")
    assert project.make()[0] == "baseline/sub.clean"


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
    assert project.states() == {
        "baseline/clean": "unconfirmed (input raw: data/raw.csv does not exist)",
        "baseline/plot": "ok",
        "baseline/other": "ok",
    }
    project.spec(CHAIN.replace("cat {inputs.raw}", "cat -n {inputs.raw}"))
    assert project.states() == {
        "baseline/clean": f"stale ({ABSENT})",
        "baseline/plot": "stale (input clean is to be remade)",
        "baseline/other": "ok",
    }
    project.spec(CHAIN)
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


def test_lc_run_hands_over_what_it_hashes(sandbox: Sandbox) -> None:
    """Also what another recipe of the same run puts there."""
    spec = """\
version: "0.0.14"
name: patterns
inputs:
  - {id: tables, source: "$TABLES/t*.csv"}
outputs:
  - id: fetch
    format: txt
    recipe: {command: "mkdir d; echo 1 > 'd/t 1.csv'; echo 2 > d/t2.csv; echo > {output}"}
  - id: all
    format: txt
    inputs: [fetch, tables]
    recipe: {command: 'cat "{inputs.tables}" > {output}'}
"""
    root = sandbox.new_project("patterns", spec)
    unset = sandbox.lc("run", cwd=root, check=1).stdout
    assert "$TABLES/t*.csv needs TABLES, which is not set: set it" in unset
    sandbox.env["TABLES"] = "d"
    sandbox.lc("run", cwd=root)
    assert (root / "results/baseline/all.txt").read_text() == "1\n2\n"
    assert 'cat "d/t 1.csv" "d/t2.csv" >' in sandbox.lc("log", "all", cwd=root).stdout
    (root / "d/t3.csv").write_text("3\n")
    assert "d/t3.csv is new" in sandbox.lc("run", "-n", cwd=root).stdout
    sandbox.lc("run", cwd=root)
    assert (root / "results/baseline/all.txt").read_text() == "1\n2\n3\n"


def test_lc_run_builds_on_what_is_unconfirmed(sandbox: Sandbox) -> None:
    root = sandbox.new_project("clone", CHAIN)
    (root / "data").mkdir()
    (root / "data/raw.csv").write_text("1\n")
    sandbox.lc("run", cwd=root)
    (root / "data/raw.csv").unlink()
    (root / "results/baseline/plot.txt").unlink()
    before = sandbox.lc("run", "-n", "--json", cwd=root).stdout.splitlines()
    events = [json.loads(line) for line in before]
    why = "input raw: data/raw.csv does not exist"
    assert {"event": "unconfirmed", "id": "clean", "universe": "baseline", "why": why} in events
    assert (events[-1]["unconfirmed"], events[-1]["would_make"]) == (1, 1)
    told = sandbox.lc("run", "-v", cwd=root).stdout
    assert f"baseline/clean: unconfirmed: {why}\n" in told
    assert "lc: 1 made, 1 up to date, 1 unconfirmed in " in told
    assert "lc: 2 up to date, 1 unconfirmed in " in sandbox.lc("run", cwd=root).stdout
    lines = sandbox.lc("status", "--check", cwd=root, check=1).stdout.splitlines()
    assert lines[0] == f"unconfirmed baseline/clean  {why}"
    assert lines[-1] == "2 of 3 ok, 1 unconfirmed"
    sandbox.lc("status", "--check", "--allow-unconfirmed", cwd=root)
    told = sandbox.lc("status", "--allow-unconfirmed", cwd=root, check=2).stderr
    assert told == "lc: --allow-unconfirmed is for --check: add that, or leave it out.\n"
    forced = sandbox.lc("run", "-f", "clean", cwd=root, check=1).stdout
    assert f"baseline/clean: FAILED, {why}" in forced
    (root / "results/baseline/other.txt").unlink()
    sandbox.lc("status", "--check", "--allow-unconfirmed", cwd=root, check=1)


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
