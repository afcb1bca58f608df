"""Two contexts on one project: one writer on a path, and nobody is restored under a recipe."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, interrupt, output, succeed, told_of_waiting

# Says so, and fails, where another one is at work on the same output.
_ALONE = (
    'mkdir "$PLACE/alone {name}" || {{{{ echo {name} >> "$PLACE/overlaps"; exit 9; }}}}; '
    "trap 'rmdir \"$PLACE/alone {name}\"' EXIT; "
)
_SLOW = _ALONE + "echo half > {{output}}; sleep 0.3; cat {{inputs}} /dev/null > {{output}}; "
_WAITS = 'echo $$ >> "$PLACE/pids"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '


class Pair:
    """One project, and a second context for it, whose scratch and sockets are its own."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.analysis = Analysis(box)
        self.other = {}
        for name, variable in (("run", "LIGHTCONE_RUNTIME_DIR"), ("scratch", "LIGHTCONE_SCRATCH")):
            place = box.base / f"other {name}" if name == "scratch" else box.base / "r2"
            place.mkdir(mode=0o700)
            self.other[variable] = str(place)

    def close(self) -> None:
        self.analysis.close()
        self.box.lc("session", "stop", env=self.other)


@pytest.fixture
def pair(sandbox: Sandbox) -> Iterator[Pair]:
    both = Pair(sandbox)
    yield both
    both.close()


def _pids(analysis: Analysis) -> list[int]:
    path = analysis.place / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def test_both_at_once_make_each_output_by_one_at_a_time(pair: Pair) -> None:
    analysis = pair.analysis
    names = ("a", "b", "c", "d", "e", "f")
    inputs = {"a": (), "b": (), "c": ("a",), "d": ("a", "b"), "e": ("c", "d"), "f": ("b",)}
    analysis.spec(
        *(
            output(name, _SLOW.format(name=name) + f"echo {name} >> {{output}}", inputs[name])
            for name in names
        )
    )
    for options in ((), ("-f",)):
        runs = [
            analysis.begin("--json", *options),
            analysis.begin("--json", *options, env=pair.other),
        ]
        told = [json.loads(out.splitlines()[-1]) for out in succeed(*runs)]
        assert not (analysis.place / "overlaps").exists()
        assert analysis.text("e") == "a\nc\na\nb\nd\ne\n"
        assert analysis.leftovers() == []
        assert set(analysis.states().values()) == {"ok"}
        if not options:
            assert sorted(analysis.made()) == sorted(names)
            assert sum(each["made"] for each in told) == len(names)
    assert analysis.box.lc("verify").returncode == 0


def _killed_with_everything(pair: Pair) -> None:
    """Begin to make again what is good in the one context, and kill every process of that."""
    analysis = pair.analysis
    analysis.spec(output("x", f'echo "$SAYS" > {{output}}; [ -n "$GOOD" ] || {{{{ {_WAITS} }}}}'))
    analysis.run(env={"SAYS": "good", "GOOD": "1"})
    analysis.made()
    program = analysis.begin("-f", env={"SAYS": "half"})
    wait_until(lambda: _pids(analysis), "the recipe runs")
    analysis.kill_all(program)
    analysis.made()


@pytest.mark.parametrize("own", [True, False], ids=["its own", "the other"])
def test_context_killed_in_the_middle_is_put_right_by_the_next_run_of(
    pair: Pair, own: bool
) -> None:
    analysis = pair.analysis
    _killed_with_everything(pair)
    assert analysis.states() == {"x": "interrupted"}
    assert analysis.text("x") == "half\n"
    told = analysis.summary(env={} if own else pair.other)
    assert (told["up_to_date"], told["session"]) == (1, "none")
    assert analysis.text("x") == "good\n"
    assert analysis.made() == []
    assert analysis.leftovers() == []


def test_context_that_lives_is_waited_for_while_its_recipe_runs(pair: Pair) -> None:
    """Of which everything may be dead but the recipe itself."""
    analysis = pair.analysis
    analysis.spec(output("x", _ALONE.format(name="x") + _WAITS + "echo 1 > {output}"))
    program = analysis.begin()
    wait_until(lambda: _pids(analysis), "the recipe runs")
    pids = [program.pid, *pair.box.programs().values()]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, signum)
    other = analysis.begin(env=pair.other)
    who = rf"lc run, pid {program.pid} on \S+ since "
    assert re.match(f"baseline/x: waiting for {who}", told_of_waiting(other))
    assert analysis.states() == {"x": "running"}
    assert len(_pids(analysis)) == 1
    os.kill(_pids(analysis)[0], signal.SIGKILL)
    (analysis.place / "alone x").rmdir()
    wait_until(lambda: len(_pids(analysis)) == 2, "the other context makes it")
    analysis.open("gate")
    succeed(other)
    assert not (analysis.place / "overlaps").exists()
    assert analysis.states() == {"x": "ok"}


def test_context_that_cannot_be_asked_is_left_alone_and_said_so(pair: Pair) -> None:
    """As when the other one is on another host, or was when it died."""
    analysis = pair.analysis
    _killed_with_everything(pair)
    path = analysis.state("x") / "journal.json"
    journal = json.loads(path.read_bytes()) | {"host": "elsewhere", "boot_id": "0" * 64}
    path.write_text(json.dumps(journal))
    before = {each: each.read_bytes() for each in analysis.root.rglob("*") if each.is_file()}
    run = analysis.begin(env=pair.other)
    assert run.stdout is not None
    while not (line := run.stdout.readline().decode()).startswith("baseline/x: "):
        pass
    who = r"lc run, pid \d+ on elsewhere since [\d: -]+"
    remedy = "whose end is only known there: if it has ended, start 'lc run' on elsewhere once"
    assert re.fullmatch(rf"baseline/x: waiting for {who}, {remedy}\n", line)
    assert analysis.states() == {"x": "running"}
    assert re.fullmatch(rf"by {who}, {remedy}", analysis.why("x"))
    interrupt(run)
    assert run.wait(timeout=60) == 130
    after = {each: each.read_bytes() for each in analysis.root.rglob("*") if each.is_file()}
    assert after == before
    path.write_text(json.dumps(journal | {"host": os.uname().nodename}))
    assert analysis.summary()["up_to_date"] == 1
    assert analysis.text("x") == "good\n"


def test_result_that_was_made_while_its_input_was_made_again_elsewhere_is_not_good(
    pair: Pair,
) -> None:
    """The contexts share no lock that could keep the input as it is."""
    analysis = pair.analysis
    analysis.spec(
        output("a", "date +%s%N > {output}"),
        output(
            "b",
            'head -c 4 {inputs.a} > {output}; touch "$PLACE/begun"; '
            'until [ -e "$PLACE/gate" ]; do sleep 0.05; done; cat {inputs.a} >> {output}',
            ("a",),
        ),
    )
    run = analysis.begin()
    analysis.began("begun")
    analysis.run("-f", "a", env=pair.other)
    analysis.open("gate")
    (out,) = succeed(run)
    assert "lc: baseline/b: input a has changed; trying again\n" in out
    assert analysis.text("b") == analysis.text("a")[:4] + analysis.text("a")
    assert analysis.states() == {"a": "ok", "b": "ok"}
    assert analysis.made() == ["a", "b", "a", "b"]
