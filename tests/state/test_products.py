"""What a recipe writes beside its output does not make it stale; what somebody edits does."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lightcone.state.dependencies import SourceFiles
from lightcone.state.manifest import Manifest, Observed, read_manifest
from lightcone.state.products import Products, products_left
from tests.projects import Project

OK = {"baseline/x": "ok"}
LOGGING = "sh src/fit.sh --conf=conf.yaml --log run.log {output}/x"


@pytest.fixture
def project(project: Project) -> Project:
    project.write("src/fit.sh", 'cat conf.yaml > "$4"\ndate +%N >> "$3"\n')
    project.write("conf.yaml", "a: 1\n")
    return declared(project, LOGGING)


def declared(project: Project, command: str) -> Project:
    return project.spec(f"outputs:\n- id: x\n  format: ''\n  recipe: {{command: '{command}'}}\n")


def recorded(project: Project) -> Manifest:
    found = read_manifest(project.output("x").state_dir)
    assert found is not None
    return found


def test_a_log_that_the_recipe_begins(project: Project) -> None:
    project.make()
    assert recorded(project).products == ("run.log",)
    assert set(recorded(project).provenance.files) == {"src/fit.sh", "conf.yaml"}
    assert project.states() == OK
    (project.root / "run.log").write_text("")
    assert project.states() == OK
    project.write("conf.yaml", "a: 2\n")
    assert project.states() == {"baseline/x": "stale (conf.yaml changed)"}
    assert project.make() == ["baseline/x"]
    assert recorded(project).products == ("run.log",)
    assert project.states() == OK
    (project.root / "run.log").unlink()
    assert project.states() == OK


def test_a_file_that_comes_later_is_no_product(project: Project) -> None:
    (project.root / "conf.yaml").unlink()
    project.write("src/fit.sh", 'echo > "$4"\n')
    project.make()
    assert recorded(project).products == ()
    project.write("conf.yaml", "a: 1\n")
    assert project.states() == {"baseline/x": "stale (conf.yaml is new)"}


def test_a_log_from_before(project: Project) -> None:
    project.write("run.log", "from a run by hand\n")
    project.make()
    found = recorded(project)
    assert (found.products, found.disturbed) == ((), ("run.log",))
    why = "run.log changed while it was made; remove it if the recipe writes it"
    assert project.states() == {"baseline/x": f"stale ({why})"}
    (project.root / "run.log").unlink()
    assert project.make() == ["baseline/x"]
    assert project.states() == OK


def test_an_edit_while_it_runs_is_noticed(project: Project) -> None:
    editing = "sed -i s/1/2/ conf.yaml\necho >> src/fit.sh\n"
    project.write("src/fit.sh", f'cat conf.yaml > "$4"\n{editing}')
    project.make()
    assert recorded(project).products == ()
    assert recorded(project).disturbed == ("src/fit.sh", "conf.yaml")
    assert project.states() == {
        "baseline/x": "stale (src/fit.sh changed while it was made; conf.yaml changed while it "
        "was made; remove it if the recipe writes it)"
    }


def test_an_edit_that_is_reverted_later_is_not_forgotten(project: Project) -> None:
    project.spec(
        "inputs:\n- {id: raw, source: raw/*.txt}\noutputs:\n- id: x\n  format: ''\n"
        "  inputs: [raw]\n  recipe: {command: 'sh src/fit.sh {inputs.raw} > {output}/x'}\n"
    )
    project.write("raw/a.txt", "1\n")
    project.write("src/fit.sh", "cat $*; echo '# edited' >> src/fit.sh; echo 2 > raw/b.txt\n")
    project.make()
    assert recorded(project).disturbed == ("src/fit.sh", "raw")
    project.write("src/fit.sh", "cat $*; echo '# edited' >> src/fit.sh; echo 2 > raw/b.txt\n")
    (project.root / "raw/b.txt").unlink()
    why = "src/fit.sh changed while it was made; input raw changed while it was made (raw/*.txt)"
    assert project.why("baseline/x") == why
    project.write("src/fit.sh", "cat $*\n")
    project.make()
    assert project.states() == OK


def test_what_a_text_shows_to_be_written_counts_until_the_recipe_writes_it(
    project: Project,
) -> None:
    for number, command in enumerate((
        "# by: echo > par.csv\n      cat par.csv > {output}",
        "cat par.csv > {output}  # old: > par.csv",
        "echo 'see > par.csv' > {output}; cat par.csv >> {output}",
        "cat <<X > {output}; cat par.csv >> {output}\n      get > par.csv\n      X",
        "[ -f par.csv ] || echo 0 > par.csv; cat par.csv > {output}",
        "if false; then echo > par.csv; fi; test -s par.csv || tee par.csv; cat par.csv > {output}",
        "sh src/usage.sh > {output}",
        "python src/config.py > {output}",
        "make -s -f src/rules.mk > {output}",
    )):  # fmt: skip
        project.write("src/usage.sh", 'u() { echo "usage: $0 > par.csv"; }\ncat par.csv\n')
        project.write(
            "src/config.py",
            "from pathlib import Path\np = Path('par.csv')\n"
            "p.write_text('x') if not p.is_file() else None\nprint(p.read_text())\n",
        )
        project.write("src/rules.mk", "all: ; @cat par.csv\nfetch: ; echo > par.csv\n")
        project.write("par.csv", f"a{number}\n")
        project.spec(
            f"outputs:\n- id: x\n  format: txt\n  recipe:\n    command: |\n      {command}\n"
        )
        project.make()
        assert project.states() == OK, command
        project.write("par.csv", f"b{number}\n")
        assert project.states() == {"baseline/x": "stale (par.csv changed)"}, command
        assert project.make() == ["baseline/x"]
        assert recorded(project).products == ()


def test_what_the_recipe_writes_over_is_its_product(project: Project) -> None:
    declared(project, "date +%N > run.log; cat run.log > {output}/x")
    project.write("run.log", "by hand")
    project.make()
    assert recorded(project).products == ("run.log",)
    assert project.states() == OK
    assert project.make() == []


def test_a_script_that_the_recipe_writes_is_its_product(project: Project) -> None:
    declared(project, "date +x=%N > new.sh; sh new.sh > {output}/x")
    project.make()
    assert recorded(project).products == ("new.sh",)
    assert project.states() == OK


def test_a_script_is_no_product(project: Project) -> None:
    declared(project, "sh src/make.sh src/new.py {output}/x && cat src/new.py")
    project.write("src/make.sh", 'echo pass > "$1"\necho > "$2"\n')
    project.make()
    assert recorded(project).products == ()
    assert project.states() == {"baseline/x": "stale (src/new.py is new)"}
    assert project.make() == ["baseline/x"]
    assert project.states() == OK


def test_a_log_of_a_recipe_that_failed(project: Project) -> None:
    project.write("src/fit.sh", 'date +%N >> "$3"\nexit 3\n')
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            project.make()
        assert project.states() == {"baseline/x": "failed (recipe failed with exit code 3)"}
    project.write("src/fit.sh", 'date +%N >> "$3"\necho > "$4"\n')
    assert project.make() == ["baseline/x"]
    assert recorded(project).products == ("run.log",)
    assert project.states() == OK


def test_a_recipe_that_is_declared_anew(project: Project) -> None:
    project.make()
    declared(project, LOGGING.replace("sh src", "sh -e src"))
    assert project.why("baseline/x") == "recipe changed; run.log is new"
    project.make()
    assert recorded(project).products == ("run.log",)
    assert recorded(project).disturbed == ()
    assert recorded(project).identity == recorded(project).provenance.identity
    assert project.states() == OK
    declared(project, "cat run.log > {output}/x")  # which reads what the other had written
    project.make()
    assert recorded(project).products == ()
    assert project.states() == OK
    project.write("run.log", "edited\n")
    assert project.states() == {"baseline/x": "stale (run.log changed)"}


def test_a_file_that_cannot_be_looked_at(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightcone.errors import SpecError
    from lightcone.state.dependencies import SourceFiles

    provenance = project.plan()["baseline/x"].provenance
    assert provenance is not None
    output = project.output("x")
    products = Products(output, provenance)
    project.execute(output)

    def refuse(*_: object) -> None:
        raise SpecError("unreadable")

    monkeypatch.setattr(SourceFiles, "file", refuse)
    written = project.record(output, provenance, products)
    assert written.provenance == provenance
    assert written.disturbed == ("src/fit.sh", "conf.yaml")


@pytest.mark.parametrize(
    "record", [{"products": ["run.log"]}, {"products": "run.log", "template": LOGGING}, {}]
)
def test_a_record_that_does_not_say_whose(project: Project, record: dict[str, object]) -> None:
    project.write("run.log", "x")
    project.fail(project.output("x"), exit_code=1, **record)
    provenance = project.plan()["baseline/x"].provenance
    assert provenance is not None
    assert "run.log" in provenance.files


def test_redirections_need_no_run(project: Project) -> None:
    declared(project, "sh src/fit.sh --conf=conf.yaml /dev/null {output}/x 2>> err.txt | tee log")
    Path(project.root / "log").write_text("before\n")
    project.make()
    assert set(recorded(project).provenance.files) == {"src/fit.sh", "conf.yaml"}
    assert project.states() == OK


GLOBBING = "sh src/glob.sh > {output}/x; cat work/*.part >> {output}/x"


def test_files_of_a_pattern_that_the_recipe_makes(project: Project) -> None:
    project.write("src/glob.sh", "mkdir -p work\ndate +%N > work/a.part\ndate +%N > work/b.part\n")
    declared(project, GLOBBING)
    assert project.make() == ["baseline/x"]
    assert recorded(project).products == ("work/a.part", "work/b.part")
    assert project.states() == OK
    project.write("src/glob.sh", "date +%N > work/a.part\ndate +%N > work/c.part\n")
    assert project.make() == ["baseline/x"]
    assert project.states() == OK


def test_a_file_that_joins_those_of_a_pattern_meanwhile(project: Project) -> None:
    project.write("work/a.part", "1\n")
    project.write("src/glob.sh", "echo 2 > work/b.part\n")
    declared(project, GLOBBING)
    assert project.make() == ["baseline/x"]
    assert project.states() == {"baseline/x": "stale (work/b.part is new)"}
    project.write("src/glob.sh", "true\n")
    assert project.make() == ["baseline/x"]
    assert project.states() == OK


def test_a_file_that_a_script_names_and_writes(project: Project) -> None:
    project.write("src/fit.py", "CACHE = 'cache.txt'\nprint(open(CACHE, 'a+').write('x'))\n")
    project.write("src/cached.sh", "[ -e cache.txt ] || date > cache.txt\ncat cache.txt\n")
    declared(project, "python3 src/fit.py > {output}/x; sh src/cached.sh >> {output}/x")
    assert project.make() == ["baseline/x"]
    assert project.states() == OK
    assert set(recorded(project).provenance.files) == {"src/fit.py", "src/cached.sh"}


def test_changes_while_a_failed_recipe_ran(project: Project) -> None:
    """No recipe goes on from what it wrote; its own products do not count."""
    project.make()
    project.write("seen.txt", "1\n")
    output = project.output("x")
    made = recorded(project).provenance
    stamp = SourceFiles(project.root).file("seen.txt", output)
    assert stamp is not None
    provenance = replace(made, observed=Observed({"seen.txt": stamp}))
    products = Products(output, provenance)
    assert products.take_tokens()["files"].keys() == {"src/fit.sh", "conf.yaml", "seen.txt"}
    project.write("run.log", "step 1\n")
    assert products.describe_disturbed(products.changed_sources()) == ""
    project.write("conf.yaml", "a: 2\n")
    project.write("seen.txt", "2\n")
    changed = products.describe_disturbed(products.changed_sources())
    assert changed == "seen.txt, conf.yaml changed after it was begun"


@pytest.mark.parametrize("found", [None, "x", {"x": 1}, [["x"]], [{}], [1, None]])
def test_a_damaged_journal_tells_no_products(project: Project, found: object) -> None:
    output = project.output("x")
    assert products_left(output, {"template": output.template, "found": found}) is None
