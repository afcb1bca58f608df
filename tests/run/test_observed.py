"""Runs whose recipes are observed: what they are seen to use counts from then on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightcone.worker.observation import why_not_observed
from tests.helpers import Sandbox, is_alive, wait_until
from tests.needs import do_without
from tests.run.analyses import Analysis, interrupt, output
from tests.run.test_interrupts import _ENDLESS

_ON = "[run]\nobserve = true\ngrace = 60\n"
_OFF = "[run]\ngrace = 60\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    if why_not_observed(None):
        do_without(f"{why_not_observed(None)} (scripts/setup.sh strace installs it)")
    box = Sandbox()
    try:
        (box.project / "lightcone.toml").write_text(_ON)
        box.start()
        yield box
    finally:
        box.close()


@pytest.fixture
def observed(analysis: Analysis) -> Analysis:
    analysis.write("lightcone.toml", _ON)
    return analysis


def _provenance(analysis: Analysis, name: str) -> dict[str, Any]:
    table = json.loads((analysis.state(name) / "manifest.json").read_bytes())
    found: dict[str, Any] = table["parts"].get("observed", {})
    return found


_COMPUTED = 'c=$(printf co)nf; f=$c/params.txt; cat "$f"; [ ! -e $c/override ] || echo more; '


def test_file_that_no_command_shows_makes_stale(observed: Analysis) -> None:
    observed.write("conf/params.txt", "1\n")
    observed.spec(output("x", _COMPUTED + 'cat "$f" > {output}'))
    told = observed.run().stdout
    assert "baseline/x: reads conf/params.txt, which is no declared input\n" in told
    assert observed.states() == {"x": "ok"}
    observed.write("conf/params.txt", "2\n")
    assert observed.why("x") == "conf/params.txt changed"
    observed.run()
    assert observed.text("x") == "2\n"
    observed.write("conf/override", "")
    assert observed.why("x") == "conf/override is there now, which the recipe looked for"
    # What was observed counts, whether or not the recipe is observed again.
    observed.write("lightcone.toml", _OFF)
    observed.run()
    assert observed.states() == {"x": "ok"}
    observed.write("conf/params.txt", "3\n")
    assert observed.why("x") == "conf/params.txt changed"
    (observed.root / "conf/override").unlink()
    assert observed.why("x") == "conf/params.txt changed; conf/override is gone"


def test_listed_directory_counts_by_its_names(observed: Analysis) -> None:
    observed.write("parts/a", "")
    listing = 'd=$(printf pa)rts; python3 -c "import os, sys; print(os.listdir(sys.argv[1]))" $d'
    observed.spec(output("x", f"{listing} > {{output}}"))
    observed.run()
    for name in ("parts/.a.swp", "parts/__pycache__/x.pyc", "parts/a~", ".git/x", "other"):
        observed.write(name, "")
    assert observed.states() == {"x": "ok"}
    observed.write("parts/b", "")
    assert observed.why("x") == "parts/b is new in a directory that the recipe lists"
    observed.run()
    (observed.root / "parts/a").unlink()
    assert observed.why("x") == "parts/a is gone from a directory that the recipe lists"


def test_what_a_recipe_writes_itself_does_not_count(observed: Analysis) -> None:
    observed.write("notes/old", "old\n")
    observed.spec(
        output(
            "x",
            "[ -e notes/mark ] || touch notes/mark; cat notes/mark; ls notes; echo 1 >> notes/old; "
            "cat notes/old; echo 2 > notes/t; mv notes/t notes/u; cat notes/u > {output}",
        )
    )
    observed.run()
    assert observed.states() == {"x": "ok"}
    assert _provenance(observed, "x")["files"] == {}
    observed.write("notes/old", "edited\n")
    (observed.root / "notes/mark").unlink()
    assert observed.states() == {"x": "ok"}


def test_inputs_and_results_of_others(observed: Analysis) -> None:
    for name in ("in.csv", "d/1", "d/2", "g/a.csv"):
        observed.write(name, "1\n")
    inputs = [
        {"id": "file", "source": "in.csv"},
        {"id": "tree", "source": "d"},
        {"id": "glob", "source": "g/*.csv"},
    ]
    made = output(
        "y",
        "cat {inputs.file} {inputs.tree}/* {inputs.glob} > {output}; "
        'f=results/base$(printf line/x); cat "$f".txt >> {output}',
        ("file", "tree", "glob"),
    )
    observed.spec(output("x", "echo 1 > {output}"), made, inputs=inputs)
    observed.run("x")
    events = observed.events("y")
    (told,) = [each for each in events if each["event"] == "undeclared"]
    assert told == {
        "event": "undeclared",
        "id": "y",
        "universe": "baseline",
        "results": ["results/baseline/x.txt"],
        "data": [],
    }
    found = _provenance(observed, "y")
    assert list(found["files"]) == ["results/baseline/x.txt"]
    assert found["listings"] == {} and found["missing"] == []
    observed.write("g/other.txt", "")
    assert observed.states() == {"x": "ok", "y": "ok"}
    # In one run, the other output has a name; its new bytes are seen by the next run.
    observed.spec(output("x", "echo 2 > {output}"), made, inputs=inputs)
    observed.run("x")
    assert observed.why("y") == "results/baseline/x.txt changed"
    assert "baseline/y: reads baseline/x, which it does not declare\n" in observed.run().stdout
    assert observed.text("y").endswith("2\n")
    assert observed.states() == {"x": "ok", "y": "ok"}


def test_what_changes_while_a_recipe_runs_fails_it(observed: Analysis) -> None:
    observed.write("conf/params", "1\n")
    reading = (
        "d=$(printf co)nf; cat $d/params > {output}; [ ! -e $d/more ] || cat $d/more; "
        'touch "$PLACE/begun"; until [ -e "$PLACE/go" ]; do sleep 0.02; done'
    )
    observed.spec(output("x", reading), output("y", "cat {inputs.x} > {output}", ("x",)))
    run = observed.begin()
    observed.began("begun")
    observed.write("conf/params", "2\n")
    observed.write("conf/more", "3\n")
    observed.open("go")
    told = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 1
    why = "conf/more changed while it was made; conf/params changed while it was made"
    assert f"baseline/x: FAILED, {why}\n" in told
    assert "baseline/y: blocked" in told
    assert observed.why("x") == why
    observed.write("conf/params", "1\n")
    (observed.root / "conf/more").unlink()
    assert observed.why("x") == why
    observed.run()
    assert observed.text("y") == "1\n"
    assert observed.states() == {"x": "ok", "y": "ok"}
    # Also where it is not observed this time.
    for name in ("begun", "go"):
        (observed.place / name).unlink()
    observed.write("lightcone.toml", _OFF)
    run = observed.begin("-f", "x")
    observed.began("begun")
    observed.write("conf/params", "2\n")
    observed.open("go")
    run.communicate(timeout=60)
    assert run.returncode == 1
    assert observed.why("x") == "conf/params changed while it was made"


def test_recipe_that_changes_the_status_of_what_it_reads(observed: Analysis) -> None:
    for name in ("data/a", "data/b", "data/c"):
        observed.write(name, "1\n")
    script = "import os, sys; f = sys.argv[1]; open(f).read(); os.utime(f)"
    observed.spec(
        output(
            "x",
            f'd=$(printf da)ta; python3 -c "{script}" $d/a; chmod 600 $d/b; cat $d/b > {{output}}; '
            "mv $d/c $d/q; cat $d/q; mv $d/q $d/c; ls $d",
        )
    )
    observed.run()
    assert observed.states() == {"x": "ok"}
    assert list(_provenance(observed, "x")["files"]) == ["data/a", "data/b", "data/c"]


def test_once_and_for_one_output(observed: Analysis) -> None:
    observed.write("lightcone.toml", _OFF + "[outputs.y]\nobserve = false\n")
    observed.write("par", "1\n")
    command = "f=$(printf pa)r; cat $f > {output}"
    observed.spec(output("x", command), output("y", command))
    observed.run()
    assert not _provenance(observed, "x")
    observed.run("--observe", "-f")
    assert list(_provenance(observed, "x")["files"]) == ["par"]
    assert not _provenance(observed, "y")
    observed.write("lightcone.toml", _OFF + "[outputs.z]\nobserve = false\n")
    error = observed.run(check=2).stderr
    assert "there is no output 'z': did you mean" in error or "no output 'z': correct" in error


def test_without_strace_it_says_so_once(observed: Analysis) -> None:
    observed.spec(output("x", "echo > {output}"), output("y", "echo > {output}"))
    programs = observed.place / "bin"
    programs.mkdir()
    for name in ("bash", "echo", "sh"):
        (programs / name).symlink_to(f"/bin/{name}")
    told = observed.run(env={"PATH": str(programs)})
    lines = [line for line in told.stdout.splitlines() if "not observed" in line]
    assert len(lines) == 1 and "strace is not installed" in lines[0]
    assert observed.states() == {"x": "ok", "y": "ok"}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_run_that_goes_away_ends_what_is_observed(observed: Analysis, signum: int) -> None:
    observed.spec(output("x", _ENDLESS))
    program = observed.begin()
    observed.began("begun")
    pids = observed.pids("pids")
    tracers = {_tracer(pid) for pid in pids}
    assert len(tracers) == 1 and tracers != {0}
    os.kill(program.pid, signum)
    wait_until(lambda: not any(map(is_alive, [*pids, *tracers])), "recipe and strace have ended")
    program.communicate(timeout=30)
    wait_until(lambda: observed.states() == {"x": "interrupted"}, "it is told of")
    assert observed.leftovers() == []


def test_second_interrupt_ends_a_deaf_recipe(observed: Analysis) -> None:
    observed.spec(
        output(
            "x",
            "trap : TERM; echo $$ > $PLACE/pids; touch $PLACE/begun; "
            "while :; do sleep 0.1 || :; done",
        )
    )
    program = observed.begin()
    observed.began("begun")
    (pid,) = observed.pids("pids")
    tracer = _tracer(pid)
    interrupt(program)
    assert program.stdout is not None
    for line in iter(program.stdout.readline, b""):
        if b"interrupt again" in line:
            break
    assert is_alive(pid)
    interrupt(program)
    wait_until(lambda: not is_alive(pid) and not is_alive(tracer), "recipe and strace have ended")
    program.communicate(timeout=30)
    assert program.returncode == 130


def test_time_limit_and_exit_code_are_the_recipe_s(observed: Analysis) -> None:
    observed.spec(
        output("x", "exec sleep 60", resources={"time_limit": "1s"}),
        output("y", "exit 7"),
        output("z", "kill -USR1 $$"),
    )
    told = observed.run(check=1).stdout
    assert "baseline/x: FAILED, it was ended at its time limit of 1.0 s\n" in told
    assert "baseline/y: FAILED, exit code 7\n" in told
    assert "baseline/z: FAILED, it was ended by signal 10 (SIGUSR1)\n" in told


def test_recipe_whose_strace_is_killed_is_not_good(observed: Analysis) -> None:
    observed.spec(
        output(
            "x",
            "echo $$ > $PLACE/pids; touch $PLACE/begun; "
            "until [ -e $PLACE/go ]; do sleep 0.02; done || :; echo > {output}",
        )
    )
    program = observed.begin()
    observed.began("begun")
    (pid,) = observed.pids("pids")
    os.kill(_tracer(pid), signal.SIGKILL)
    observed.open("go")
    program.communicate(timeout=60)
    assert program.returncode == 1
    assert observed.why("x").startswith("recipe failed")
    log = (observed.state("x") / "log.txt").read_text()
    assert "# failed: strace, which watched the recipe, was ended before it: run again" in log


def _tracer(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))


def test_two_runs_make_an_observed_output_once(observed: Analysis) -> None:
    observed.write("par", "1\n")
    observed.spec(
        output(
            "x",
            'f=$(printf pa)r; cat $f > {output}; touch "$PLACE/begun"; '
            'until [ -e "$PLACE/go" ]; do sleep 0.02; done',
        )
    )
    first = observed.begin()
    observed.began("begun")
    second = observed.begin()
    assert second.stdout is not None
    for line in iter(second.stdout.readline, b""):
        if b"waiting for" in line:
            break
    observed.open("go")
    assert [each.wait(60) for each in (first, second)] == [0, 0]
    assert observed.made() == ["x"]
