"""Every end of an allocation and of a session in it: what is left is nothing, and it is told."""

from __future__ import annotations

import contextlib
import json
import signal

import psutil
import pytest

from tests.helpers import end, end_at_once, wait_until
from tests.slurm.job import Job
from tests.slurm.lab import Lab
from tests.slurm.user import Call, User
from tests.specs import recipe, spec

# Writes where it runs, and that it was asked to end.
_LONG = (
    "trap 'echo asked >> {output}; exit 1' TERM; hostname > {output}; "
    "echo up; while :; do sleep 0.1; done"
)
_TWO = spec(*(recipe(f"long{n}", _LONG, cpus=3) for n in range(2)))


def _nothing(lab: Lab, user: User, job: Job) -> bool:
    """Whether neither programs of the session nor recipes are left on any host."""
    return not user.programs(job) and not any(map(_is_recipe, lab.processes()))


def _is_recipe(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "LIGHTCONE_RECIPE" in process.environ()
    return False


def _running(user: User, job: Job) -> Call:
    """A run with a recipe at work on each of two nodes."""
    call = user.start("run", job=job)
    for name in ("long0", "long1"):
        call.wait_for(f"{name} | up")
    return call


@pytest.mark.parametrize("how", ["cancel", "exit"])
def test_end_of_the_allocation(netns_lab: Lab, how: str) -> None:
    user = User(netns_lab, f"end-{how}", _TWO)
    job = netns_lab.salloc("-N2", "-n8")
    call = _running(user, job)
    getattr(job, how)()
    said = call.wait(4)
    assert f"the allocation, SLURM job {job.id}, has ended" in said
    assert "2 interrupted" in said and "run again with --resume in another allocation" in said
    wait_until(lambda: _nothing(netns_lab, user, job), "nothing is left")
    told = user.status(job)
    assert told["state"] == "dead" and told["ended"]["reason"] == "its allocation ended"
    outputs = json.loads(user.lc("status", "--json", job=job).stdout)
    assert "interrupted" in str(outputs) and "failed" not in str(outputs)
    # A shell that still names it gets a sentence.
    for arguments, code in ((["run"], 3), (["exec", "--", "true"], 125), (["session", "start"], 3)):
        refused = user.lc(*arguments, job=job, check=code)
        assert f"SLURM job {job.id}, is not there" in refused.stderr
    user.lc("session", "stop", job=job)


def test_kills_within_an_allocation(netns_lab: Lab) -> None:
    user = User(netns_lab, "kills", _TWO)
    job = netns_lab.salloc("-N2", "-n8")
    reasons = {
        "srun": "its workers on the nodes have ended, see 'lc session logs worker'",
        "tmux": None,
        "scheduler": "its scheduler was killed",
    }
    for part, reason in reasons.items():
        call = _running(user, job)
        end([process.pid for process in user.programs(job)[part]])
        call.wait(3)
        wait_until(lambda: _nothing(netns_lab, user, job), "nothing is left")
        job.has_no_steps()
        assert job.state() == "RUNNING"
        told = user.status(job)
        assert told["state"] == "dead"
        assert reason in (None, told["ended"]["reason"])
    # A node's guard is the node's alone: the other goes on, and so does the session.
    call = _running(user, job)
    first, second = netns_lab.nodes
    end([p.pid for p in user.programs(job)["guard"] if netns_lab._node_of(p) == second][:1])
    call.wait_for("trying again")
    wait_until(lambda: not netns_lab.node_processes(second), "nothing is left there")
    assert [worker["host"] for worker in user.status(job)["workers"]] == [first]
    call.process.send_signal(signal.SIGINT)
    call.wait(130)
    user.lc("session", "stop", job=job)
    job.has_no_steps()


def test_orphaned_step_is_ended_by_stop(netns_lab: Lab) -> None:
    user = User(netns_lab, "orphan")
    job = netns_lab.salloc("-N2", "-n8")
    user.lc("session", "start", job=job)
    parts = user.programs(job)
    # All at once that could tell the nodes: the programs beside srun, and srun.
    end_at_once([p.pid for part in ("srun", "tmux", "scheduler", "other") for p in parts[part]])
    user.lc("session", "stop", job=job)
    assert not user.programs(job)
    job.has_no_steps()
    assert job.state() == "RUNNING"


def test_silent_controller(netns_lab: Lab) -> None:
    user = User(netns_lab, "silent")
    job = netns_lab.salloc("-N2", "-n8")
    with netns_lab.frozen_controller():
        refused = user.lc("run", job=job, check=3)
        assert "alive cannot be told, because squeue did not answer within 5 s" in refused.stderr
        assert user.status(job)["state"] == "dead"
    user.lc("session", "start", job=job)
    with netns_lab.frozen_controller():
        # A session that lives is used all the same.
        assert "1 made" in user.lc("run", job=job).stdout
        assert user.status(job)["state"] == "alive"
    user.lc("session", "stop", job=job)
    assert not user.programs(job)


def test_lost_node(netns_lab: Lab) -> None:
    user = User(netns_lab, "lost", _TWO)
    job = netns_lab.salloc("-N2", "-n8")
    call = _running(user, job)
    _, second = netns_lab.nodes
    try:
        netns_lab.lose(second)
        netns_lab.run("scontrol", "update", f"NodeName={second}", "State=DOWN", "Reason=lost")
        said = call.wait(4)
        assert f"the allocation, SLURM job {job.id}, has ended" in said and "2 interrupted" in said
        wait_until(lambda: _nothing(netns_lab, user, job), "nothing is left")
        assert user.status(job)["ended"]["reason"] == "its allocation ended"
    finally:
        netns_lab.mend(second)
