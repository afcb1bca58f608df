"""Runs at the same time in one project: each output is made once, by one of them."""

from __future__ import annotations

import json
import signal
from collections import Counter

from tests.helpers import wait_until
from tests.run.analyses import Analysis, output, succeed, told_of_waiting

_WAITS = 'touch "$PLACE/begun"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '


def test_sixteen_at_the_same_instant_make_each_output_once(alone: Analysis) -> None:
    alone.spec(
        output("a", "sleep 0.3; echo a > {output}"),
        *(
            output(f"b{n}", f"cat {{inputs.a}} > {{output}}; echo {n} >> {{output}}", ("a",))
            for n in range(4)
        ),
        output("c", "cat {inputs} > {output}", ("b0", "b1", "b2", "b3")),
    )
    runs = [alone.begin("--json") for _ in range(16)]
    told = [run.communicate(timeout=100) for run in runs]
    assert [run.returncode for run in runs] == [0] * 16, told
    assert [errors for _, errors in told] == [b""] * 16
    assert Counter(alone.made()) == dict.fromkeys(("a", "b0", "b1", "b2", "b3", "c"), 1)
    summaries = [json.loads(out.splitlines()[-1]) for out, _ in told]
    assert sum(each["made"] for each in summaries) == 6
    assert all(each["made"] + each["up_to_date"] == 6 for each in summaries)
    how = Counter(each["session"] for each in summaries)
    assert how["spawned"] == 1
    assert set(how) <= {"spawned", "reused", "none"}
    assert len(alone.box.programs()) == 6  # none is there twice
    assert alone.text("c") == "a\n0\na\n1\na\n2\na\n3\n"
    assert alone.leftovers() == []


def test_run_joins_another_one_and_waits_for_its_result(analysis: Analysis) -> None:
    analysis.spec(output("x", _WAITS + "echo 1 > {output}"))
    first = analysis.begin()
    analysis.began("begun")
    second = analysis.begin("--json")
    assert second.stdout is not None
    waiting = next(e for line in second.stdout if (e := json.loads(line))["event"] == "waiting")
    assert waiting["id"] == "x"
    assert waiting["by"].startswith(f"lc run, pid {first.pid} on ")
    analysis.open("gate")
    out, joined = succeed(first, second)
    assert "x: made" in out
    assert json.loads(joined.splitlines()[-1])["up_to_date"] == 1
    assert analysis.made() == ["x"]


def test_run_that_wants_another_result_waits_its_turn(analysis: Analysis) -> None:
    analysis.spec(output("x", _WAITS + "echo 1 > {output}"))
    first = analysis.begin()
    analysis.began("begun")
    analysis.spec(output("x", "echo 2 > {output}"))
    second = analysis.begin()
    assert "waiting for lc run" in told_of_waiting(second)
    analysis.open("gate")
    succeed(first, second)
    assert analysis.made() == ["x", "x"]
    assert analysis.text("x") == "2\n"
    assert analysis.states() == {"x": "ok"}


def test_result_that_somebody_remakes_at_once_was_made_all_the_same(analysis: Analysis) -> None:
    analysis.spec(output("x", _WAITS + "echo 1 > {output}"))
    first = analysis.begin()
    analysis.began("begun")
    waits = 'touch "$PLACE/again"; until [ -e "$PLACE/second gate" ]; do sleep 0.05; done; '
    analysis.spec(output("x", waits + "echo 2 > {output}"))
    second = analysis.begin()
    assert "waiting for lc run" in told_of_waiting(second)
    first.send_signal(signal.SIGSTOP)  # so that it hears of its result when that is gone again
    analysis.open("gate")
    analysis.began("again")
    first.send_signal(signal.SIGCONT)
    assert "x: made" in succeed(first)[0]
    analysis.open("second gate")
    succeed(second)
    assert analysis.text("x") == "2\n"


def test_run_that_is_interrupted_lets_the_other_one_make_it(analysis: Analysis) -> None:
    analysis.spec(output("x", 'echo $$ >> "$PLACE/pids"; ' + _WAITS + "echo 1 > {output}"))
    first = analysis.begin()
    analysis.began("begun")
    second = analysis.begin()
    assert "waiting for lc run" in told_of_waiting(second)
    first.terminate()
    assert first.wait(timeout=60) == 130
    wait_until(lambda: len(analysis.pids("pids")) == 2, "the second run makes it")
    analysis.open("gate")
    succeed(second)
    assert analysis.states() == {"x": "ok"}


def test_input_is_not_remade_while_it_is_read(analysis: Analysis) -> None:
    analysis.spec(
        output("a", "date +%s%N > {output}"),
        output(
            "b", "head -c 5 {inputs.a} > {output}; " + _WAITS + "cat {inputs.a} > {output}", ("a",)
        ),
    )
    reader = analysis.begin()
    analysis.began("begun")
    writer = analysis.begin("-f", "a")
    told_of_waiting(writer)
    before = analysis.text("a")
    analysis.open("gate")
    succeed(reader, writer)
    assert analysis.text("b") == before
    assert analysis.text("a") != before
    assert analysis.states() == {"a": "ok", "b": "stale"}
