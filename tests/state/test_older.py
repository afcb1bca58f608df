"""Results of the older tool: taken as good where what it recorded holds, and taken over by a run.

The fixtures are what version 0.4.2 wrote for the project below.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightcone.state import manifest, older
from lightcone.state.adopt import adopt, adopt_all
from lightcone.state.claims import Claim
from lightcone.state.fingerprint import fingerprint
from lightcone.state.manifest import read_manifest
from lightcone.state.plan import plan
from lightcone.state.verify import Trouble, Verification, verify
from tests.projects import Project

FIXTURES = Path(__file__).parent / "fixtures/older-0.4"
RECORD = ".lightcone-manifest.json"
RAW_TIME = 1_600_000_000_123_456_789
SPEC = """
inputs:
  - {id: raw, source: data/raw.csv}
  - {id: sky, source: data}
decisions:
  cut: {options: {strict: {}, loose: {}}}
  width: {options: {200: {}, 300: {}}}
  deep: {options: {on: {}, off: {}}}
outputs:
  - id: clean
    inputs: [raw]
    recipe: {command: "sh src/clean.sh {inputs.raw} {output}"}
  - id: fit
    inputs: [clean, sky]
    decisions: [cut, width, deep]
    recipe:
      command: python src/fit.py {inputs} --cut {decisions.cut} -o {output}
      container: python:3.12
"""
UNIVERSE = "decisions: {cut: strict, width: 200, deep: on}"
OK = {"u/clean": "ok", "u/fit": "ok"}


@pytest.fixture
def project(project: Project) -> Project:
    project.spec(SPEC, {"u": UNIVERSE})
    project.write("src/clean.sh", "cp $1 $2/table.csv\n")
    project.write("src/fit.py", "pass\n")
    os.utime(project.write("data/raw.csv", "1\n2\n"), ns=(RAW_TIME, RAW_TIME))
    project.write("results/u/clean/table.csv", "1\n2\n")
    project.write("results/u/clean/deep/a b.txt", "x\n")
    project.write("results/u/fit/fit.csv", "fit\n")
    project.write("results/u/fit/größe.txt", "g\n")
    (project.root / "results/u/fit/latest").symlink_to("fit.csv")
    for name in ("clean", "fit"):
        directory = project.root / "results/u" / name
        shutil.copyfile(FIXTURES / f"{name}.json", directory / RECORD)
        (directory / ".snakemake_timestamp").touch()
    return project


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes are hashed as the older tool did."""
    names: list[str] = []
    original = older._add

    def count(digest: Any, path: str) -> None:
        names.append(os.path.basename(path))
        original(digest, path)

    monkeypatch.setattr(older, "_add", count)
    return names


def everything(project: Project) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in project.root.rglob("*")}


def run(project: Project, claims: Path) -> bool:
    return adopt_all(plan(project.outputs()), claims)


def edit(project: Project, name: str, **changes: object) -> None:
    """Change what was recorded of an output."""
    path = project.root / "results/u" / name / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_holds_is_good_and_nothing_is_written(project: Project, reads: list[str]) -> None:
    before = everything(project)
    assert project.states() == OK
    assert everything(project) == before
    assert reads == []  # nothing is newer than the records


def test_bytes_are_read_where_times_say_nothing(project: Project, reads: list[str]) -> None:
    for path in (project.root / "results").rglob("*.csv"):
        path.touch()
        os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
    assert project.states() == OK
    assert sorted(reads) == ["a b.txt", "fit.csv", "größe.txt", "latest", "table.csv"]


