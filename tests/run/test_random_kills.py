"""Kills at any moment of a run, each followed by a run that puts everything right."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess

import pytest

from tests.helpers import wait_until
from tests.run.analyses import Analysis, output

# `make soak` asks for more.
_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "12"))
_LONGEST = 3.0
_VICTIMS = ("run", "run", "worker", "worker", "scheduler", "tmux", "worker guard", "inner guard")
# Each output is the sum of its inputs and its number.
_INPUTS: dict[str, tuple[str, ...]] = {
    **{f"o{n}": ("raw",) for n in range(4)},
    "o4": ("o0", "o1"),
    "o5": ("o1", "o2"),
    "o6": ("o2", "o3"),
    "o7": ("o0", "o3"),
    "o8": ("o4", "o5", "o6"),
    "o9": ("o7",),
    "o10": ("o8", "o9"),
    "o11": ("o0", "o10"),
    **{f"o{n}": (f"o{n - 12}",) for n in range(12, 40)},
}
_SUM = (
    "sum=$(cat {{inputs}} | paste -s -d + -); echo half > {{output}}; sleep 0.05; "
    "echo $((sum + {number})) > {{output}}"
)


def _expected(raw: int) -> dict[str, str]:
    values = {"raw": raw}
    for name, inputs in _INPUTS.items():
        values[name] = sum(values[each] for each in inputs) + int(name[1:])
    return {name: f"{values[name]}\n" for name in _INPUTS}


@pytest.mark.timeout(180 + 20 * _ROUNDS)
def test_every_output_is_good_after_a_kill_at_any_moment(alone: Analysis) -> None:
    seed = int(os.environ.get("SEED", "20261122"))
    chance = random.Random(seed)  # noqa: S311 (which moment is no secret)
    alone.spec(
        *(
            output(name, _SUM.format(number=name[1:]), inputs, suffix="n")
            for name, inputs in _INPUTS.items()
        ),
        inputs=[{"id": "raw", "type": "data", "source": "raw.txt"}],
    )
    raw = 1
    alone.write("raw.txt", f"{raw}\n")
    alone.run()
    for round_ in range(_ROUNDS):
        victim = chance.choice(_VICTIMS)
        moment = chance.uniform(0.0, _LONGEST)
        what = f"seed {seed}, round {round_}: {victim} killed after {moment:.3f} s"
        forced = chance.random() < 0.3
        if not forced:
            raw = chance.randrange(1, 1000)
            alone.write("raw.txt", f"{raw}\n")
        run = alone.begin(*(["-f"] if forced else []))
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(moment)
        if victim == "run":
            run.kill()
        else:
            # While a session starts, a part may not be there yet, or be there twice.
            with contextlib.suppress(ProcessLookupError, KeyError, AssertionError):
                os.kill(alone.box.programs()[victim], signal.SIGKILL)
        out, errors = run.communicate(timeout=60)
        told = f"{what}: {run.returncode}\n{out.decode()}\n{errors.decode()}"
        assert run.returncode in (0, 3, -signal.SIGKILL), told
        assert re.fullmatch(rb"(lc: [^\n]+\n(  [^\n]*\n)*)?", errors), told
        again = alone.run(check=None)
        told += f"then {again.returncode}\n{again.stdout}\n{again.stderr}"
        assert again.returncode == 0, told
        found = {name: alone.path(name, suffix="n").read_text() for name in _INPUTS}
        assert found == _expected(raw), told
        assert alone.leftovers() == [], told
        wait_until(lambda: not alone.recipes(), f"no recipe is left, {what}")
        print(f"{what}, all good", flush=True)
    assert set(alone.states().values()) == {"ok"}
    print(f"seed {seed}: {_ROUNDS} kills, {len(_INPUTS)} outputs right after each")
    # A worker that was killed right at the end is started again.
    wait_until(lambda: len(alone.box.programs()) in (0, 6), "the session is whole, or gone")
