"""A recipe ends when no run wants it any more, and what was there before is there again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from libtmux import Server

from tests.helpers import Sandbox, is_alive, is_empty, is_full, unread_pipe, wait_until
from tests.run.analyses import Analysis, interrupt, output
from tests.terminal import Terminal

# Longer than a test may take: what ends sooner was not killed at the end of its grace.
_GRACE = 60.0
_SOON = 40.0
# Three processes that a recipe may leave: its own, one in its group, one that left the group.
_PROCESSES = """\
echo $$ >> "$PLACE/pids"
setsid sh -c 'echo $$ >> "$PLACE/pids"; while :; do sleep 0.1; done' &
sh -c 'echo $$ >> "$PLACE/pids"; while :; do sleep 0.1; done' &
while [ $(wc -l < "$PLACE/pids") != 3 ]; do sleep 0.02; done
"""
_ENDLESS = _PROCESSES + "echo half > {output}; touch $PLACE/begun; while :; do sleep 0.1; done"
_DEAF = """\
trap "echo heard" TERM
echo half > {output}
echo $$ > "$PLACE/pids"
touch "$PLACE/begun"
while :; do sleep 0.1 || true; done
"""
_GOOD_FIRST = 'if [ -n "$GOOD" ]; then echo good > {output}; exit; fi; '


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A session with a grace that no test outlasts."""
    box = Sandbox()
    try:
        (box.project / "lightcone.toml").write_text(f"[run]\ngrace = {_GRACE}\n")
        box.start()
        yield box
    finally:
        box.close()


@pytest.fixture
def patient(analysis: Analysis) -> Analysis:
    """An analysis with the grace of its session."""
    analysis.write("lightcone.toml", f"[run]\ngrace = {_GRACE}\n")
    return analysis