CHANGES: dict[str, tuple[Callable[[Project], object], dict[str, str]]] = {
    "a script, which it did not record": (lambda p: p.write("src/fit.py", "new\n"), {}),
    "a readme": (lambda p: p.write("README.md", "x"), {}),
    "a recipe": (
        lambda p: p.spec(SPEC.replace("fit.py", "fit.py -v")),
        {"u/fit": "stale (recipe changed)"},
    ),
    "a container": (
        lambda p: p.spec(SPEC.replace("3.12", "3.13")),
        {"u/fit": "stale (container: python:3.12 → python:3.13)"},
    ),
    "a decision": (
        lambda p: p.spec(SPEC, {"u": UNIVERSE.replace("strict", "loose")}),
        {"u/fit": "stale (decision cut: strict → loose)"},
    ),
    "decisions that are no text": (
        lambda p: p.spec(SPEC, {"u": UNIVERSE.replace("200", "300").replace("on}", "off}")}),
        {"u/fit": "stale (decision deep: True → off; decision width: 200 → 300)"},
    ),
    "a decision no longer listed": (
        lambda p: p.spec(SPEC.replace("width, deep]", "width]")),
        {"u/fit": "stale (decision deep: True → none)"},
    ),
    "one that the command has in the new words": (
        lambda p: (
            p.spec(SPEC.replace("{decisions.cut}", "{decisions.deep}")),
            recorded_again(p, "fit", "recipe", "{decisions.cut}", "{decisions.deep}"),
        ),
        {"u/fit": "stale (decision deep: True → on)"},
    ),
    "a touched file": (
        lambda p: p.age(p.root / "data/raw.csv"),
        {"u/clean": "stale (input raw changed or was touched (data/raw.csv))"},
    ),
    "a file that is gone": (
        lambda p: (p.root / "data/raw.csv").unlink(),
        {
            "u/clean": "stale (input raw: data/raw.csv does not exist: put it there, or correct "
            "astra.yaml)"
        },
    ),
    "a directory": (
        lambda p: newer(p.write("data/more.csv", "")),
        {"u/fit": "stale (input sky changed or was touched (data))"},
    ),
    "a new input": (
        lambda p: p.spec(SPEC.replace("[clean, sky]", "[clean, sky, raw]")),
        {"u/fit": "stale (input raw was added)"},
    ),
    "an input no longer listed": (
        lambda p: p.spec(SPEC.replace("[clean, sky]", "[clean]")),
        {"u/fit": "stale (input sky was removed)"},
    ),
    "a result": (
        lambda p: newer(p.write("results/u/fit/fit.csv", "forged\n")),
        {"u/fit": "stale (results/u/fit was changed)"},
    ),
    "a result that others need": (
        lambda p: newer(p.write("results/u/clean/new.csv", "")),
        {"u/clean": "stale (results/u/clean was changed)"},
    ),
    "the record": (
        lambda p: edit(p, "clean", decisions={"cut": "loose"}),
        {"u/clean": "stale (its manifest was changed by hand)"},
    ),
    "damage": (
        lambda p: (p.root / "results/u/fit" / RECORD).write_text("{"),
        {"u/fit": "stale (its manifest is damaged)"},
    ),
    "a record of another format": (
        lambda p: edit(p, "fit", schema_version=2),
        {"u/fit": "stale (its manifest is damaged)"},
    ),
    "a record without text": (
        lambda p: edit(p, "fit", input_versions={"clean": 5, "sky": None}),
        {"u/fit": "stale (its manifest is damaged)"},
    ),
    "a container that is no text": (
        lambda p: edit(p, "fit", container_image=[]),
        {"u/fit": "stale (its manifest is damaged)"},
    ),
    "a container that no file can be called": (
        lambda p: edit(p, "fit", container_image="x" * 5000),
        {"u/fit": "stale (its manifest was changed by hand)"},
    ),
    "the record of another output": (
        lambda p: edit(p, "clean", universe_id="v"),
        {"u/clean": "stale (its manifest is that of v/clean)"},
    ),
    "no record": (
        lambda p: (p.root / "results/u/fit" / RECORD).unlink(),
        {"u/fit": "missing (results/u/fit is there, but not known to be finished)"},
    ),
    "no result": (
        lambda p: shutil.rmtree(p.root / "results/u/fit"),
        {"u/fit": "missing (never made)"},
    ),
}


def newer(path: Path) -> None:
    os.utime(path)


def recorded_again(project: Project, name: str, key: str, old: str, new: str) -> int:
    """Change a record as the older tool would have written it."""
    from lightcone.state.older import _code_version, _parse

    path = project.root / "results/u" / name / RECORD
    table = json.loads(path.read_text())
    table[key] = table[key].replace(old, new)
    table["code_version"] = _code_version(_parse(table, 0))
    return path.write_text(json.dumps(table))


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_longer_holds(name: str, project: Project) -> None:
    change, expected = CHANGES[name]
    change(project)
    if expected.get("u/clean", "ok") != "ok":
        reason = expected.get("u/fit", "stale ()")[7:-1]
        both = "; ".join(filter(None, [reason, "input clean is to be remade"]))
        expected = expected | {"u/fit": f"stale ({both})"}
    assert project.states() == OK | expected


