"""The session of an allocation: found, started once, and used from wherever the user is."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import psutil

from tests.helpers import wait_until
from tests.slurm.job import Job
from tests.slurm.lab import Lab
from tests.slurm.user import User
from tests.specs import recipe, spec

_MIB = 2**20
_SIX = spec(*(recipe(f"r{n}", "hostname > {output}; sleep 0.3", cpus=2) for n in range(6)))


def _shares(told: dict[str, Any]) -> dict[str, tuple[float, int, int]]:
    return {w["host"]: (w["cpus"], w["memory"] // _MIB, w["gpus"]) for w in told["workers"]}


def _listening(process: psutil.Process) -> set[tuple[str, int]]:
    """The addresses at which a process takes connections, in its own network."""
    inodes = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link))
    found = set()
    for name in ("tcp", "tcp6"):
        table = ""
        with contextlib.suppress(OSError):  # one that was only asking SLURM has left meanwhile
            table = Path(f"/proc/{process.pid}/net/{name}").read_text()
        for line in table.splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                host, _, port = words[1].partition(":")
                family = socket.AF_INET if name == "tcp" else socket.AF_INET6
                raw = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found


def _is_refused(address: tuple[str, int], *, tls: bool) -> bool:
    """Whether one who has no key is turned away at ``address`` without an answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(socket.create_connection(address, 10))
            if tls:
                line = stack.enter_context(context.wrap_socket(line))
            line.sendall(b'{"op": "describe"}\n')
            return line.recv(100) == b""
    except OSError:
        return True


def test_one_session_for_all_hosts_and_projects(netns_lab: Lab) -> None:
    first, second = netns_lab.nodes
    network = netns_lab.network
    assert network is not None
    user = User(netns_lab, "ada", _SIX)
    other = user.new_project("other")
    job = netns_lab.salloc("-N2", "-n6", "--mem=3000", "--gres=gpu:2")
    # From the submit host and from a node at once: one starts it, and both use it.
    calls = [user.start("run", job=job), user.start("run", job=job, node=second, cwd=other)]
    for call in calls:
        call.wait(0)
    told = user.status(job)
    assert (told["key"], told["kind"], told["state"]) == (f"slurm-{job.id}", "allocation", "alive")
    assert _shares(told) == {first: (4, 3000, 2), second: (2, 3000, 2)}
    assert set(user.made().values()) == {first, second}
    assert job.steps() == [f"lightcone-{job.id}"]

    # It listens at the address that its nodes see, and nowhere else.
    record = json.loads((user.state(job) / "session.json").read_text())
    addresses = [record["address"].removeprefix("tls://"), record["control"]]
    expected = {(host, int(port)) for host, _, port in (text.partition(":") for text in addresses)}
    at = network.address(None if told["host"] not in netns_lab.nodes else told["host"])
    assert {host for host, _ in expected} == {at}
    heard: dict[str | None, set[tuple[str, int]]] = {}
    for part, processes in user.programs(job).items():
        for process in processes if part != "srun" else ():  # SLURM's own way to its nodes
            where = netns_lab._node_of(process)
            heard[where] = heard.get(where, set()) | _listening(process)
    own = told["host"] if told["host"] in netns_lab.nodes else None
    for node in netns_lab.nodes:
        workers = heard.pop(node) - (expected if node == own else set())
        assert {host for host, _ in workers} == {network.address(node)} and len(workers) == 1
    assert heard.get(None, expected) == expected
    for address in expected:
        assert _is_refused(address, tls=True) and _is_refused(address, tls=False)
    for path in (user.state(job) / "tls").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    # From everywhere it is the same, and says where it is.
    places: tuple[str | None, ...] = (None, first, second)
    for place in places:
        again = user.status(job, node=place)
        assert again["started"] == told["started"] and again["address"] == told["address"]
        ran = user.lc("exec", "--cpus", "4", "--", "hostname", job=job, node=place, cwd=other)
        assert ran.stdout == f"{first}\n"
    away = first if told["host"] != first else second
    shown = user.lc("session", "status", job=job, node=away).stdout
    assert f"its programs are on {told['host']}" in shown
    listed = user.lc("session", "list", job=job, node=away).stdout
    assert f"lc-slurm-{job.id}" in listed and "6 cpus" in listed
    assert "Registered to" in user.lc("session", "logs", "worker", job=job, node=away).stdout
    line = user.line("session", "attach", node=away)
    terminal = netns_lab.terminal(*line, env=user.variables(job))
    assert terminal.wait() == 3
    assert f"is on {told['host']}" in terminal.text

    # Ended from another host it leaves nothing, and the allocation goes on.
    user.lc("session", "stop", job=job, node=away)
    assert user.status(job)["state"] == "dead"
    assert not user.programs(job)
    assert job.state() == "RUNNING"
    job.has_no_steps()


def test_batch_script_array_and_two_jobs_on_one_node(netns_lab: Lab) -> None:
    user = User(netns_lab, "batch")
    # Two elements of an array are two jobs of one user, here on one node.
    script = f"{user.script('run')} && exec {user.script('exec', '--', 'sleep', '600')}"
    array = netns_lab.sbatch(
        script, "-N1", "--array=1-2", "--mem=1000", "-n2", "-w", netns_lab.nodes[0]
    )

    def running() -> list[int]:
        said = netns_lab.run("squeue", "-h", "-t", "R", "-o", "%A").stdout.split()
        return sorted(map(int, said))

    wait_until(lambda: len(running()) == 2, "both run")
    jobs = [
        Job(number, {**netns_lab.env, "SLURM_JOB_ID": str(number)}, netns_lab.run)
        for number in running()
    ]
    wait_until(lambda: len(netns_lab.named("sleep", netns_lab.nodes[0])) == 2, "both work", 90.0)
    assert array.id in running()
    told = [user.status(job) for job in jobs]
    for job, one in zip(jobs, told, strict=True):
        assert one["key"] == f"slurm-{job.id}" and one["host"] == netns_lab.nodes[0]
        assert _shares(one) == {netns_lab.nodes[0]: (2, 1000, 0)}
        for process in itertools.chain(*user.programs(job).values()):
            # One that was only asking SLURM has left meanwhile.
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                assert process.environ().get("SLURM_JOB_ID", str(job.id)) == str(job.id)
                groups = Path(f"/proc/{process.pid}/cgroup").read_text()
                if netns_lab.layout.proctrack == "cgroup":
                    assert f"/job_{job.id}/" in groups
    assert told[0]["address"] != told[1]["address"]
    assert told[0]["attach"] != told[1]["attach"]
    # The end of one, which takes its session with it, is nothing to the other.
    jobs[0].cancel() if jobs[0].id != array.id else netns_lab.run("scancel", f"{array.id}_2")
    gone, left = jobs
    wait_until(lambda: not user.programs(gone), "nothing of it is left")
    assert user.status(left)["state"] == "alive"
    ran = user.lc("exec", "--", "hostname", job=left)
    assert ran.stdout == f"{netns_lab.nodes[0]}\n"
