"""``lc run --allocate``, and hosts that are there for other things."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil

from lightcone.project.context import allocation_file
from lightcone.project.settings import Settings
from tests.helpers import is_alive, wait_until
from tests.slurm.lab import Lab
from tests.slurm.place import find
from tests.slurm.user import Call, User
from tests.specs import recipe, spec


def _queue(lab: Lab) -> list[str]:
    return lab.run("squeue", "-h", "-o", "%A %j %T").stdout.splitlines()


def test_allocation_that_a_run_asks_for(netns_lab: Lab) -> None:
    user = User(netns_lab, "ask", spec(recipe("where", "hostname > {output}; nproc", cpus=4)))
    other = user.new_project("other")
    for bad in ("--nodes=many", "--partition=none", '-N1 "'):
        refused = user.lc("run", "--allocate", bad, check=2)
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert bad.split("=")[0] in refused.stderr or "granted no allocation" in refused.stderr
    assert _queue(netns_lab) == []
    said = user.lc("run", "--allocate", "-N2 -n8 --mem=1000").stdout
    (line,) = _queue(netns_lab)
    number, name, state = line.split()
    assert state == "RUNNING" and name.startswith("lc-project-")
    assert f"SLURM granted the allocation, job {number}" in said
    assert user.made()["where"] in netns_lab.nodes
    # Every later call of the project finds it, from any host; another project has nothing of it.
    for node in (None, netns_lab.nodes[1]):
        assert user.status(node=node)["key"] == f"slurm-{number}"
    ran = user.lc("exec", "--", "hostname")
    assert ran.stdout.strip() in netns_lab.nodes
    again = user.lc("run", "-f", "--allocate", "-N1").stdout
    assert f"using the allocation that this project has, SLURM job {number}" in again
    assert user.status(cwd=other)["kind"] == "project"
    stopped = user.lc("session", "stop").stdout
    assert f"SLURM job {number}, which 'lc run --allocate' got: ended" in stopped
    wait_until(lambda: _queue(netns_lab) == [], "the job has ended")
    assert user.status()["kind"] == "project"


def test_request_that_waits_is_taken_back(netns_lab: Lab) -> None:
    user = User(netns_lab, "wait")
    job = netns_lab.salloc("-N2", "--exclusive")
    for signum in (signal.SIGINT, signal.SIGTERM):
        call = user.start("run", "--allocate", "-N1")
        call.wait_for("waiting in SLURM's queue, job ")
        assert len(_queue(netns_lab)) == 2
        os.kill(call.process.pid, signum)
        assert "the request was taken back" in call.wait(130)
        wait_until(lambda: len(_queue(netns_lab)) == 1, "the request is taken back")
    # One that takes nothing back, and does not end when it is asked to.
    call = user.start("run", "--allocate", "-N1")
    call.wait_for("waiting in SLURM's queue, job ")
    (salloc,) = psutil.Process(call.process.pid).children()
    salloc.suspend()
    os.kill(call.process.pid, signal.SIGINT)
    assert "the request was taken back" in call.wait(130)
    assert not is_alive(salloc.pid)
    wait_until(lambda: len(_queue(netns_lab)) == 1, "the request is taken back")
    refused = user.lc("run", "--allocate", "-N1", job=job, check=2)
    assert f"This shell is in an allocation, SLURM job {job.id}" in refused.stderr


def test_request_ends_with_its_call(netns_lab: Lab) -> None:
    user = User(netns_lab, "owner")
    netns_lab.salloc("-N2", "--exclusive")

    def waiting() -> tuple[Call, psutil.Process]:
        call = user.start("run", "--allocate", "-N1")
        call.wait_for("waiting in SLURM's queue, job ")
        (salloc,) = psutil.Process(call.process.pid).children()
        # Until it waits it does not know that it has a request, which it says before.
        wait_until(lambda: salloc.status() == psutil.STATUS_SLEEPING, "salloc waits")
        return call, salloc

    def is_over(salloc: psutil.Process) -> bool:
        return not is_alive(salloc.pid) and len(_queue(netns_lab)) == 1

    call, salloc = waiting()
    call.process.kill()
    wait_until(lambda: is_over(salloc), "a call that was killed leaves nothing in the queue")
    call, salloc = waiting()
    salloc.kill()
    assert "salloc was ended by signal 9, and the request was taken back" in call.wait(3)
    wait_until(lambda: is_over(salloc), "nor does a salloc that was killed")
    # Nobody reads what it says.
    line = user.line("run", "--allocate", "-N1")
    with subprocess.Popen(
        line, env=user.variables(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        assert (program.wait(30), program.stderr.read()) == (1, b"")
    wait_until(lambda: len(_queue(netns_lab)) == 1, "nor does a call that nobody reads")


def test_salloc_that_is_a_script(netns_lab: Lab) -> None:
    user = User(netns_lab, "script")
    netns_lab.salloc("-N2", "--exclusive")
    script = user.home / "salloc"
    script.write_text(f'#!/bin/sh\n{find("salloc")} "$@"\nexit $?\n')
    script.chmod(0o755)
    # Before it has said its number.
    os.kill(netns_lab.controller.pid, signal.SIGSTOP)
    try:
        path = {"PATH": f"{user.home}:{user.env['PATH']}"}
        call = user.start("run", "--allocate", "-N1", env=path)
        below = psutil.Process(call.process.pid)
        wait_until(lambda: len(below.children(recursive=True)) == 2, "the script runs salloc")
        (inner,) = (each for each in below.children(recursive=True) if each.ppid() != below.pid)
        os.kill(call.process.pid, signal.SIGINT)
        assert "the request was taken back" in call.wait(130)
        assert not is_alive(inner.pid)
    finally:
        os.kill(netns_lab.controller.pid, signal.SIGCONT)


def test_two_calls_ask_for_one_allocation(netns_lab: Lab) -> None:
    user = User(netns_lab, "two")
    job = netns_lab.salloc("-N2", "--exclusive")
    first = user.start("run", "--allocate", "-N1")
    first.wait_for("waiting in SLURM's queue, job ")
    second = user.start("run", "--allocate", "-N1")
    second.wait_for("waiting for another call, which asks SLURM for the allocation")
    assert len(_queue(netns_lab)) == 2
    third = user.start("run", "--allocate", "-N1")
    third.wait_for("waiting for another call")
    os.kill(third.process.pid, signal.SIGINT)
    third.wait(130)
    job.cancel()
    first.wait(0)
    assert "using the allocation that this project has" in second.wait(0)
    (line,) = _queue(netns_lab)
    assert line.split()[2] == "RUNNING"
    user.lc("session", "stop")


def test_allocation_that_cannot_be_kept_is_given_back(netns_lab: Lab) -> None:
    user = User(netns_lab, "keep")
    file = allocation_file(user.project, Settings(scratch=user.home))
    file.mkdir(mode=0o700, parents=True)
    refused = user.lc("run", "--allocate", "-N1", check=3)
    assert f"{file}, which is to name the allocation, cannot be written" in refused.stderr
    wait_until(lambda: _queue(netns_lab) == [], "the allocation is given back")


def test_login_node(netns_lab: Lab) -> None:
    heavy = spec(recipe("light", "hostname > {output}"), recipe("heavy", "nproc", cpus=64))
    user = User(netns_lab, "nersc", heavy)
    scratch = user.home / "scratch"
    scratch.mkdir()
    there = {"NERSC_HOST": "perlmutter", "SCRATCH": str(scratch)}
    refused = user.lc("run", env=there, check=2)
    assert "This is a login node of NERSC, and baseline/heavy asks for more" in refused.stderr
    assert "salloc" in refused.stderr and "--allocate" in refused.stderr
    user.lc("run", "light", env=there)
    assert list((scratch / ".lightcone" / "sessions").iterdir())
    (worker,) = user.status(env=there)["workers"]
    assert worker["memory"] <= 16 << 30
    user.lc("session", "stop", env=there)
    # In an allocation there all of it may be asked for, and scratch is the site's.
    job = netns_lab.salloc("-N1", "-n4")
    user.lc("run", "light", "-f", job=job, env=there)
    assert (scratch / ".lightcone" / "sessions" / f"slurm-{job.id}").is_dir()
    user.lc("session", "stop", job=job, env=there)