def test_a_container_that_is_built(project: Project) -> None:
    project.write("Containerfile", "FROM scratch\n")
    project.spec(SPEC.replace("python:3.12", "Containerfile"))
    edit(project, "fit", container_image="Containerfile", code_version="sha256:of an image's tag")
    assert project.states() == OK
    newer(project.write("Containerfile", "FROM other\n"))
    assert project.states() == OK | {"u/fit": "stale (Containerfile changed)"}


def test_a_run_takes_over_and_then_notices_everything(
    project: Project, claims: Path, reads: list[str]
) -> None:
    assert run(project, claims)
    assert set(reads) == {"a b.txt", "fit.csv", "größe.txt", "latest", "raw.csv", "table.csv"}
    reads.clear()
    assert project.states() == OK
    assert not run(project, claims)
    assert reads == []
    found = read_manifest(project.output("u/fit").state_dir)
    clean = read_manifest(project.output("u/clean").state_dir)
    assert found is not None
    assert clean is not None
    assert found.identity == found.provenance.identity
    assert set(found.provenance.files) == {"src/fit.py"}
    assert found.provenance.inputs["clean"].version == clean.data.version
    assert found.data == fingerprint(project.root / "results/u/fit")
    assert found.made == {
        "by": "lightcone-cli 0.4.2",
        "finished": "2026-01-01T00:00:00+00:00",
        "host": "login1",
    }
    project.write("src/fit.py", "new\n")
    assert project.states() == OK | {"u/fit": "stale (src/fit.py changed)"}
    project.write("src/fit.py", "pass\n")
    project.age(project.root / "data/raw.csv")  # by now its bytes are known
    assert project.states() == OK


def test_bytes_that_times_did_not_give_away(project: Project, claims: Path) -> None:
    project.write("results/u/clean/table.csv", "forged\n")  # with a time long past
    assert project.states() == OK
    assessed = plan(project.outputs())
    taken = adopt(assessed["u", "clean"], claims)
    assert (taken.state, taken.why) == ("stale", "results/u/clean was changed")
    assert run(project, claims)
    assert read_manifest(project.output("u/clean").state_dir) is None


def test_what_is_remade_with_the_same_bytes(project: Project, claims: Path) -> None:
    clean = project.output("u/clean")
    shutil.rmtree(clean.path)
    project.write("results/u/clean/table.csv", "1\n2\n")
    project.write("results/u/clean/deep/a b.txt", "x\n")
    provenance = project.plan()["u/clean"].provenance
    assert provenance is not None
    project.record(clean, provenance)
    assert project.states() == OK
    assert run(project, claims)
    assert project.states() == OK
    project.write("results/u/clean/table.csv", "other\n")
    project.record(clean, provenance)
    assert project.states() == OK | {"u/fit": "stale (input clean was remade)"}


def test_while_somebody_makes_it(project: Project, claims: Path) -> None:
    clean = project.output("u/clean")
    assessed = plan(project.outputs())
    claim = Claim.take(clean, claims)
    assert isinstance(claim, Claim)
    taken = adopt(assessed["u", "clean"], claims)
    assert (taken.state, taken.why) == ("stale", "in use by a recipe that reads it")
    claim.release()
    project.record(clean, assessed["u", "clean"].provenance)  # type: ignore[arg-type]
    assert adopt(assessed["u", "clean"], claims).manifest == read_manifest(clean.state_dir)


def test_where_nothing_can_be_written(
    project: Project, claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(manifest, "write_atomically", read_only)
    assert run(project, claims)
    assert project.states() == OK


def test_verify_before_a_run(project: Project) -> None:
    assert verify(project.outputs()) == Verification(2)
    project.write("results/u/clean/table.csv", "forged\n")
    (project.root / "results/u/clean" / RECORD).unlink()
    edit(project, "fit", data_version="sha256:other")
    found = verify(project.outputs())
    assert found.verified == 1
    assert [(each.output.id, each.trouble, each.description) for each in found.findings] == [
        (
            "clean",
            Trouble.UNRECORDED,
            "results/u/clean is there, and no manifest says what made it",
        ),
        ("fit", Trouble.TAMPERED, "its bytes are not those that were made"),
        ("fit", Trouble.BROKEN, "it was made from another clean than is there now"),
    ]


def test_the_universe_of_a_project_without_any(project: Project) -> None:
    project.spec("outputs: [{id: x, recipe: {command: 'touch {output}/x'}}]")
    shutil.rmtree(project.root / "universes")
    assert [each.name for each in project.outputs()] == ["baseline/x"]
    os.rename(project.root / "results/u", project.root / "results/default")
    assert [each.name for each in project.outputs()] == ["default/x"]
