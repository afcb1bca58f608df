"""Many quick recipes are handed to the cluster together; each is ended, lost and told by itself."""

from __future__ import annotations

import os
import signal

from tests.helpers import wait_until
from tests.run.analyses import Analysis, interrupt, output

# As many as make batches of several on a machine of two to eight processors.
_MANY = 160
_NAMES = [f"o{number}" for number in range(_MANY)]
_MAKE = "echo {name} > {{output}}"


def _others(name: str, command: str) -> list[dict[str, object]]:
    """Instant outputs, the one called ``name`` with a command of its own."""
    return [output(n, command if n == name else _MAKE.format(name=n)) for n in _NAMES]


def test_slow_recipe_does_not_hold_up_those_after_it(analysis: Analysis) -> None:
    wait = f'until [ "$(wc -l < "$MADE")" -ge {_MANY} ]; do sleep 0.05; done; '
    analysis.spec(*_others("o0", wait + "echo o0 > {output}"))
    assert analysis.summary()["made"] == _MANY
    assert sorted(analysis.made()) == sorted(_NAMES)
    assert {name: analysis.text(name) for name in _NAMES} == {name: f"{name}\n" for name in _NAMES}
    assert analysis.leftovers() == []
    assert analysis.summary()["up_to_date"] == _MANY


def test_what_was_prepared_beside_a_slow_recipe_is_given_back(analysis: Analysis) -> None:
    analysis.spec(*_others("", ""))
    assert analysis.summary()["made"] == _MANY
    analysis.made()
    # The second of its batch, so that the third is prepared beside it.
    wait = f'until [ "$(wc -l < "$MADE")" -ge {_MANY} ]; do sleep 0.05; done; '
    analysis.spec(*_others("o1", wait + "echo o1 > {output}"))
    assert analysis.summary("--force")["made"] == _MANY
    assert sorted(analysis.made()) == sorted(_NAMES)
    assert analysis.leftovers() == []
    assert analysis.summary()["up_to_date"] == _MANY


def test_interrupt_leaves_what_was_prepared_as_it_was(analysis: Analysis) -> None:
    analysis.spec(*_others("", ""))
    assert analysis.summary()["made"] == _MANY
    logs = {name: (analysis.state(name) / "log.txt").read_text() for name in _NAMES}
    analysis.made()
    analysis.spec(*_others("o1", "touch $PLACE/begun; while :; do sleep 0.1; done"))
    run = analysis.begin("--force")
    analysis.began("begun")
    interrupt(run)
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, b"")
    assert analysis.leftovers() == []
    states, begun = analysis.states(), set(analysis.made())
    others = [name for name in _NAMES if name not in begun]
    good = {name for name in others if states[name] == "ok"}
    for name in good:
        assert analysis.text(name) == f"{name}\n"
    untouched = {
        name
        for name in good
        if (analysis.state(name) / "log.txt").read_text() == logs[name]
        and not (analysis.state(name) / "good-log.txt").exists()
    }
    # A recipe that ran at that moment may have been ended before it said so.
    assert len(untouched) >= len(others) - (os.cpu_count() or 1)


def test_recipe_that_fails_is_the_only_one(analysis: Analysis) -> None:
    analysis.spec(*_others("o1", "echo half > {output}; exit 3"))
    told = analysis.summary(check=1)
    assert (told["made"], told["failed"]) == (_MANY - 1, 1)
    assert not analysis.path("o1").exists()
    assert (analysis.state("o1") / "partial").read_text() == "half\n"
    assert analysis.leftovers() == []


def test_recipe_that_kills_its_worker_does_not_fail_what_waits(alone: Analysis) -> None:
    alone.spec(*_others("o1", 'kill -9 "$(ps -o ppid= -p $$)"; sleep 60'))
    told = alone.summary(check=1)
    # Of some of those before it, word that they were made was lost with the worker.
    assert told["made"] + told["up_to_date"] + told["failed"] == _MANY
    # Nothing that only waited is given up with it: no more than what a processor has in hand, a
    # recipe that runs, one that is prepared and sixteen results on their way to the disk.
    assert 1 <= told["failed"] <= 18 * (os.cpu_count() or 1)
    assert alone.made().count("o1") == 3
    alone.spec(*_others("o1", "echo o1 > {output}"))
    assert alone.summary()["failed"] == 0
    assert alone.leftovers() == []


def test_interrupt_keeps_what_is_made_and_begins_nothing_more(analysis: Analysis) -> None:
    analysis.spec(*_others("o1", "touch $PLACE/begun; while :; do sleep 0.1; done"))
    run = analysis.begin()
    analysis.began("begun")
    interrupt(run)
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, b"")
    begun = analysis.made()
    assert not analysis.recipes()
    states = analysis.states()
    assert states["o1"] == "interrupted"
    good = {name for name, state in states.items() if state == "ok"}
    assert good <= set(begun)
    assert out.count(b": made in ") == len(good)
    assert set(states.values()) <= {"ok", "missing", "interrupted"}
    assert analysis.leftovers() == []
    assert analysis.made() == []


def test_run_that_is_killed_takes_its_batches_with_it(analysis: Analysis) -> None:
    analysis.spec(*_others("o1", "touch $PLACE/begun; while :; do sleep 0.1; done"))
    run = analysis.begin()
    analysis.began("begun")
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    wait_until(lambda: not analysis.recipes(), "no recipe is left")
    analysis.spec(*_others("o1", "echo o1 > {output}"))
    made = len(analysis.made())
    assert analysis.summary()["failed"] == 0
    assert made + len(analysis.made()) >= _MANY
    assert set(analysis.states().values()) == {"ok"}
    assert analysis.leftovers() == []
