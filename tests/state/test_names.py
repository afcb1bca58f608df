"""Which names count: one list, for inputs, results and the project's directories."""

from __future__ import annotations

import pytest

from lightcone.state.directories import Directories
from lightcone.state.fingerprint import fingerprint, unchanged
from lightcone.state.verify import Verification, verify
from tests.projects import Project

LEFT = (
    ".DS_Store",
    "._x.csv",
    ".#x.csv",
    ".directory",
    ".ipynb_checkpoints/x-checkpoint.ipynb",
    ".mypy_cache/3.11/x",
    ".nfs00000000a1b2c3d400000001",
    ".nfsa1b2c3d4e5f6a7b80000002f",
    ".Rhistory",
    ".x.csv.swp",
    ".x.csv.swx",
    ".~lock.x.ods#",
    "#x.csv#",
    "Thumbs.db",
    "__pycache__/m.cpython-311.pyc",
    "desktop.ini",
    "m.pyc",
    "x.csv~",
)
DATA = (".cache/x", ".git/HEAD", ".hg/x", ".nfsdata", ".tox/x", ".x.swept", "x#.dat", "~x.dat")
SPEC = """
inputs: [{id: raw, source: data}]
outputs: [{id: x, recipe: {command: "cp data/*.csv {output}; echo {inputs.raw}"}}]
"""


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_behind_counts_nowhere(project: Project, name: str) -> None:
    project.write("data/x.csv", "1\n")
    project.spec(SPEC.replace("recipe", "inputs: [raw], recipe")).make()
    for place in ("data", "data/deep/er", "results/baseline/x"):
        project.write(f"{place}/{name}", "left")
    assert project.states() == {"baseline/x": "ok"}
    assert verify(project.outputs()) == Verification(1)
    assert not Directories(str(project.root)).counts(f"data/{name}")


@pytest.mark.parametrize("name", DATA)
def test_other_names_count_in_an_input(project: Project, name: str) -> None:
    project.write("data/x.csv", "1\n")
    project.spec(SPEC.replace("recipe", "inputs: [raw], recipe")).make()
    project.write(f"data/{name}", "data")
    assert project.states() == {"baseline/x": f"stale (input raw changed (data: {name} is new))"}


def test_what_a_recipe_leaves_in_its_result_is_of_it(project: Project) -> None:
    """But for what the network file system leaves and takes away again."""
    path = project.write("tree/m.pyc", "1").parent
    project.write("tree/.nfs00000000a1b2c3d400000001", "")
    data = fingerprint(path)
    assert list(data.files) == ["m.pyc"]
    project.write("tree/m.pyc", "2")
    assert not unchanged(path, data)


def test_an_empty_directory_does_not_count(project: Project) -> None:
    project.write("data/x.csv", "1\n")
    project.spec(SPEC.replace("recipe", "inputs: [raw], recipe")).make()
    (project.root / "data/empty/er").mkdir(parents=True)
    (project.root / "results/baseline/x/empty").mkdir()
    assert project.states() == {"baseline/x": "ok"}
