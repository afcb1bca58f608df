"""The files that a command names, and those that inputs consist of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightcone.spec.output import Output
from lightcone.state.dependencies import SourceFiles
from lightcone.state.identity import identify
from tests.projects import Project


def spec(command: str, source: str = "data/raw.csv") -> str:
    """A project of one output with one external input."""
    return (
        f"inputs: [{{id: raw, source: '{source}'}}]\n"
        f"outputs:\n- id: x\n  inputs: [raw]\n  recipe:\n    command: |\n      {command}\n"
    )


def named(project: Project, command: str) -> set[str]:
    """The files that a command names, but for those that it shows to be written."""
    output = project.spec(spec(command)).output("x")
    sources = SourceFiles(project.root)
    return set(sources.project_files(output)) - sources.found(output).written


@pytest.fixture
def project(project: Project) -> Project:
    for name in (
        "src/fit.py",
        "src/lib.py",
        "src/two words.py",
        "conf/a.yaml",
        "tool",
        "data/raw.csv",
        "data/other.csv",
        "results/baseline/y.csv",
        "part/astra.yaml",
        "part/results/baseline/z.csv",
        "docs/results/table.csv",
        "-x",
        "env/pyvenv.cfg",
        "env/bin/python",
        "env/bin/tool",
        "bin/tool",
    ):
        project.write(name, name)
    project.write("../outside.py", "")
    return project


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("python src/fit.py", "src/fit.py"),
        ("python ./src/../src/fit.py", "src/fit.py"),
        ("./tool && python src/fit.py; cat conf/a.yaml|sort>x", "tool src/fit.py conf/a.yaml"),
        ("python src/fit.py --conf=conf/a.yaml", "src/fit.py conf/a.yaml"),
        ("CONF=conf/a.yaml python src/fit.py", "src/fit.py conf/a.yaml"),
        ("run src/fit.py,src/lib.py", "src/fit.py src/lib.py"),
        ("run --data conf/a.yaml:table", "conf/a.yaml"),
        ("python 'src/fit.py' \"conf/a.yaml\"", "src/fit.py conf/a.yaml"),
        ("python 'src/two words.py'", "src/two words.py|"),
        ('python --script="src/two words.py"', "src/two words.py|"),
        ("python src/two\\ words.py", "src/two words.py|"),
        ("python $(cat conf/a.yaml)", "conf/a.yaml"),
        ("python < conf/a.yaml", "conf/a.yaml"),
        ("cd src && python fit.py", "src/fit.py"),
        ("(cd src; python fit.py) && ls conf", "src/fit.py"),
        ("python src/absent.py", ""),
        ("ls src conf .", ""),
        ("python ../outside.py /etc/hostname ~/x", ""),
        ("cat {inputs.raw} data/raw.csv", ""),
        ("cat data/other.csv", "data/other.csv"),
        ("cat results/baseline/y.csv ./results/baseline/y.csv part/results/baseline/z.csv", ""),
        ("cat docs/results/table.csv", "docs/results/table.csv"),
        ("cat part/astra.yaml", "part/astra.yaml"),
        ("echo 'unbalanced > {output}", ""),
        ("cat <<EOF\n      src/lib.py\n      EOF", "src/lib.py"),
        ("python -m src.fit", "src/fit.py"),
        ("python src/fit.py > conf/a.yaml", "src/fit.py"),
        ("python src/fit.py>>conf/a.yaml 2>>'src/two words.py'", "src/fit.py"),
        ("python src/fit.py &> conf/a.yaml; cat conf/a.yaml", "src/fit.py"),
        ("python src/fit.py 2>&1 | tee -a conf/a.yaml src/lib.py | sort", "src/fit.py"),
        ("cd src; python fit.py > lib.py", "src/fit.py"),
        ("awk '$1>5' conf/a.yaml", "conf/a.yaml"),
        ("diff <(cat src/lib.py) conf/a.yaml", "src/lib.py conf/a.yaml"),
        ("./my-tee src/fit.py", "src/fit.py"),
        ("env/bin/python src/fit.py env/bin/tool", "src/fit.py"),
        ("bin/tool", "bin/tool"),
        ("", ""),
    ],
)
def test_named_files(project: Project, command: str, files: str) -> None:
    expected = files.strip("|").split("|") if "|" in files else files.split()
    if command:
        assert named(project, command) == set(expected)


def test_absolute_names_are_of_the_project(project: Project) -> None:
    assert named(project, f"python {project.root}/src/fit.py") == {"src/fit.py"}


def test_a_link_counts_by_what_it_points_to(project: Project) -> None:
    os.symlink("../../outside.py", project.root / "src/link.py")
    output = project.spec(spec("python src/link.py")).output("x")
    before = identify(output, {}, None)
    assert set(before.files) == {"src/link.py"}
    project.write("../outside.py", "changed")
    assert identify(output, {}, None).identity != before.identity


def test_a_container_file_counts(project: Project) -> None:
    project.write("Containerfile", "FROM scratch")
    text = spec("true").replace("recipe:\n", "recipe:\n    container: Containerfile\n")
    before = identify(project.spec(text).output("x"), {}, None)
    assert set(before.files) == {"Containerfile"}
    project.write("Containerfile", "FROM other")
    assert identify(project.output("x"), {}, None).identity != before.identity


def test_a_container_that_is_a_directory_is_not_read(project: Project, reads: list[str]) -> None:
    project.write("box/etc/passwd", "root")
    project.spec("outputs: [{id: x, recipe: {command: 'touch {output}/y', container: ./box}}]")
    provenance = identify(project.output("x"), {}, None)
    assert provenance.files == {} and reads == []


def test_what_every_output_depends_on(project: Project) -> None:
    settings = '[results]\ndepend_on = ["conf/**/*.yaml", "./*.R", "results/**", "absent/*"]\n'
    project.write("lightcone.toml", settings)
    project.write("conf/deep/b.yaml", "")
    project.write("conf/deep/b.txt", "")
    project.write("fit.R", "")
    output = project.spec(spec("cat src/fit.py")).output("x")
    before = identify(output, {}, None)
    assert set(before.files) == {"src/fit.py", "conf/a.yaml", "conf/deep/b.yaml", "fit.R"}
    project.write("conf/deep/b.yaml", "changed")
    assert identify(output, {}, None).identity != before.identity
    project.spec(spec("cat src/fit.py > {output}/x"))
    project.make()
    assert project.states() == {"baseline/x": "ok"}
    project.write("conf/new.yaml", "")
    (project.root / "fit.R").unlink()
    assert project.states() == {"baseline/x": "stale (fit.R is gone; conf/new.yaml is new)"}


def version(project: Project, source: str) -> str:
    """The version of an input with a source."""
    output = project.spec(spec("true {inputs.raw}", source)).output("x")
    return identify(output, {}, None).inputs["raw"].version


def test_inputs_are_known_by_their_bytes(project: Project) -> None:
    before = version(project, "data/raw.csv")
    assert version(project, f"{project.root}/data/raw.csv") == before
    project.age(project.root / "data/raw.csv")
    assert version(project, "data/raw.csv") == before
    project.write("data/raw.csv", "other")
    assert version(project, "data/raw.csv") != before


def test_directories_as_inputs(project: Project) -> None:
    before = version(project, "data")
    project.write("data/deep/new.csv", "")
    after = version(project, "data")
    assert after != before
    assert version(project, "data/") == after


def test_patterns_as_inputs(project: Project) -> None:
    before = version(project, "data/*.csv")
    project.write("data/notes.txt", "")
    assert version(project, "data/*.csv") == before
    project.write("data/third.csv", "")
    after = version(project, "data/*.csv")
    assert after != before
    os.rename(project.root / "data/third.csv", project.root / "data/fourth.csv")
    assert version(project, "data/*.csv") != after
    assert version(project, "nothing/*.csv") == "text:nothing/*.csv"


def test_sources_that_are_no_paths(project: Project) -> None:
    assert version(project, "https://example.org/x") == "text:https://example.org/x"
    assert version(project, "Gaia DR3") == "text:Gaia DR3"
    assert version(project, "data/absent.csv") == "text:data/absent.csv"
    before = version(project, "data/absent.csv")
    project.write("data/absent.csv", "")
    assert version(project, "data/absent.csv") != before


def two_outputs(project: Project) -> list[Output]:
    command = "python src/fit.py --conf conf/a.yaml {inputs.raw} > {output}"
    text = spec(command, "data").replace("- id: x\n", "- &o\n  id: x\n", 1)
    return project.spec(text + "- {<<: *o, id: y}\n").outputs()


def test_a_plan_reads_each_file_once(project: Project, reads: list[str]) -> None:
    x, y = two_outputs(project)
    sources = SourceFiles(project.root)
    first = identify(x, {}, None, sources)
    second = identify(y, {}, None, sources)
    assert sorted(reads) == ["a.yaml", "fit.py", "other.csv", "raw.csv"]
    assert first.files == second.files
    assert first.inputs == second.inputs


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("source", ["data", "data/raw.csv", "data/*.csv", "$DATA/*.csv"])
def test_what_was_recorded_is_not_read_again(
    project: Project, reads: list[str], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(project.root / "data"))
    text = spec("python src/fit.py {inputs.raw} > {output}/x", source)
    project.spec(text.replace("python", "ls"))
    assert project.make() == ["baseline/x"]
    reads.clear()
    assert project.states() == {"baseline/x": "ok"}
    assert reads == []
    project.age(project.root / "src/fit.py")
    project.age(project.root / "data/raw.csv")
    assert project.states() == {"baseline/x": "ok"}
    assert sorted(reads) == ["fit.py", "raw.csv"]


@pytest.mark.usefixtures("settled")
def test_what_another_output_recorded_is_not_read_again(project: Project, reads: list[str]) -> None:
    text = spec("cat src/fit.py {inputs.raw}/* > {output}/x", "data")
    project.spec(text)
    project.make()
    more = text + "- {id: y, inputs: [raw], recipe: {command: 'cat src/fit.py {inputs.raw}'}}\n"
    project.spec(more)
    reads.clear()
    assert project.states() == {"baseline/x": "ok", "baseline/y": "missing (never made)"}
    assert reads == []


def test_a_fresh_file_is_read_again(project: Project, reads: list[str]) -> None:
    # It last changed within the tick of its hashing, so it could have changed since.
    project.spec(spec("cat src/fit.py > {output}/x"))
    (project.root / "src/fit.py").write_text("fresh")
    project.make()
    reads.clear()
    assert project.states() == {"baseline/x": "ok"}
    assert "fit.py" in reads


@pytest.mark.usefixtures("settled")
def test_imports_count_and_are_not_hashed_again(project: Project, reads: list[str]) -> None:
    project.write("src/fit.py", "import lib\n")
    project.spec(spec("cat src/fit.py > {output}/x"))
    project.make()
    reads.clear()
    assert project.states() == {"baseline/x": "ok"}
    assert reads == []
    project.write("src/lib.py", "changed")
    assert project.states() == {"baseline/x": "stale (src/lib.py changed)"}
    project.write("src/lib.py", "src/lib.py")
    project.write("src/fit.py", "import other\n")
    project.write("src/other.py", "")
    why = "stale (src/fit.py changed; src/lib.py is no longer used; src/other.py is new)"
    assert project.states() == {"baseline/x": why}


def test_a_file_that_vanishes(project: Project, tmp_path: Path) -> None:
    output = project.spec(spec("cat src/fit.py")).output("x")
    sources = SourceFiles(project.root)
    assert set(sources.project_files(output)) == {"src/fit.py"}
    (project.root / "src/fit.py").unlink()
    assert set(SourceFiles(project.root).project_files(output)) == set()


def test_a_pattern_in_a_command(project: Project) -> None:
    project.spec(spec("cat data/*.csv > {output}/x", "Gaia DR3"))
    project.make()
    assert project.states() == {"baseline/x": "ok"}
    project.write("data/third.csv", "new")
    assert project.states() == {"baseline/x": "stale (data/third.csv is new)"}
    (project.root / "data/third.csv").unlink()
    assert project.states() == {"baseline/x": "ok"}
    project.write("data/raw.csv", "changed")
    assert project.states() == {"baseline/x": "stale (data/raw.csv changed)"}
    (project.root / "data/raw.csv").unlink()
    assert project.states() == {"baseline/x": "stale (data/raw.csv is gone)"}


def test_the_files_of_a_declared_pattern_are_the_inputs(project: Project) -> None:
    project.spec(spec("cat {inputs.raw} > {output}/x", "data/*.csv"))
    found = identify(project.output("x"), {}, None)
    assert set(found.files) == set()
    assert set(found.inputs["raw"].files) == {"data/raw.csv", "data/other.csv"}


def test_how_a_file_is_found(project: Project) -> None:
    settings = '[results]\ndepend_on = ["conf/*.yaml"]\n'
    project.write("lightcone.toml", settings)
    project.write("src/fit.py", "import sys\n\nimport lib\nopen(sys.argv[1])\nopen('tool')\n")
    project.write("more/fit.pl", "")
    project.write("Containerfile", "FROM scratch")
    text = spec("python src/fit.py; cat data/*.csv; perl more/fit.pl; ls src; sh $A/b.sh")
    text = text.replace("recipe:\n", "recipe:\n    container: Containerfile\n")
    output = project.spec(text).output("x")
    found = SourceFiles(project.root).found(output)
    assert {name: str(way) for name, way in found.files.items()} == {
        "src/fit.py": "command",
        "src/lib.py": "import in src/fit.py:3",
        "tool": "path in src/fit.py:5",
        "data/other.csv": "command data/*.csv",
        "more/fit.pl": "command",
        "conf/a.yaml": "depend_on",
        "Containerfile": "container",
    }
    assert set(found.not_followed) == {
        "open(sys.argv[1]) in src/fit.py:4: the path is computed",
        "the script in more/fit.pl: its language is not read",
        "src in the command: of a directory that is no input, no file counts",
        "$A/b.sh in the command: a variable in it is not set there",
    }
    # What is said is what counts.
    assert set(identify(output, {}, None).files) == set(found.files)


def test_a_project_behind_a_link(project: Project) -> None:
    link = project.root.parent / "link"
    os.symlink(project.root, link)
    assert named(project, f"python {link}/src/fit.py") == {"src/fit.py"}
