"""Partial work: how much there is, what goes on from it, and that more is never lost to less."""

from __future__ import annotations

import json
import os
import signal

from tests.helpers import wait_until
from tests.run.analyses import Analysis, interrupt, output

# Goes on from what is there, a step at a time; $STEPS of them, and it waits.
_STEPS = """\
for step in $(seq "$STEPS"); do echo step >> {output}; done
touch "$PLACE/begun"
until [ -e "$PLACE/gate" ]; do sleep 0.05; done
"""
# As a program does that is given the name of its log.
_LOGS = "sh -c 'echo begun >> \"$1\"' sh fit.log; " + _STEPS


def _interrupted(analysis: Analysis, steps: int, *arguments: str) -> list[str]:
    """A run that is interrupted after some steps; what it printed."""
    (analysis.place / "begun").unlink(missing_ok=True)
    run = analysis.begin(*arguments, env={"STEPS": str(steps)})
    analysis.began("begun")
    interrupt(run)
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, b"")
    return out.decode().splitlines()


def _status(analysis: Analysis) -> str:
    return analysis.box.lc("status").stdout.splitlines()[0]


def test_partial_work_is_told_of_and_gone_on_with(analysis: Analysis) -> None:
    analysis.spec(output("x", _STEPS))
    told = _interrupted(analysis, 26)
    goes_on = "130 B of partial work, from which 'lc run --resume' goes on"
    assert told[-3:-1] == ["baseline/x: interrupted", f"  kept: {goes_on}"]
    assert told[-1].endswith("; run again with --resume to go on from the partial work")
    assert _status(analysis) == f"interrupted baseline/x  it was interrupted; {goes_on}"
    (row,) = json.loads(analysis.box.lc("status", "--json").stdout)["outputs"]
    assert (row["partial"], row["resumable"], row["why"]) == (130, True, "it was interrupted")
    assert analysis.box.lc("log", "x").stdout.endswith(f"# kept: {goes_on}\n")
    # A run without it begins anew, and says so; it does not replace more by less.
    told = _interrupted(analysis, 1)
    keeps = "begins anew, and keeps 130 B of partial work, from which '--resume' goes on"
    assert f"lc: baseline/x: {keeps}" in told
    assert (
        "lc: baseline/x: 5 B of partial work is less than the 130 B before it; both are kept"
    ) in told
    assert f"# {keeps}\n" in analysis.box.lc("log", "x").stdout
    assert (analysis.state("x") / "partial").read_text() == "step\n" * 26
    analysis.open("gate")
    told = analysis.run("--resume", env={"STEPS": "1"}).stdout.splitlines()
    assert "lc: baseline/x: goes on from 130 B of partial work" in told
    assert "lc: baseline/x: 5 B of older partial work was removed" in told
    assert analysis.text("x") == "step\n" * 27
    assert _status(analysis) == "ok          baseline/x"


def test_why_partial_work_is_not_gone_on_with(analysis: Analysis) -> None:
    analysis.spec(output("x", _STEPS))
    _interrupted(analysis, 2)
    analysis.spec(output("x", "true; " + _STEPS))
    analysis.open("gate")
    does_not = "does not go on: the recipe's command has changed since"
    assert _status(analysis).endswith(
        f"10 B of partial work, from which 'lc run --resume' {does_not}"
    )
    told = analysis.run("--resume", env={"STEPS": "1"}).stdout
    anew = f"begins anew, and keeps 10 B of partial work, from which it {does_not}"
    assert f"lc: baseline/x: {anew}\n" in told
    assert analysis.text("x") == "step\n"


def test_clean_says_how_much_it_removes(analysis: Analysis) -> None:
    analysis.spec(output("x", _STEPS))
    _interrupted(analysis, 3)
    _interrupted(analysis, 2)
    assert analysis.box.lc("clean").stdout == (
        "baseline/x: removed 25 B of partial work\nfreed 25 B\n"
    )
    assert analysis.box.lc("clean").stdout == "freed 0 B\n"
    assert "partial" not in _status(analysis)


