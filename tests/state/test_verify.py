"""Verification reads everything, and what it finds the next plan knows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightcone.spec.output import Output
from lightcone.state import fingerprint as module
from lightcone.state.claims import Claim
from lightcone.state.fingerprint import Stamp, fingerprint
from lightcone.state.hash_cache import HashCache
from lightcone.state.manifest import Observed, read_manifest, write_manifest
from lightcone.state.plan import plan
from lightcone.state.verify import Verification, record_findings, verify
from tests.projects import Project

pytestmark = pytest.mark.usefixtures("settled")

SPEC = """
version: "0.0.14"
name: verified
inputs:
  - {id: raw, source: data/raw.csv}
  - {id: tree, source: data/tree}
  - {id: all, source: "data/*.txt"}
outputs:
  - {id: a, format: txt, inputs: [raw], recipe: {command: "sh code/a.sh {inputs.raw} > {output}"}}
  - {id: b, format: txt, inputs: [a], recipe: {command: "cat {inputs.a} > {output}"}}
  - id: c
    format: txt
    inputs: [tree, all]
    recipe: {command: "ls {inputs.tree} {inputs.all} > {output}"}
  - {id: report, type: report, format: txt}
"""
UNIVERSES = {"one": "id: one\n", "two": "id: two\n"}
HAND = "its manifest was changed by hand"


@pytest.fixture
def project(project: Project) -> Project:
    project.write("data/raw.csv", "1\n")
    project.write("data/tree/x/y.csv", "2\n")
    project.write("data/p.txt", "3\n")
    project.write("code/a.sh", "cat $1\n")
    project.spec(SPEC)
    project.make()
    return project


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "scratch/claims"


def told(verification: Verification) -> list[tuple[str, str, str]]:
    return [
        (each.output.name, each.trouble.value, each.description) for each in verification.findings
    ]


def corrupt(project: Project, path: Path, text: str) -> None:
    """Write bytes that no file status shows, as a failing disk does.

    The kernel alone sets a ctime, so every record gets the new one instead.
    """
    before = path.stat()
    assert before.st_size == len(text)
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    old, new = (f'"ctime_ns": {time}' for time in (before.st_ctime_ns, path.stat().st_ctime_ns))
    for output in project.outputs():
        file = output.state_dir / "manifest.json"
        file.write_text(file.read_text().replace(old, new))


def test_nothing_is_wrong(project: Project) -> None:
    assert verify(project.outputs()) == Verification(3)
    assert verify([]) == Verification(0)


def test_a_result_without_a_record(project: Project) -> None:
    """An output without a recipe is none of lc's."""
    shutil.rmtree(project.root / "results/baseline/.lightcone")
    project.write("results/baseline/a.txt", "forged\n")
    project.write("results/baseline/report.txt", "written by hand\n")
    (project.root / "results/baseline/b.txt").unlink()
    (project.root / "results/baseline/b.txt").symlink_to("nowhere")
    (project.root / "results/baseline/c.txt").unlink()
    found = verify(project.outputs())
    assert found.verified == 0
    assert told(found) == [
        (
            f"baseline/{name}",
            "no record",
            f"results/baseline/{name}.txt is there, and no manifest says what made it",
        )
        for name in "ab"
    ]


def test_an_empty_directory_is_no_result(project: Project) -> None:
    project.spec("outputs: [{id: d, recipe: {command: 'touch {output}/x'}}]")
    output = project.output("d")
    output.path.mkdir(parents=True)
    assert verify([output]) == Verification(0)
    (output.path / "x").touch()
    assert [finding.trouble for finding in verify([output]).findings] == ["no record"]


def test_a_result_that_is_being_made(project: Project, claims: Path) -> None:
    output = project.output("a")
    claim = Claim.take(output, claims)
    assert isinstance(claim, Claim)
    claim.set_aside("lc run, pid 1", 0o022, "0" * 64)
    output.path.write_text("half")
    assert verify(project.outputs()) == Verification(2)
    claim.restore()
    claim.release()
    assert verify(project.outputs()) == Verification(3)


