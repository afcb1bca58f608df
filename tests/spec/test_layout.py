"""Where outputs lie, in either layout, and which layout a project has."""

from __future__ import annotations

import pytest

from tests.projects import Project

FORMATS = """
outputs:
  - {id: a, format: csv, recipe: {command: "touch {output}"}}
  - {id: b, format: tar.gz, recipe: {command: "touch {output}"}}
  - {id: again, from: sub.a}
analyses:
  sub:
    outputs:
      - {id: a, format: png, recipe: {command: "touch {output}"}}
      - {id: c, format: png, recipe: {command: "touch {output}"}}
"""
ONE_WITHOUT = FORMATS.replace("{id: b, format: tar.gz,", "{id: b,")
FILES = {
    "a": "results/baseline/a.csv",
    "b": "results/baseline/b.tar.gz",
    "sub.a": "results/baseline/sub.a.png",
    "sub.c": "results/baseline/sub.c.png",
}
DIRECTORIES = {
    "a": "results/baseline/a",
    "b": "results/baseline/b",
    "sub.a": "results/baseline/sub.a",
    "sub.c": "results/baseline/c",
}


def paths(project: Project, **settings: str) -> dict[str, str]:
    """The path of each output from the root, by its id."""
    outputs = project.outputs(**settings)
    assert {each.is_directory for each in outputs} <= {True} or not any(
        each.is_directory for each in outputs
    )
    return {each.id: str(each.path.relative_to(project.root)) for each in outputs}


def states(project: Project) -> dict[str, str]:
    return {each.id: str(each.state_dir.relative_to(project.root)) for each in project.outputs()}


def test_a_format_on_every_output_means_files(project: Project) -> None:
    project.spec(FORMATS)
    assert paths(project) == FILES
    assert states(project) == {
        name: f"results/baseline/.lightcone/{name}" for name in ("a", "b", "sub.a", "sub.c")
    }


def test_an_output_without_format_means_directories(project: Project) -> None:
    project.spec(ONE_WITHOUT)
    assert paths(project) == DIRECTORIES
    assert states(project)["sub.c"] == "results/baseline/.lightcone/c"


def test_the_setting_wins(project: Project) -> None:
    project.spec(FORMATS)
    assert paths(project, layout="directory") == DIRECTORIES
    project.write("lightcone.toml", '[results]\nlayout = "directory"\n')
    assert paths(project) == DIRECTORIES
    project.spec(ONE_WITHOUT)
    assert paths(project, layout="file") == FILES | {"b": "results/baseline/b"}


@pytest.mark.parametrize(
    "marker", [".lightcone/lightcone.yaml", "results/baseline/c/.lightcone-manifest.json"]
)
def test_what_the_older_tool_left_means_directories(project: Project, marker: str) -> None:
    project.spec(FORMATS)
    project.write(marker, "{}")
    assert paths(project) == DIRECTORIES


def test_what_the_newer_tool_left_means_files(project: Project) -> None:
    project.spec(ONE_WITHOUT)
    project.write("results/baseline/a.csv", "1")
    assert paths(project) == DIRECTORIES
    project.write("results/baseline/.a.manifest.json", "{}")
    assert paths(project) == FILES | {"b": "results/baseline/b"}


def test_outputs_stay_where_they_were_made(project: Project) -> None:
    # Another output with or without a format must not move, and so remake, all the others.
    project.spec(FORMATS)
    project.make()
    project.spec(ONE_WITHOUT)
    assert paths(project) == FILES | {"b": "results/baseline/b"}
    assert project.states()["baseline/a"] == "ok"


def test_directories_stay_too(project: Project) -> None:
    spec = ONE_WITHOUT.replace("touch {output}", "touch {output}/x")
    project.spec(spec)
    project.make()
    project.spec(spec.replace("{id: b,", "{id: b, format: csv,"))
    assert paths(project) == DIRECTORIES
    assert set(project.states().values()) == {"ok"}


def test_a_recipe_may_put_a_directory_where_a_file_is_meant(project: Project) -> None:
    project.spec(
        "outputs: [{id: a, format: zarr, recipe: {command: 'mkdir {output}; echo 1 > {output}/0'}}]"
    )
    assert project.make() == ["baseline/a"]
    assert project.states() == {"baseline/a": "ok"}


def test_a_recipe_may_put_a_file_where_a_directory_is_meant(project: Project) -> None:
    project.spec("outputs: [{id: a, recipe: {command: 'rmdir {output}; echo 1 > {output}'}}]")
    assert project.make() == ["baseline/a"]
    assert project.states() == {"baseline/a": "ok"}


def test_redirection_into_the_directory(project: Project) -> None:
    # FACTS.md: `> {output}/x` in a recipe.
    project.spec("outputs: [{id: a, recipe: {command: 'echo 1 > {output}/x'}}]")
    assert project.make() == ["baseline/a"]
    assert (project.root / "results/baseline/a/x").read_text() == "1\n"
