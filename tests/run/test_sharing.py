"""What a recipe is given of the workers there are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightcone.run.sharing import Refused, Share, share_for, share_for_output
from lightcone.spec.output import Output, Resources

GIB = float(1 << 30)
SMALL = {"CPU": 2.0, "MEMORY": 4 * GIB, "GPU": 0.0}
LARGE = {"CPU": 8.0, "MEMORY": 16 * GIB, "GPU": 0.0}
DEVICES = {"CPU": 4.0, "MEMORY": 8 * GIB, "GPU": 2.0}


def _output(asked: Resources) -> Output:
    root = Path("/project")
    return Output("u", "x", root, f"{root}/x", f"{root}/s", False, "true", "true", resources=asked)


def test_what_a_worker_has_is_given_as_asked() -> None:
    given = share_for(Resources(1.5, 1 << 30, 1), [SMALL, DEVICES], clamp=False)
    assert given == Share(1.5, {"CPU": 1.5, "MEMORY": GIB, "GPU": 1.0})
    assert share_for(Resources(), [SMALL], clamp=False) == Share(1.0, {"CPU": 1.0})


def test_workers_that_declare_nothing_are_not_asked() -> None:
    assert share_for(Resources(100, 1 << 50, 9), [], clamp=False) == Share(100, None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Resources(9), "it asks for 9 cpus, and the largest worker has 8 cpus: "),
        (
            Resources(1, 32 << 30),
            "it asks for 1 cpu, 32.0 GiB of memory, and the largest worker has 8 cpus, 16.0 GiB "
            "of memory: ",
        ),
    ],
)
def test_what_no_worker_has_is_refused_or_clamped(asked: Resources, words: str) -> None:
    given = share_for_output(_output(asked), [SMALL, LARGE], "refuse")
    remedy = 'lower what it asks for, or set oversized = "clamp" in [run] of lightcone.toml'
    assert given == Refused(words + remedy)
    clamped = share_for_output(_output(asked), [SMALL, LARGE], "clamp")
    assert isinstance(clamped, Share)
    assert clamped.resources is not None
    assert all(LARGE[name] >= amount for name, amount in clamped.resources.items())


@pytest.mark.parametrize("oversized", ["refuse", "clamp"])
def test_devices_are_never_taken_away(oversized: str) -> None:
    given = share_for_output(_output(Resources(1, 0, 3)), [LARGE, DEVICES], oversized)
    assert given == Refused(
        "it asks for 1 cpu, 3 gpus, and the largest worker has 8 cpus, 2 gpus: lower what it asks "
        "for"
    )


def test_clamped_to_a_worker_that_has_the_devices() -> None:
    given = share_for_output(_output(Resources(6, 0, 1)), [LARGE, DEVICES], "clamp")
    assert given == Share(4.0, {"CPU": 4.0, "GPU": 1.0})


def test_a_bare_command_is_not_told_of_a_setting_that_is_not_for_it() -> None:
    given = share_for(Resources(9), [SMALL], clamp=False)
    assert given == Refused(
        "it asks for 9 cpus, and the largest worker has 2 cpus: lower what it asks for"
    )