def _replace(path: Path) -> None:
    path.with_name("new").write_text("9\n")
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("data/raw.csv", _replace, ("a", "changed", "input raw changed (data/raw.csv)")),
        ("code/a.sh", _replace, ("a", "changed", "code/a.sh changed")),
        ("data/raw.csv", os.unlink, ("a", "missing", "input raw is gone (data/raw.csv)")),
        ("code/a.sh", os.unlink, ("a", "missing", "code/a.sh is gone")),
        (
            "data/tree/x/y.csv",
            _replace,
            ("c", "changed", "input tree changed (data/tree: x/y.csv changed)"),
        ),
        (
            "data/p.txt",
            _replace,
            ("c", "changed", "input all changed (data/*.txt: data/p.txt changed)"),
        ),
        ("data/p.txt", os.unlink, ("c", "missing", "input all is gone (data/*.txt)")),
    ],
)
def test_sources_that_no_longer_match(
    project: Project,
    name: str,
    change: Callable[[Path], None],
    expected: tuple[str, str, str],
) -> None:
    change(project.root / name)
    found = verify(project.outputs())
    output, trouble, description = expected
    named = name if "*" not in description or change is not os.unlink else "data/*.txt"
    assert told(found) == [(f"baseline/{output}", f"{trouble} source", description)]
    assert [each.files for each in found.findings] == [(named,)]
    # A plan sees it by itself, so there is nothing to record.
    assert found.corrected == []


GATE = """
inputs: [{id: raw, source: data/tree}]
outputs:
- {id: a, format: txt, inputs: [raw], recipe: {command: "COMMAND"}}
- {id: b, format: txt, inputs: [a], recipe: {command: "cat {inputs.a} > {output}"}}
"""


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("more/2.csv", "2\n", "more/2.csv is new"),
        ("conf/b.yaml", "b\n", "conf/b.yaml is new"),
        ("lib.py", "", "lib.py is new"),
        ("data/tree/x/z.csv", "z\n", "input raw changed (data/tree: x/z.csv is new)"),
        ("code/a.py", "import math\n", "code/a.py changed; used.py is no longer used"),
    ],
)
def test_what_a_plan_calls_stale_is_found(
    project: Project, name: str, text: str, reason: str
) -> None:
    """Sources that joined since: to a pattern, to what all depend on, to an import, to an input."""
    project.write("lightcone.toml", '[results]\ndepend_on = ["conf/*.yaml"]\n')
    project.write("code/a.py", "import used\ntry:\n    import lib\nexcept ImportError: pass\n")
    for each in ("used.py", "more/1.csv", "conf/a.yaml"):
        project.write(each, "")
    command = "PYTHONPATH=. python3 code/a.py; cat more/*.csv > {output}; ls {inputs.raw}"
    project.spec(GATE.replace("COMMAND", command))
    project.make()
    assert verify(project.outputs()) == Verification(2)
    project.write(name, text)
    assert project.states()["baseline/a"] == f"stale ({reason})"
    found = [each for each in told(verify(project.outputs())) if each[0] == "baseline/a"]
    assert found == [("baseline/a", "changed source", reason)]


@pytest.mark.parametrize(
    ("change", "trouble", "reason"),
    [
        (lambda root: (root / "seen.txt").write_text("2\n"), "changed", "seen.txt changed"),
        (lambda root: (root / "seen.txt").unlink(), "missing", "seen.txt is gone"),
        (
            lambda root: (root / "sought.txt").touch(),
            "changed",
            "sought.txt is there now, which the recipe looked for",
        ),
        (
            lambda root: (root / "listed/new").touch(),
            "changed",
            "listed/new is new in a directory that the recipe lists",
        ),
    ],
)
def test_what_a_recipe_was_observed_to_use(
    project: Project, change: Callable[[Path], object], trouble: str, reason: str
) -> None:
    seen = project.write("seen.txt", "1\n")
    project.write("listed/old", "")
    output = project.output("a")
    manifest = read_manifest(output.state_dir)
    assert manifest is not None
    stamps = fingerprint(seen).files
    observed = Observed({"seen.txt": stamps[""]}, {"listed": ("old",)}, ("sought.txt",))
    provenance = replace(manifest.provenance, observed=observed)
    write_manifest(
        output.state_dir, replace(manifest, provenance=provenance, identity=provenance.identity)
    )
    assert verify(project.outputs()) == Verification(3)
    change(project.root)
    assert project.states()["baseline/a"] == f"stale ({reason})"
    assert told(verify(project.outputs())) == [("baseline/a", f"{trouble} source", reason)]


