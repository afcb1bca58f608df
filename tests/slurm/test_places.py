"""Where a session keeps its files, and the shells and jobs that it is started in."""

from __future__ import annotations

import os
import shlex
import time

from tests.helpers import wait_until
from tests.slurm.lab import Lab
from tests.slurm.user import User
from tests.specs import recipe, spec

# Takes a while to end when it is asked to.
_SLOW = spec(
    recipe("slow", "trap 'sleep 1; touch ~/asked; exit 1' TERM; echo up; sleep 600 & wait")
)


def test_scratch_that_the_nodes_do_not_see(netns_lab: Lab) -> None:
    user = User(netns_lab, "blind")
    job = netns_lab.salloc("-N2", "-n2")
    there = {"LIGHTCONE_SCRATCH": str(netns_lab.local / "scratch")}
    refused = user.lc("run", job=job, env=there, check=3)
    said = [line for line in refused.stderr.splitlines() if "LIGHTCONE_SCRATCH" in line]
    assert len(said) == 1 and "is not to be seen on the node" in said[0], refused.stderr
    wait_until(lambda: not user.programs(job), "nothing is left")


def test_locks_that_do_not_work_between_hosts(netns_lab: Lab) -> None:
    user = User(netns_lab, "locks")
    second = netns_lab.nodes[1]
    job = netns_lab.salloc("-N1", "-w", second)
    user.lc("session", "start", job=job)
    user.lc("session", "stop", job=job)
    lock, other = user.state(job) / "owner.lock", user.home / "other.lock"
    other.touch()
    on = netns_lab.on(second)
    # To the node it is a file of its own, as where locks do not leave a host.
    netns_lab.run(*on, "mount", "--bind", str(other), str(lock))
    try:
        refused = user.lc("run", job=job, check=3)
        assert "has no locks that work between hosts: set LIGHTCONE_SCRATCH" in refused.stderr
    finally:
        netns_lab.run(*on, "umount", str(lock))
    wait_until(lambda: not user.programs(job), "nothing is left")


def test_states_of_jobs_long_ended_are_removed(netns_lab: Lab) -> None:
    user = User(netns_lab, "past")
    sessions = user.home / ".lightcone" / "sessions"
    living = netns_lab.salloc("-N1", "-n1")
    job = netns_lab.salloc("-N1", "-n1")
    user.home.joinpath(".lightcone").mkdir(0o700)
    names = [f"slurm-{number}" for number in (living.id, 64_000_001, 64_000_002)]
    for name in names:
        (sessions / name / "logs").mkdir(parents=True)
        (sessions / name / "logs" / "worker.log").touch()
        for path in (
            sessions / name / "logs" / "worker.log",
            sessions / name / "logs",
            sessions / name,
        ):
            os.utime(path, (time.time() - 15 * 86400,) * 2)
    os.utime(sessions / names[2])
    user.lc("session", "start", job=job)
    assert sorted(path.name for path in sessions.iterdir()) == sorted(
        [names[0], names[2], f"slurm-{job.id}"]
    )
    user.lc("session", "stop", job=job)


def test_step_that_starts_the_session_and_ends(netns_lab: Lab) -> None:
    user = User(netns_lab, "step")
    job = netns_lab.salloc("-N2", "-n8")
    own = [f"{name}={user.env[name]}" for name in ("HOME", "LIGHTCONE_RUNTIME_DIR")]
    step = ("srun", "--overlap", "-N1", "-n1", "--pty", "env", *own, "bash", "--norc")
    terminal = netns_lab.terminal(*step, env=job.env)
    terminal.type(shlex.join(user.line("run")))
    terminal.wait_for("1 made")
    told = user.status(job)
    assert told["state"] == "alive" and told["host"] in netns_lab.nodes
    assert len(told["workers"]) == 2
    terminal.type("exit")
    terminal.wait()
    wait_until(lambda: not user.programs(job), "nothing is left")
    assert job.state() == "RUNNING"
    ended = user.status(job)
    assert ended["state"] == "dead"
    user.lc("exec", "--", "true", job=job)
    user.lc("session", "stop", job=job)


def test_first_component_of_a_mixed_job(netns_lab: Lab) -> None:
    user = User(netns_lab, "mixed")
    job = netns_lab.salloc("-N1", "-n2", "--mem=500", ":", "-N1", "-n1", "--mem=100")
    user.lc("run", job=job)
    (worker,) = user.status(job)["workers"]
    assert (worker["cpus"], worker["memory"]) == (2, 500 << 20)
    user.lc("session", "stop", job=job)
    job.has_no_steps()


def test_order_of_an_end(netns_lab: Lab) -> None:
    user = User(netns_lab, "order", _SLOW)
    job = netns_lab.salloc("-N2", "-n2")
    local = netns_lab.local / "spill"
    places = [netns_lab.base / "disk" / node / "local" / "spill" for node in netns_lab.nodes]
    for place in (local, *places):
        place.mkdir()
    call = user.start("run", job=job, env={"TMPDIR": str(local)})
    call.wait_for("slow | up")
    # What spills does so to a disk of the node.
    assert [len(list(place.iterdir())) for place in places] == [1, 1]
    user.lc("session", "stop", job=job)
    call.wait(3)
    # The recipe had its time, and nothing of the session is left on the nodes' disks.
    assert (user.home / "asked").exists()
    assert not any(list(place.iterdir()) for place in places)
    job.has_no_steps()
