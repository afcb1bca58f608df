"""Whatever part of a session is killed during a run, nothing good is lost and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest

from tests.helpers import is_alive, wait_until
from tests.run.analyses import Analysis, output

# Takes an exclusive lock or says that another copy has it; asked to end, it takes its time.
_SOLO = """\
import fcntl, os, signal, sys, time
place, output = sys.argv[1:]
say = lambda name, text: open(os.path.join(place, name), "a").write(text + "\\n")
lock = open(os.path.join(place, "lock"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    say("overlaps", str(os.getpid()))
    sys.exit(7)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
say("pids", str(os.getpid()))
open(output, "w").write("half")
while not os.path.exists(os.path.join(place, "gate")):
    if asked and time.monotonic() > asked[0] + 2:
        sys.exit(1)
    time.sleep(0.02)
open(output, "w").write("whole")
"""
_ENDED = "The session lc-project-[0-9a-f]+ ended during the run"


@pytest.fixture
def kept(alone: Analysis) -> Analysis:
    """An analysis with two good outputs, one of which is being made again, and two to be made."""
    (alone.place / "solo.py").write_text(_SOLO)
    solo = f'{sys.executable} "$PLACE/solo.py" "$PLACE" {{output}}'
    alone.spec(
        output("a", "echo a > {output}"),
        output("again", f'if [ -n "$GOOD" ]; then echo good > {{output}}; else {solo}; fi'),
        output("slow", f"cat {{inputs.a}}; {solo}", ("a",)),
        output("after", "cat {inputs.slow} > {output}", ("slow",)),
    )
    alone.run("a", "again", env={"GOOD": "1"})
    alone.made()
    return alone


def _pids(analysis: Analysis) -> list[int]:
    try:
        return analysis.pids("pids")
    except FileNotFoundError:
        return []


def test_recipe_is_run_again_when_the_worker_is_killed_and_never_twice_at_once(
    kept: Analysis,
) -> None:
    run = kept.begin("after")
    wait_until(lambda: _pids(kept), "the recipe runs")
    os.kill(kept.box.programs()["worker"], signal.SIGKILL)
    wait_until(lambda: len(_pids(kept)) == 2, "it runs again")
    assert not is_alive(_pids(kept)[0])
    kept.open("gate")
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (0, b"")
    assert b"lc: baseline/slow: its worker was lost; trying again\n" in out
    assert not (kept.place / "overlaps").exists()
    assert kept.text("after") == "whole"
    assert kept.made() == ["slow", "slow", "after"]
    assert kept.leftovers() == []


def test_run_that_begins_while_the_worker_is_replaced_waits_for_it(kept: Analysis) -> None:
    kept.open("gate")
    with kept.box.without_worker():
        pass
    assert kept.summary()["made"] == 2


def test_recipe_that_kills_its_worker_is_given_up(alone: Analysis) -> None:
    alone.spec(
        output("bad", 'kill -9 "$(ps -o ppid= -p $$)"; sleep 60'),
        output("after", "cat {inputs.bad} > {output}", ("bad",)),
    )
    out = alone.run(check=1).stdout
    assert "baseline/bad: FAILED, its worker was lost, 3 times" in out
    assert "after: blocked by baseline/bad" in out
    assert alone.made() == ["bad"] * 3
    alone.spec(output("bad", "echo 1 > {output}"))
    alone.run()
    assert alone.leftovers() == []


@pytest.mark.parametrize(
    "part", ["scheduler", "tmux", "scheduler guard", "worker guard", "inner guard"]
)
def test_part_of_the_session_killed_during_a_run(kept: Analysis, part: str) -> None:
    run = kept.begin("-f", "again")
    wait_until(lambda: _pids(kept), "the recipe runs")
    programs = kept.box.programs()
    os.kill(programs[part], signal.SIGKILL)
    wait_until(lambda: run.poll() is not None or len(_pids(kept)) == 2, "it is over, or runs again")
    if run.poll() is None:
        # The worker was replaced, and the recipe waits for its gate again.
        kept.open("gate")
        out, errors = run.communicate(timeout=60)
        assert (run.returncode, errors) == (0, b"")
        assert kept.text("again") == "whole"
    else:
        out, errors = run.communicate(timeout=60)
        assert run.returncode == 3, (out, errors)
        assert re.fullmatch(
            f"lc: {_ENDED}[^\n]*: run again, and what was made is kept.\n", errors.decode()
        )
        assert b"FAILED" not in out
        wait_until(lambda: not kept.recipes(), "the recipe has ended")
        wait_until(lambda: not kept.box.processes(), "every process of the session has ended")
        kept.open("gate")
        told = kept.summary()
        assert (told["failed"], told["session"]) == (0, "spawned")
        assert kept.text("again") in ("good\n", "whole")
    kept.run()
    assert set(kept.states().values()) == {"ok"}
    assert kept.text("after") == "whole"
    assert kept.made().count("a") == 0
    assert not (kept.place / "overlaps").exists()
    assert kept.leftovers() == []


def test_session_stopped_during_a_run(kept: Analysis) -> None:
    run = kept.begin("-f", "again")
    wait_until(lambda: _pids(kept), "the recipe runs")
    kept.box.lc("session", "stop")
    out, errors = run.communicate(timeout=30)
    assert run.returncode == 3
    sentence = rf"lc: {_ENDED} \(stopped by 'lc session stop'\): [^\n]*\n"
    assert re.fullmatch(sentence, errors.decode())
    assert b"FAILED" not in out
    assert kept.text("again") == "good\n"
    assert kept.states()["again"] == "ok"


def test_killed_with_everything_the_previous_result_is_shown_as_interrupted_and_put_back(
    kept: Analysis,
) -> None:
    run = kept.begin("-f", "again")
    wait_until(lambda: _pids(kept), "the recipe runs")
    pids = [*kept.box.programs().values(), run.pid, *_pids(kept)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # so that none of them sees another one die
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not kept.box.processes(), "every process has ended")
    assert kept.states()["again"] == "interrupted"
    puts_back = "the next 'lc run' puts back what was there and makes it"
    assert kept.why("again") == f"{puts_back}; it keeps 4 B unfinished"
    assert kept.text("again") == "half"
    told = kept.events("again", env={"GOOD": "1"})
    assert told[-1]["failed"] == 0
    assert kept.text("again") == "good\n"
    assert kept.leftovers() == []