def test_a_plan_knows_what_was_found_of_an_observed_file(project: Project, claims: Path) -> None:
    seen = project.write("seen.txt", "1\n")
    output = project.output("a")
    manifest = read_manifest(output.state_dir)
    assert manifest is not None
    observed = Observed({"seen.txt": fingerprint(seen).files[""]})
    provenance = replace(manifest.provenance, observed=observed)
    write_manifest(
        output.state_dir, replace(manifest, provenance=provenance, identity=provenance.identity)
    )
    corrupt(project, seen, "7\n")
    assert project.states()["baseline/a"] == "ok"
    found = verify(project.outputs())
    assert told(found) == [("baseline/a", "changed source", "seen.txt changed")]
    assert record_findings(found, claims) == []
    assert project.states()["baseline/a"] == "stale (seen.txt changed)"


def test_an_edit_while_the_recipe_ran(project: Project) -> None:
    output = project.output("a")
    manifest = read_manifest(output.state_dir)
    assert manifest is not None
    write_manifest(output.state_dir, replace(manifest, disturbed=("code/a.sh", "raw")))
    assert told(verify(project.outputs())) == [
        (
            "baseline/a",
            "changed source",
            "code/a.sh changed while it was made; input raw changed while it was made "
            "(data/raw.csv)",
        )
    ]


def test_what_a_failed_recipe_left_is_no_source(project: Project) -> None:
    project.spec("outputs: [{id: d, format: txt, recipe: {command: 'ls d.log; date > {output}'}}]")
    project.write("d.log", "")
    project.make()
    (project.root / "d.log").unlink()
    assert [each.description for each in verify(project.outputs()).findings] == ["d.log is gone"]
    project.spec(
        "outputs: [{id: e, format: txt, recipe: {command: 'ls e.log || :; date > {output}'}}]"
    )
    project.make()
    project.write("e.log", "")
    assert [each.description for each in verify(project.outputs()).findings] == ["e.log is new"]
    output = project.output("e")
    project.fail(output, template=output.template, products=["e.log"], exit_code=1)
    assert project.states() == {"baseline/e": "ok"}
    assert verify(project.outputs()) == Verification(1)


def test_a_recipe_that_the_spec_has_otherwise_now(project: Project) -> None:
    """Is for a plan: the result is still what its record says."""
    project.spec(SPEC.replace("cat {inputs.a} > {output}", "cat -n {inputs.a} > {output}"))
    assert project.states()["baseline/b"] == "stale (recipe changed)"
    assert verify(project.outputs()) == Verification(3)


def test_an_unreadable_source(project: Project) -> None:
    (project.root / "code/a.sh").unlink()
    (project.root / "code/a.sh").symlink_to("a.sh")
    assert told(verify(project.outputs())) == [
        ("baseline/a", "missing source", "code/a.sh is gone")
    ]


@pytest.mark.parametrize(
    ("name", "output"), [("code/a.sh", "a"), ("data/raw.csv", "a"), ("data/p.txt", "c")]
)
def test_a_source_without_permission(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, output: str
) -> None:
    original = module._hash

    def refuse(path: str, status: os.stat_result) -> str:
        if path.endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return original(path, status)

    monkeypatch.setattr(module, "_hash", refuse)
    assert told(verify(project.outputs())) == [
        (f"baseline/{output}", "missing source", f"{name} cannot be read")
    ]


def test_a_plan_knows_what_was_found_of_a_result(project: Project, claims: Path) -> None:
    path = project.root / "results/baseline/a.txt"
    corrupt(project, path, "7\n")
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert told(found) == [("baseline/a", "tampered", "its bytes are not those that were made")]
    assert [finding.files for finding in found.findings] == [("results/baseline/a.txt",)]
    assert record_findings(found, claims) == []
    assert project.states() == {
        "baseline/a": "stale (results/baseline/a.txt was changed)",
        "baseline/b": "stale (input a is to be remade)",
        "baseline/c": "ok",
    }
    assert project.make() == ["baseline/a"]
    assert path.read_text() == "1\n"
    assert verify(project.outputs()) == Verification(3)


