"""Many callers at the same instant, some of them killed: one session, and every other goes on.

The rounds are drawn from a seed, ``SEED`` in the environment where a round is to be seen again;
``SOAK_CALLERS`` sets how many call at once.
"""

from __future__ import annotations

import os
import random
import re
import time

from tests.helpers import Sandbox, wait_until

_SEED = int(os.environ.get("SEED", "1929"))
_CALLERS = int(os.environ.get("SOAK_CALLERS", "24"))


def test_callers_killed_while_they_start_a_session(sandbox: Sandbox) -> None:
    chosen = random.Random(_SEED)  # noqa: S311 (no secret)
    begun = time.monotonic()
    callers = [
        sandbox.popen("exec", "--", "echo", str(number), start_new_session=True)
        for number in range(_CALLERS)
    ]
    victims = chosen.sample(range(_CALLERS), _CALLERS // 4)
    for number in victims:
        moment = time.monotonic() + chosen.uniform(0, 0.4)
        wait_until(lambda at=moment: time.monotonic() > at, "the moment has come")  # type: ignore[misc]
        callers[number].kill()
    outputs = [caller.communicate(timeout=300) for caller in callers]
    took = time.monotonic() - begun
    for number, (caller, (out, errors)) in enumerate(zip(callers, outputs, strict=True)):
        if number not in victims:
            assert caller.returncode == 0, (_SEED, number, errors)
            assert out == f"{number}\n".encode(), (_SEED, number, errors)
        assert b"Traceback" not in errors, (_SEED, number, errors)
    assert len(sandbox.programs()) == 6, _SEED  # none of them is there twice
    told = b"".join(errors for _, errors in outputs).decode()
    # Who was killed may have said so too.
    assert len(re.findall(r"lc: starting the session", told)) <= 1 + len(victims), (_SEED, told)
    print(f"seed {_SEED}: {_CALLERS} callers took {took:.1f} s")