def _begin(analysis: Analysis, *arguments: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A run whose recipe has begun, and the processes of the recipe."""
    program = analysis.begin(*arguments)
    analysis.began("begun")
    return program, analysis.pids("pids")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_ends_every_process_of_a_recipe(patient: Analysis, signum: int) -> None:
    patient.spec(
        output("x", _GOOD_FIRST + _ENDLESS), output("after", "cat {inputs.x} > {output}", ("x",))
    )
    patient.run("x", env={"GOOD": "1"})
    program, pids = _begin(patient, "-f", "x")
    assert len(pids) == 3
    assert patient.states()["x"] == "running"
    begun = time.monotonic()
    program.send_signal(signum)
    wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
    assert time.monotonic() - begun < _SOON
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert b"lc: asked 1 recipe to end; interrupt again to end at once\n" in out
    assert b"baseline/x: interrupted\n" in out
    assert out.endswith(b"run again with --resume to go on from the partial work\n")
    assert patient.text("x") == "good\n"
    assert patient.states() == {"x": "ok", "after": "missing"}
    assert (patient.state("x") / "partial").read_text() == "half\n"
    assert patient.leftovers() == []
    patient.run()
    assert patient.text("after") == "good\n"


def test_terminal_that_goes_away_interrupts(patient: Analysis, outer: Server) -> None:
    patient.spec(output("x", _ENDLESS))
    terminal = Terminal(patient.box, outer)
    try:
        terminal.run("run")
        patient.began("begun")
        pids = patient.pids("pids")
    finally:
        terminal.close()
    wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
    wait_until(lambda: patient.states() == {"x": "interrupted"}, "it is told of")
    assert patient.leftovers() == []


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_before_does_not_interrupt(analysis: Analysis, signum: int) -> None:
    analysis.spec(
        output("x", "touch $PLACE/begun; until [ -e $PLACE/go ]; do sleep 0.02; done; : > {output}")
    )
    # As nohup does, and a shell for what it runs in the background of a script.
    run = analysis.begin(preexec_fn=lambda: signal.signal(signum, signal.SIG_IGN))
    analysis.began("begun")
    run.send_signal(signum)
    analysis.open("go")
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (0, b""), out
    assert analysis.states() == {"x": "ok"}


def test_interrupted_recipe_that_was_never_made(patient: Analysis) -> None:
    patient.spec(output("x", _ENDLESS))
    program, _ = _begin(patient)
    interrupt(program)
    program.communicate(timeout=30)
    assert not patient.path("x").exists()
    assert patient.states() == {"x": "interrupted"}
    assert patient.why("x") == "it was interrupted"


def test_previous_result_of_a_changed_recipe_is_back_after_an_interrupt(patient: Analysis) -> None:
    patient.spec(output("x", "echo good > {output}"))
    patient.run()
    patient.spec(output("x", _ENDLESS))
    program, _ = _begin(patient)
    interrupt(program)
    program.communicate(timeout=30)
    assert patient.text("x") == "good\n"
    assert patient.states() == {"x": "interrupted"}
    patient.spec(output("x", "echo good > {output}"))
    assert patient.states() == {"x": "ok"}


def test_recipe_ends_as_it_wishes(patient: Analysis) -> None:
    trap = "trap 'echo saved > $PLACE/saved; exit 0' TERM; "
    patient.spec(output("x", trap + _ENDLESS))
    program, pids = _begin(patient)
    interrupt(program)
    out, _ = program.communicate(timeout=30)
    assert program.returncode == 130
    assert (patient.place / "saved").read_text() == "saved\n"
    assert not any(map(is_alive, pids))
    assert b"interrupted" in out


def test_second_interrupt_ends_a_recipe_at_once(patient: Analysis) -> None:
    patient.spec(output("x", _DEAF))
    program, pids = _begin(patient)
    begun = time.monotonic()
    interrupt(program)
    assert program.stdout is not None
    heard = iter(program.stdout.readline, b"")
    assert any(line == b"baseline/x | heard\n" for line in heard)
    assert is_alive(pids[0])
    interrupt(program)
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert b"lc: ending 1 recipe at once\n" in out
    assert not any(map(is_alive, pids))
    assert time.monotonic() - begun < _SOON


def test_second_interrupt_does_not_wait_for_a_cluster_that_does_not_answer(alone: Analysis) -> None:
    alone.write("lightcone.toml", f"[run]\ngrace = {_GRACE}\n")
    alone.spec(output("x", _ENDLESS))
    program, pids = _begin(alone)
    scheduler = alone.box.programs()["scheduler"]
    assert program.stdout is not None
    assert b"baseline/x: started\n" in iter(program.stdout.readline, b"")
    os.kill(scheduler, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        interrupt(program)
        asked = b"lc: asked 1 recipe to end; interrupt again to end at once\n"
        assert asked in iter(program.stdout.readline, b"")
        interrupt(program)
        out, errors = program.communicate(timeout=_GRACE)
        assert time.monotonic() - begun < _GRACE / 2
    finally:
        os.kill(scheduler, signal.SIGCONT)
    assert (program.returncode, errors) == (130, b"")
    assert b"lc: the cluster does not answer: the recipes end when it does\n" in out
    wait_until(lambda: alone.states() == {"x": "interrupted"}, "it is recorded")
    assert not any(map(is_alive, pids))
    assert alone.leftovers() == []


def test_recipe_that_ignores_the_interrupt_is_killed_after_its_grace(alone: Analysis) -> None:
    # Long enough for it to say that it has heard it.
    alone.write("lightcone.toml", "[run]\ngrace = 4\n")
    alone.spec(output("x", _DEAF))
    program, pids = _begin(alone)
    interrupt(program)
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert b"baseline/x | heard\n" in out
    assert not is_alive(pids[0])
    assert alone.box.status()["state"] == "alive"


_DETACHED_AND_DEAF = """\
setsid sh -c 'trap "" TERM; echo $$ >> "$PLACE/pids"; while :; do sleep 0.1 || true; done' &
until [ -e "$PLACE/pids" ]; do sleep 0.02; done
touch "$PLACE/begun"
wait
"""


def test_detached_process_that_ignores_the_interrupt_is_gone_before_the_run_leaves(
    alone: Analysis,
) -> None:
    alone.write("lightcone.toml", "[run]\ngrace = 1\n")
    alone.spec(output("x", _DETACHED_AND_DEAF))
    program, pids = _begin(alone)
    interrupt(program)
    _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert not is_alive(pids[0])
    assert alone.states() == {"x": "interrupted"}


@pytest.mark.parametrize("detached", [True, False])
def test_second_interrupt_ends_what_ignores_the_first_though_the_recipe_has_ended(
    patient: Analysis, detached: bool
) -> None:
    deaf = _DETACHED_AND_DEAF if detached else _DETACHED_AND_DEAF.replace("setsid ", "")
    patient.spec(output("x", "echo $$ > $PLACE/recipe; " + deaf))
    program, pids = _begin(patient)
    begun = time.monotonic()
    interrupt(program)
    wait_until(lambda: not any(map(is_alive, patient.pids("recipe"))), "the recipe has ended")
    assert is_alive(pids[0])
    interrupt(program)
    _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert not is_alive(pids[0])
    assert time.monotonic() - begun < _SOON


def test_killed_run_takes_every_process_of_its_recipe_with_it(patient: Analysis) -> None:
    patient.spec(output("x", _GOOD_FIRST + _ENDLESS))
    patient.run(env={"GOOD": "1"})
    program, pids = _begin(patient, "-f")
    begun = time.monotonic()
    program.kill()
    wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
    assert time.monotonic() - begun < _SOON
    wait_until(lambda: patient.states() == {"x": "ok"}, "the previous result is back")
    assert patient.text("x") == "good\n"
    assert patient.summary()["up_to_date"] == 1
    patient.run("-f", env={"GOOD": "1"})


def test_killed_run_takes_a_recipe_with_it_that_ignores_being_asked(alone: Analysis) -> None:
    alone.write("lightcone.toml", "[run]\ngrace = 1\n")
    alone.spec(output("x", _DEAF))
    program, pids = _begin(alone)
    program.kill()
    wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
    wait_until(lambda: alone.states() == {"x": "interrupted"}, "that is recorded")


def test_interrupt_of_what_waits_for_its_turn(patient: Analysis) -> None:
    cpus = patient.box.status()["workers"][0]["cpus"]
    patient.spec(
        output("first", _ENDLESS, resources={"cpus": cpus}),
        output("second", "echo 1 > {output}", resources={"cpus": cpus}),
    )
    program, _ = _begin(patient)
    interrupt(program)
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert patient.made() == ["first"]
    assert b"1 interrupted in" in out
    assert patient.states() == {"first": "interrupted", "second": "missing"}


def test_interrupt_of_a_run_that_waits_for_another_one(patient: Analysis) -> None:
    patient.spec(output("x", _ENDLESS))
    first, pids = _begin(patient)
    second = patient.begin("--json")
    assert second.stdout is not None
    events = (json.loads(line)["event"] for line in iter(second.stdout.readline, b""))
    assert any(event == "waiting" for event in events)
    interrupt(second)
    out, errors = second.communicate(timeout=30)
    assert (second.returncode, errors) == (130, b"")
    assert json.loads(out.splitlines()[-1])["event"] == "summary"
    assert all(map(is_alive, pids))
    assert first.poll() is None


def test_interrupt_leaves_the_recipes_of_others_alone(patient: Analysis) -> None:
    waits = 'touch "$PLACE/other"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '
    patient.spec(output("x", _ENDLESS), output("y", waits + "echo 1 > {output}"))
    other = patient.begin("y")
    patient.began("other")
    program, _ = _begin(patient, "x")
    interrupt(program)
    assert program.wait(timeout=30) == 130
    patient.open("gate")
    assert other.wait(timeout=30) == 0
    assert patient.states() == {"x": "interrupted", "y": "ok"}


def test_interrupt_while_the_session_starts(alone: Analysis) -> None:
    alone.spec(output("x", "echo 1 > {output}"))
    env, gate = alone.box.held_up("worker")
    program = alone.begin(env=env)
    sessions = alone.box.scratch / ".lightcone" / "sessions"
    wait_until(lambda: list(sessions.glob("*/spawn.json")), "it is starting")
    interrupt(program)
    _, errors = program.communicate(timeout=60)
    gate.touch()
    assert (program.returncode, errors.strip()) == (130, b"lc: interrupted")
    alone.run()
    assert alone.states() == {"x": "ok"}


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_reader_that_leaves_ends_the_run(patient: Analysis, options: tuple[str, ...]) -> None:
    talks = _PROCESSES + "while :; do echo something; sleep 0.02; done"
    patient.spec(output("x", talks))
    program = patient.begin(*options)
    assert program.stdout is not None
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr is not None
    errors = program.stderr.read()
    assert errors == b""
    assert program.wait(timeout=30) != 0
    program.stdout = None
    wait_until(lambda: not patient.recipes(), "the recipe has ended")


_CHATTY = "while :; do echo something; done"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_is_heard_while_nobody_reads_what_is_printed(
    patient: Analysis, signum: int
) -> None:
    patient.spec(output("x", f"{_PROCESSES} touch $PLACE/begun; {_CHATTY}"))
    with unread_pipe() as (reader, writer):
        program = patient.begin(stdout=writer)
        patient.began("begun")
        pids = patient.pids("pids")
        wait_until(lambda: is_full(writer), "the run waits for its reader")
        begun = time.monotonic()
        program.send_signal(signum)
        wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
        assert time.monotonic() - begun < _SOON
        assert program.poll() is None
        out = b""

        def is_over() -> bool:
            nonlocal out
            out += b"" if is_empty(reader) else os.read(reader, 1 << 16)
            return program.poll() is not None and is_empty(reader)

        wait_until(is_over, "the run has told its reader everything")
    assert program.stderr is not None
    assert (program.returncode, program.stderr.read()) == (130, b"")
    assert b"lc: asked 1 recipe to end; interrupt again to end at once\n" in out
    assert out.endswith(b"run again to go on\n")
    assert patient.states() == {"x": "interrupted"}


def test_second_interrupt_leaves_though_nobody_reads_what_is_printed(patient: Analysis) -> None:
    deaf = 'trap "touch $PLACE/heard" TERM; echo $$ > $PLACE/pids; touch $PLACE/begun; '
    patient.spec(output("x", _GOOD_FIRST + deaf + _CHATTY))
    patient.run(env={"GOOD": "1"})
    with unread_pipe() as (_, writer):
        program = patient.begin("-f", stdout=writer)
        patient.began("begun")
        pids = patient.pids("pids")
        wait_until(lambda: is_full(writer), "the run waits for its reader")
        begun = time.monotonic()
        interrupt(program)
        wait_until((patient.place / "heard").exists, "the recipe has been asked to end")
        assert program.poll() is None
        interrupt(program)
        assert program.wait(timeout=30) == 130
        wait_until(lambda: not any(map(is_alive, pids)), "the recipe has ended")
        assert time.monotonic() - begun < _SOON
    assert program.stderr is not None
    assert program.stderr.read() == b""
    wait_until(lambda: patient.states() == {"x": "ok"}, "the previous result is back")
    assert patient.leftovers() == []