def test_failed_recipe_says_what_is_kept(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo half > {output}; exit 3"))
    told = analysis.run(check=1).stdout
    assert "  kept: 5 B of partial work, from which 'lc run --resume' goes on\n" in told
    (failed,) = (each for each in analysis.events(check=1) if each["event"] == "failed")
    assert failed["kept"] == "5 B of partial work, from which 'lc run --resume' goes on"


def test_rule_for_an_output(analysis: Analysis) -> None:
    analysis.write("lightcone.toml", "[outputs.x]\nresume = true\n")
    try:
        analysis.spec(output("x", _STEPS), output("y", _STEPS))
        told = _interrupted(analysis, 2, "x")
        assert told[-2] == "  kept: 10 B of partial work, from which the next 'lc run' goes on"
        assert told[-1].endswith("; run again to go on from the partial work")
        assert _status(analysis).endswith("from which the next 'lc run' goes on")
        analysis.open("gate")
        told = analysis.run(env={"STEPS": "1"}).stdout.splitlines()
        assert "lc: baseline/x: goes on from 10 B of partial work" in told
        assert (analysis.text("x"), analysis.text("y")) == ("step\n" * 3, "step\n")
    finally:
        (analysis.root / "lightcone.toml").unlink()


def _copies(analysis: Analysis) -> None:
    analysis.write("data/in.txt", "old\n")
    command = _STEPS.replace("echo step", "cat data/in.txt")
    raw = {"id": "raw", "type": "data", "source": "data/in.txt"}
    analysis.spec(output("x", command, ("raw",)), inputs=[raw])


def test_work_of_an_input_that_changed_meanwhile_is_not_gone_on_with(analysis: Analysis) -> None:
    """Though it is as it was by the next run, what is there was partly made of another."""
    _copies(analysis)
    run = analysis.begin(env={"STEPS": "2"})
    analysis.began("begun")
    analysis.write("data/in.txt", "new\n")
    interrupt(run)
    told = run.communicate(timeout=60)[0].decode().splitlines()
    does_not = "does not go on: input raw (data/in.txt) changed after it was begun"
    work = "8 B of partial work, from which 'lc run --resume' "
    assert told[-2] == f"  kept: {work}{does_not}"
    assert told[-1].endswith("; run again to go on")
    assert _status(analysis).endswith(work + does_not)
    analysis.write("data/in.txt", "old\n")
    assert _status(analysis).endswith(work + does_not)
    assert analysis.box.lc("log", "x").stdout.endswith(f"# kept: {work}{does_not}\n")
    analysis.open("gate")
    out = analysis.run("--resume", env={"STEPS": "1"}).stdout
    begins = "begins anew, and keeps 8 B of partial work, from which it "
    assert f"lc: baseline/x: {begins}{does_not}\n" in out
    assert analysis.text("x") == "old\n"


def test_work_of_a_killed_recipe_whose_input_changed_is_not_gone_on_with(alone: Analysis) -> None:
    _copies(alone)
    run = alone.begin(env={"STEPS": "2"})
    alone.began("begun")
    alone.write("data/in.txt", "new\n")
    os.kill(alone.box.programs()["worker"], signal.SIGKILL)
    run.terminate()
    run.communicate(timeout=60)
    alone.write("data/in.txt", "old\n")
    alone.open("gate")
    out = alone.run("--resume", env={"STEPS": "1"}).stdout
    assert "does not go on: input raw (data/in.txt) changed after it was begun\n" in out
    assert alone.text("x") == "old\n"


def test_product_of_a_recipe_that_was_killed_is_no_new_source(alone: Analysis) -> None:
    """A log, say, that its command names: it would be another identity's partial work."""
    alone.spec(output("x", _LOGS))
    run = alone.begin(env={"STEPS": "26"})
    alone.began("begun")
    alone.kill_all(run)
    assert (alone.root / "fit.log").exists()
    state, why = alone.states()["x"], alone.why("x")
    assert (state, "it keeps 130 B unfinished" in why) == ("interrupted", True)
    assert "130 B of partial work" not in _status(alone)
    alone.open("gate")
    told = alone.run("--resume", env={"STEPS": "1"}).stdout.splitlines()
    assert "lc: baseline/x: goes on from 130 B of partial work" in told
    assert alone.text("x") == "step\n" * 27
    assert alone.states() == {"x": "ok"}
    alone.write("fit.log", "another text\n")
    assert alone.states() == {"x": "ok"}, "it stays a product"


def test_state_after_a_kill_is_told_though_nothing_is_left(alone: Analysis) -> None:
    alone.spec(output("x", _LOGS))
    run = alone.begin(env={"STEPS": "0"})
    alone.began("begun")
    alone.kill_all(run)
    assert alone.box.lc("clean").stdout == "freed 0 B\n"
    assert alone.states() == {"x": "interrupted"}
    assert alone.why("x").endswith("was killed before it was done")


def test_product_of_a_recipe_whose_worker_was_killed_is_no_new_source(alone: Analysis) -> None:
    """In the same run, which tries once more."""
    alone.write("lightcone.toml", "[outputs.x]\nresume = true\n")
    alone.spec(output("x", _LOGS))
    run = alone.begin(env={"STEPS": "3"})
    alone.began("begun")
    os.kill(alone.box.programs()["worker"], signal.SIGKILL)
    wait_until(lambda: len(alone.made()) > 0 or run.poll() is not None, "it began")
    wait_until(lambda: len(alone.made()) > 0 or run.poll() is not None, "it began again")
    alone.open("gate")
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (0, b""), out
    assert b"lc: baseline/x: goes on from 15 B of partial work\n" in out
    assert alone.text("x") == "step\n" * 6
    assert alone.states() == {"x": "ok"}