def test_bytes_that_are_there_again(project: Project, claims: Path) -> None:
    path = project.root / "results/baseline/a.txt"
    corrupt(project, path, "7\n")
    record_findings(verify(project.outputs()), claims)
    path.write_text("1\n")
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert found.findings == [] and len(found.corrected) == 1
    assert record_findings(found, claims) == []
    manifest = read_manifest(project.output("a").state_dir)
    assert manifest is not None and manifest.data.files[""].matches(path.stat())


@pytest.mark.parametrize(("name", "text"), [("data/raw.csv", "5\n"), ("code/a.sh", "cat $@\n")])
def test_a_plan_knows_what_was_found_of_a_source(
    project: Project, claims: Path, name: str, text: str
) -> None:
    """In every universe, also where only one was verified."""
    project.spec(SPEC, UNIVERSES)
    project.make()
    corrupt(project, project.root / name, text)
    assert set(project.states().values()) == {"ok"}
    outputs = project.outputs()
    ones = [each for each in outputs if each.universe == "one"]
    found = verify(ones, [each for each in outputs if each.universe == "two"])
    assert [(named, kind) for named, kind, _ in told(found)] == [("one/a", "changed source")]
    assert record_findings(found, claims) == []
    stale = [name for name, state in project.states().items() if state != "ok"]
    assert stale == ["one/a", "one/b", "two/a", "two/b"]
    project.make()
    assert verify(project.outputs()) == Verification(6)


def test_no_plan_uses_a_cached_hash_that_was_refuted(project: Project, tmp_path: Path) -> None:
    hashes, path = tmp_path / "hashes", project.root / "data/raw.csv"
    old = fingerprint(path).files[""].sha256
    path.write_text("5\n")
    now = path.stat()
    cache = HashCache(hashes, project.root)
    cache.keep(str(path), Stamp(2, now.st_mtime_ns, now.st_ino, old, now.st_ctime_ns))
    cache.save()
    assert _state_of_a(project, hashes) == "ok"
    verify(project.outputs(), hashes=hashes)
    assert _state_of_a(project, hashes) == "stale"


def _state_of_a(project: Project, hashes: Path) -> str:
    return plan(project.outputs(), hashes=hashes)["baseline", "a"].state.value


def _edit(output: Output, change: Callable[[dict[str, object]], object]) -> None:
    file = output.state_dir / "manifest.json"
    table = json.loads(file.read_bytes())
    change(table)
    file.write_text(json.dumps(table))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(identity="0" * 64),
        lambda table: table["data"].update(version="0" * 64),
    ],
)
def test_a_plan_knows_of_a_manifest_changed_by_hand(
    project: Project, claims: Path, change: Callable[[dict[str, object]], object]
) -> None:
    _edit(project.output("c"), change)
    assert set(project.states().values()) == {"ok"}
    found = verify(project.outputs())
    assert told(found) == [("baseline/c", "damaged record", HAND)]
    assert record_findings(found, claims) == []
    assert project.states()["baseline/c"] == f"stale ({HAND}, as 'lc verify' found)"
    assert told(verify(project.outputs())) == told(found)
    project.make()
    assert verify(project.outputs()) == Verification(3)


def test_what_is_made_meanwhile_is_not_recorded(project: Project, claims: Path) -> None:
    corrupt(project, project.root / "results/baseline/a.txt", "7\n")
    found = verify(project.outputs())
    project.write("data/raw.csv", "4\n")
    project.make()
    before = read_manifest(project.output("a").state_dir)
    assert record_findings(found, claims) == []
    assert read_manifest(project.output("a").state_dir) == before


def test_what_cannot_be_recorded_is_reported(project: Project, claims: Path) -> None:
    corrupt(project, project.root / "results/baseline/a.txt", "7\n")
    found = verify(project.outputs())
    claim = Claim.take(project.output("a"), claims)
    assert isinstance(claim, Claim)
    assert record_findings(found, claims) == ["baseline/a is in use by a recipe that reads it"]
    claim.release()
    claims.parent.rename(claims.parent.with_name("moved"))
    claims.parent.write_text("a file")
    (failure,) = record_findings(found, claims)
    assert "scratch" in failure
