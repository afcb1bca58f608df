"""A recipe sees the environment, the directory and the umask of the run that wants it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A session that was started by a shell unlike that of any later caller."""
    box = Sandbox()
    try:
        box.start(env={"ONLY_THE_STARTER": "1", "FOO": "starter", "OMP_NUM_THREADS": "17"})
        yield box
    finally:
        box.close()


def test_environment_is_the_callers_of_this_very_run(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo ${{FOO-unset}} ${{ONLY_THE_STARTER-unset}} > {output}"))
    analysis.run("-f", "x", env={"FOO": "1"})
    assert analysis.text("x") == "1 unset\n"
    analysis.run("-f", "x", env={"FOO": "2", "ONLY_THE_STARTER": "mine"})
    assert analysis.text("x") == "2 mine\n"
    analysis.run("-f", "x")
    assert analysis.text("x") == "unset unset\n"


def test_runs_at_the_same_time_have_each_their_own_environment(analysis: Analysis) -> None:
    waits = "until [ -e $PLACE/a-begun -a -e $PLACE/b-begun ]; do sleep 0.05; done; "
    analysis.spec(
        *(
            output(name, f"touch $PLACE/{name}-begun; {waits} echo $FOO > {{output}}")
            for name in ("a", "b")
        )
    )
    runs = [analysis.begin(name, env={"FOO": f"of {name}"}) for name in ("a", "b")]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert (analysis.text("a"), analysis.text("b")) == ("of a\n", "of b\n")


def test_environment_does_not_matter_to_what_is_good(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo $FOO > {output}"))
    analysis.run(env={"FOO": "1"})
    assert analysis.summary(env={"FOO": "2"})["up_to_date"] == 1


def test_environment_of_any_size_and_of_any_bytes(analysis: Analysis) -> None:
    analysis.spec(output("x", 'printf %s "$ODD" > {output}; echo ${{#LARGE}} >> {output}'))
    odd = os.fsdecode(b"\xff\n'\" $HOME \xc3\xa9")
    analysis.run(env={"ODD": odd, "LARGE": "x" * 100_000})
    assert analysis.path("x").read_bytes() == os.fsencode(odd) + b"100000\n"


def test_recipe_runs_in_the_projects_directory(analysis: Analysis) -> None:
    analysis.spec(output("x", "pwd > {output}"))
    below = analysis.root / "below"
    below.mkdir()
    analysis.run(cwd=below)
    assert analysis.text("x") == f"{analysis.root}\n"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_umask_shows_in_what_the_recipe_writes(analysis: Analysis, umask: int) -> None:
    analysis.spec(output("tree", "echo 1 > {output}/file; mkdir {output}/sub", suffix=""))
    analysis.write("lightcone.toml", '[results]\nlayout = "directory"\n')
    run = analysis.begin(umask=umask)
    assert run.wait(timeout=60) == 0
    tree = analysis.path("tree", suffix="")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tree / "file", tree / "sub", tree)]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o777 & ~umask]


def test_threads_are_capped_to_the_recipes_cpus_unless_the_caller_says(analysis: Analysis) -> None:
    shown = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS > {output}"
    cpus = int(analysis.box.status()["workers"][0]["cpus"])
    analysis.spec(
        output("one", shown),
        output("half", shown, resources={"cpus": 0.5}),
        output("all", shown, resources={"cpus": cpus}),
    )
    analysis.run()
    assert analysis.text("one") == "1 1 1\n"
    assert analysis.text("half") == "1 1 1\n"
    assert analysis.text("all") == f"{cpus} {cpus} {cpus}\n"
    analysis.run("-f", "one", env={"OMP_NUM_THREADS": "5"})
    assert analysis.text("one") == "5 1 1\n"


def test_recipe_reads_nothing_and_leads_a_group_of_its_own(analysis: Analysis) -> None:
    analysis.spec(output("x", "cat > {output}; echo $$ $(ps -o pgid= -o sid= -p $$) >> {output}"))
    analysis.run()
    pid, group, session = analysis.text("x").split()
    assert pid == group == session


def test_settings_of_the_engine_in_the_callers_shell_reach_the_recipe_alone(
    analysis: Analysis,
) -> None:
    analysis.spec(output("x", "echo $DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION > {output}"))
    analysis.run(env={"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False"})
    assert analysis.text("x") == "False\n"
