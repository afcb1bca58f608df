"""Data that is not here: pointers to it, and results that were made of it."""

from __future__ import annotations

import hashlib
import os

import pytest

from lightcone.state.plan import State
from tests.projects import Project

CHAIN = """\
inputs: [{id: raw, source: SOURCE}]
outputs:
- {id: clean, format: txt, inputs: [raw], recipe: {command: "COMMAND"}}
- {id: plot, format: txt, inputs: [clean], recipe: {command: "cat {inputs.clean} > {output}"}}
"""
DATA = "the data\n"
HASH = hashlib.sha256(DATA.encode()).hexdigest()
OTHER = "0" * 64


def chain(project: Project, source: str = "data/raw.csv", command: str = "") -> Project:
    """An output that is made of a source, and one that is made of that."""
    command = command or "cat $(find {inputs.raw} -type f) > {output}"
    return project.spec(CHAIN.replace("SOURCE", source).replace("COMMAND", command))


def lfs(sha256: str = HASH) -> str:
    """A pointer of git-lfs."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(DATA)}\n"


def annex(sha256: str = HASH) -> str:
    """A pointer of git-annex, in an unlocked file."""
    return f"/annex/objects/SHA256E-s{len(DATA)}--{sha256}.csv\n"


def link(project: Project, target: str, name: str = "data/raw.csv") -> None:
    """A link in the place of a file."""
    path = project.root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.symlink(target, path)


def place(project: Project, kind: str, sha256: str = HASH) -> str:
    """Put a pointer in the place of the data; the message about it."""
    key = f"SHA256E-s{len(DATA)}--{sha256}.csv"
    raw = project.root / "data/raw.csv"
    raw.unlink(missing_ok=True)
    if kind == "lfs":
        project.write("data/raw.csv", lfs(sha256))
        return (
            "data/raw.csv is a pointer of git-lfs, not the data: run 'git lfs pull --include "
            "data/raw.csv'"
        )
    if kind == "annex":
        project.write("data/raw.csv", annex(sha256))
        is_what = "is a pointer of git-annex, not the data"
        return f"data/raw.csv {is_what}: run 'git annex get data/raw.csv'"
    if kind == "annex link":
        target = f"../.git/annex/objects/aa/bb/{key}/{key}"
        link(project, target)
        is_what = f"is a link of git-annex, to {target}, which is not here"
        return f"data/raw.csv {is_what}: run 'git annex get data/raw.csv'"
    if kind == "dvc link":
        link(project, "../.dvc/cache/files/md5/ab/cdef")
        is_what = "is a link into the cache of DVC, to ../.dvc/cache/files/md5/ab/cdef, which is"
        return f"data/raw.csv {is_what} not here: run 'dvc pull data/raw.csv'"
    project.write("data/raw.csv.dvc", "outs: []")
    return "data/raw.csv is tracked by DVC and not here: run 'dvc pull data/raw.csv.dvc'"


KINDS = ("lfs", "annex", "annex link", "dvc link", "dvc")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pointer_is_refused_with_the_command_that_fetches(project: Project, kind: str) -> None:
    message = place(project, kind)
    found = chain(project).plan()
    assert found["baseline/clean"].why == f"input raw: {message}"
    assert found["baseline/clean"].lacks_input
    assert found["baseline/plot"].provenance is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_result_of_what_a_pointer_is_for_is_unconfirmed(project: Project, kind: str) -> None:
    project.write("data/raw.csv", DATA)
    chain(project).make()
    message = place(project, kind)
    unconfirmed = f"unconfirmed (input raw: {message})"
    assert project.states() == {"baseline/clean": unconfirmed, "baseline/plot": "ok"}
    (project.root / "results/baseline/plot.txt").unlink()
    assert project.make() == ["baseline/plot"]
    if kind in ("lfs", "annex", "annex link"):
        # The pointer says what the data is: not what the result was made of.
        message = place(project, kind, OTHER)
        assert project.states()["baseline/clean"] == f"stale (input raw: {message})"


def test_a_result_of_the_pointer_itself_is_not_good(project: Project) -> None:
    """As versions that took it for the data have made."""
    for text in (lfs(), annex(), annex().replace("SHA256E", "MD5")):
        project.write("data/raw.csv", "x" * len(text))
        chain(project).make()
        record = project.root / "results/baseline/.lightcone/clean/manifest.json"
        stale = record.read_text().replace(
            hashlib.sha256(b"x" * len(text)).hexdigest(), hashlib.sha256(text.encode()).hexdigest()
        )
        record.write_text(stale)
        project.write("data/raw.csv", text)
        assert project.plan()["baseline/clean"].state is State.STALE
        assert project.plan()["baseline/clean"].lacks_input


@pytest.mark.parametrize("source", ["data", "data/*.csv"])
def test_pointers_among_the_files_of_an_input(project: Project, source: str) -> None:
    for name in ("a", "b", "c"):
        project.write(f"data/{name}.csv", DATA)
    chain(project, source).make()
    project.write("data/a.csv", lfs())
    link(project, "../.git/annex/objects/x", "data/b.csv")
    found = project.plan()["baseline/clean"]
    fetched = ["data"] if source == "data" else ["data/a.csv", "data/b.csv"]
    assert found.state is State.UNCONFIRMED, found.why
    assert f"run 'git lfs pull --include {fetched[0]}'" in found.why
    assert f"run 'git annex get {fetched[-1]}'" in found.why
    # A file that is here says otherwise.
    project.write("data/c.csv", "edited")
    assert project.plan()["baseline/clean"].state is State.STALE
    assert project.plan()["baseline/clean"].lacks_input
    project.write("data/c.csv", DATA)
    project.write("data/new.csv", DATA)
    assert project.plan()["baseline/clean"].state is State.STALE


def test_a_file_of_the_project_that_is_a_pointer(project: Project) -> None:
    project.write("data/raw.csv", DATA)
    project.write("model.bin", DATA)
    chain(project, command="cat {inputs.raw} model.bin > {output}").make()
    project.write("model.bin", lfs())
    message = "model.bin is a pointer of git-lfs, not the data: run 'git lfs pull --include"
    assert project.states()["baseline/clean"] == f"unconfirmed ({message} model.bin')"
    project.write("model.bin", lfs(OTHER))
    assert project.states()["baseline/clean"] == f"stale ({message} model.bin')"
    # A recipe that fetches it itself names the pointer.
    chain(project, command="git lfs pull -I model.bin; cat model.bin > {output}")
    assert not project.plan()["baseline/clean"].lacks_input


def test_commands_are_those_of_the_repository_of_the_file(project: Project) -> None:
    (project.root / "data/.git").mkdir(parents=True)
    project.write("data/raw.csv", annex())
    assert "run 'git -C data annex get raw.csv'" in chain(project).why("baseline/clean")
    project.write("data/raw.csv", lfs())
    assert "run 'git -C data lfs pull --include raw.csv'" in project.why("baseline/clean")
    (project.root / "data/.git").rmdir()
    (project.root.parent / ".git").mkdir()
    where = f"{project.root.name}/data/raw.csv"
    assert f"run 'git lfs pull --include {where}'" in project.why("baseline/clean")
    project.write("data/raw.csv", annex())
    assert "run 'git annex get data/raw.csv'" in project.why("baseline/clean")


def test_what_only_resembles_a_pointer(project: Project) -> None:
    for text in (" " + annex(), "version 1\n", "/annex/", annex() + "x" * 1024, ""):
        project.write("data/raw.csv", text)
        assert chain(project).why("baseline/clean") == "never made"
    (project.root / "data/raw.csv").unlink()
    project.write("elsewhere/annex/objects/x", DATA)
    link(project, "../elsewhere/annex/objects/x")
    assert chain(project).why("baseline/clean") == "never made"


def test_unconfirmed_is_built_on_and_not_remade(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(project.root / "data"))
    project.write("data/raw.csv", DATA)
    chain(project, "$DATA/raw.csv").make()
    monkeypatch.delenv("DATA")
    found = project.plan()
    clean = found["baseline/clean"]
    why = "input raw: $DATA/raw.csv needs DATA, which is not set: set it, or correct astra.yaml"
    assert (clean.state, clean.why, clean.provenance) == (State.UNCONFIRMED, why, None)
    assert clean.is_good and found["baseline/plot"].state is State.OK
    assert project.make() == []
    # To make it all the same is refused.
    forced = project.plan(force=[("baseline", "clean")])["baseline/clean"]
    assert (forced.state, forced.lacks_input, forced.why) == (State.STALE, True, why)
    # Only the bytes that were made are good by their record.
    project.write("results/baseline/clean.txt", "edited")
    assert project.plan()["baseline/clean"].state is State.STALE
    assert project.plan()["baseline/clean"].lacks_input
    (project.root / "results/baseline/clean.txt").unlink()
    assert project.plan()["baseline/clean"].state is State.MISSING


def test_what_is_here_has_to_be_as_recorded(project: Project) -> None:
    project.write("data/raw.csv", DATA)
    project.write("count.sh", "cat $1")
    chain(project, command="sh count.sh {inputs.raw} > {output}").make()
    (project.root / "data/raw.csv").unlink()
    assert project.plan()["baseline/clean"].state is State.UNCONFIRMED
    project.write("count.sh", "cat -n $1")
    found = project.plan()["baseline/clean"]
    assert (found.state, found.lacks_input) == (State.STALE, True)
    project.write("count.sh", "cat $1")
    chain(project, "data/other.csv", command="sh count.sh {inputs.raw} > {output}")
    assert project.plan()["baseline/clean"].state is State.STALE


def test_links_into_an_annex_in_a_directory(project: Project) -> None:
    """Fetched they are the data; dropped, what was made of them is unconfirmed."""
    key = f"SHA256E-s{len(DATA)}--{HASH}.csv"
    there = project.write(f".git/annex/objects/aa/{key}/{key}", DATA)
    link(project, f"../.git/annex/objects/aa/{key}/{key}")
    chain(project, "data", command="cat $(find -L {inputs.raw} -type f) > {output}").make()
    assert set(project.states().values()) == {"ok"}
    there.unlink()
    found = project.plan()["baseline/clean"]
    assert found.state is State.UNCONFIRMED and "run 'git annex get data'" in found.why
    link(project, f"../.git/annex/objects/aa/{key.replace(HASH, OTHER)}")
    assert project.plan()["baseline/clean"].state is State.STALE
    # Unlocked, it is the data as well.
    project.write("data/raw.csv", DATA)
    assert set(project.states().values()) == {"ok"}
