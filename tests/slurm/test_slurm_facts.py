"""What the session relies on, asked of a real SLURM."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcone.slurm import jobs as slurm
from lightcone.slurm.allocation import allocation, command_environment, step_environment
from lightcone.slurm.controller import Unknown
from lightcone.slurm.jobs import Job, JobState
from lightcone.slurm.nodelist import expand_nodes
from lightcone.slurm.steps import Step, cancel_step, step_commands, steps, worker_steps
from tests.helpers import end, end_at_once, wait_until
from tests.slurm import job as lab_job
from tests.slurm.lab import Lab

# Runs in a step: what it was granted, to a file named after its node.
_REPORT = """\
import dataclasses, json, os, sys
from functools import partial
from pathlib import Path
from lightcone.slurm.allocation import step_shape
told = {"shape": dataclasses.asdict(step_shape()), "env": dict(os.environ), "cwd": os.getcwd()}
place = Path(sys.argv[1], os.environ["SLURMD_NODENAME"])
place.with_suffix(".new").write_text(json.dumps(told))
place.with_suffix(".new").rename(place.with_suffix(".json"))
if len(sys.argv) > 2:
    os.execvp(sys.argv[2], sys.argv[2:])
"""
# Not what a batch script sleeps with.
_WAIT = ("tail", "-f", "/dev/null")


@pytest.fixture(autouse=True)
def _configured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lab", "netns_lab"):
        if name in request.fixturenames:
            lab: Lab = request.getfixturevalue(name)
            monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])


def _described(job: lab_job.Job) -> Job:
    described = slurm.describe_job(job.id)
    assert isinstance(described, Job), described
    return described


class _Workers:
    """Stand-ins for the workers of a session, one on each node of a job."""

    def __init__(self, lab: Lab, job: lab_job.Job, place: Path) -> None:
        self.place = place
        self.lab = lab
        program = [sys.executable, "-c", _REPORT, str(place), *_WAIT]
        root = str(Path(slurm.__file__).parents[2])
        # From outside the allocation, as any host may be the one that starts them.
        env = step_environment({**job.env, "PYTHONPATH": root})
        commands = step_commands(_described(job), program, lab.base)
        self.programs = [lab.popen(*command, env=env) for command in commands]
        self.nodes = _described(job).nodes
        wait_until(lambda: len(list(place.glob("*.json"))) == len(self.nodes), "all report")
        wait_until(lambda: len(self.running()) == len(self.nodes), "all run")

    def told(self, node: str) -> dict[str, dict[str, str]]:
        """What the one on a node has reported."""
        told: dict[str, dict[str, str]] = json.loads((self.place / f"{node}.json").read_text())
        return told

    def shapes(self) -> list[tuple[int, int | None, int]]:
        """The processors, MiB and GPUs of each."""
        found = []
        for node in self.nodes:
            shape = json.loads((self.place / f"{node}.json").read_text())["shape"]
            memory = shape["memory"] and shape["memory"] // 2**20
            found.append((shape["cpus"], memory, len(shape["gpus"])))
        return found

    def running(self) -> list[str]:
        """The nodes on which one runs."""
        return [node for node in self.lab.nodes if self.lab.named(_WAIT[0], node)]

    def are_gone(self) -> bool:
        """Whether none runs."""
        return not self.running()


# ---- Whether a job is alive ----------------------------------------------------------------------


def test_job_from_its_beginning_to_its_end(lab: Lab) -> None:
    job = lab.salloc("-N2")
    assert slurm.job_state(job.id) == slurm.JobVerdict(JobState.ALIVE, "SLURM says RUNNING")
    waiting = lab.sbatch("true", "-N2", "--exclusive")
    assert slurm.job_state(waiting.id).state is JobState.WAITING
    assert slurm.cancel_job(waiting.id) is None
    assert slurm.job_state(waiting.id).state is JobState.ENDED
    job.cancel()
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDED, "it has ended")
    assert slurm.cancel_job(job.id) is None


def test_job_that_never_was(lab: Lab) -> None:
    assert slurm.job_state(67_000_000) == slurm.JobVerdict(
        JobState.ENDED, "SLURM knows no job 67000000"
    )
    assert slurm.describe_job(67_000_000) == Unknown("SLURM knows no job 67000000")
    assert steps(67_000_000) == []
    assert slurm.cancel_job(67_000_000) is None


def test_job_whose_shell_is_left(lab: Lab) -> None:
    job = lab.salloc("-N1")
    job.exit()
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDED, "it has ended")


def test_job_that_is_suspended_is_alive(lab: Lab) -> None:
    job = lab.salloc_no_shell("-N1")
    lab.run("scontrol", "suspend", str(job.id))
    assert slurm.job_state(job.id) == slurm.JobVerdict(JobState.ALIVE, "SLURM says SUSPENDED")
    lab.run("scontrol", "resume", str(job.id))


def test_job_whose_processes_ignore_term_is_ending(lab: Lab) -> None:
    job = lab.sbatch("trap '' TERM; echo up; while :; do sleep 0.1; done")
    wait_until(lambda: "up" in lab.output(job), "it runs")
    job.cancel()
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDING, "it is ending")
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDED, "it has ended")


def test_elements_of_an_array_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    array = lab.sbatch("sleep 600", "-N1", "--array=1-3", "--mem=100")

    def elements() -> set[int]:
        return {int(n) for n in lab.run("squeue", "-h", "-t", "R", "-o", "%A").stdout.split()}

    wait_until(lambda: len(elements()) == 3, "all run")
    last, one, other = array.id, *sorted(elements() - {array.id})
    for number in (last, one, other):
        assert slurm.job_state(number).state is JobState.ALIVE
        described = slurm.describe_job(number)
        assert isinstance(described, Job) and described.id == number
        workers = _Workers(lab, lab_job.Job(number, lab.env, lab.run), tmp_path)
        assert workers.shapes() == [(1, 100, 0)]
        (step,) = _steps(worker_steps(number))
        assert cancel_step(step) is None
        wait_until(workers.are_gone, "its workers are gone")
        (tmp_path / f"{workers.nodes[0]}.json").unlink()
    # The last one has the array's own number, which also stands for the others.
    for number, left in ((last, {one, other}), (other, {one}), (one, set[int]())):
        assert slurm.cancel_job(number) is None
        wait_until(partial(_has_ended, number), "it has ended")
        assert elements() == left


def _has_ended(number: int) -> bool:
    return slurm.job_state(number).state is JobState.ENDED


def test_silent_controller_is_unknown_in_time(lab: Lab) -> None:
    job = lab.salloc("-N1")
    with lab.frozen_controller():
        began = time.monotonic()
        verdict = slurm.job_state(job.id, timeout=1.0)
        assert verdict.state is JobState.UNKNOWN
        assert verdict.why == "squeue did not answer within 1 s"
        assert slurm.time_left(job.id, timeout=0.1) == Unknown(
            "scontrol did not answer within 0.1 s"
        )
        assert time.monotonic() - began < 15  # SLURM's own commands give up after 20
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ALIVE, "it answers again")


def test_absent_controller_is_unknown_and_then_back(lab: Lab) -> None:
    job = lab.salloc("-N1")
    with lab.no_controller():
        assert slurm.job_state(job.id, timeout=1.0).state is JobState.UNKNOWN
        assert isinstance(slurm.cancel_job(job.id, timeout=1.0), Unknown)
    assert slurm.job_state(job.id).state is JobState.ALIVE


# ---- What was granted ----------------------------------------------------------------------------


def test_allocation_from_its_shell_and_from_its_steps(lab: Lab) -> None:
    job = lab.salloc("-N2", "-n6")
    found = allocation(job.env)
    assert found is not None
    assert (found.job, list(found.nodes), found.cpus) == (job.id, lab.nodes, (4, 2))
    assert found.node is None
    named = job.run("srun", "-N2", "-n2", "printenv", "SLURMD_NODENAME").stdout.split()
    assert sorted(named) == lab.nodes


def test_description(lab: Lab) -> None:
    job = lab.salloc("-N2", "-n6", "--mem=500", "--gres=gpu:2", "--time=5")
    described = _described(job)
    assert described.slurm_state == "RUNNING"
    assert described.is_mine
    assert list(described.nodes) == lab.nodes
    assert described.batch_host == lab.nodes[0]
    assert [(each.node, each.cpus, each.memory, each.gpus) for each in described.shares] == [
        (lab.nodes[0], 4, 500 * 2**20, 2),
        (lab.nodes[1], 2, 500 * 2**20, 2),
    ]
    assert described.end_time is not None
    assert 0 < described.end_time - time.time() <= 300
    assert slurm.time_left(lab.salloc("-N1", "-n1", "--mem=10").id) == math.inf


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ("-N2 --exclusive", [(4, 8000, 2)] * 2),
        ("-n6 --mem=500", [(4, 500, 0), (2, 500, 0)]),
        ("-n8", [(4, 8000, 0)] * 2),
        ("-N2 -c3 --mem-per-cpu=100", [(3, 300, 0)] * 2),
        ("-N2 --ntasks-per-node=2 --gres=gpu:2 --mem=0", [(2, 8000, 2)] * 2),
        ("-N2 --gpus-per-node=1 --mem-per-gpu=50", [(1, 50, 1)] * 2),
        ("-N2 --gpus=4", [(1, 8000, 2)] * 2),
        ("-N2 --gpus=3", [(1, 8000, 2), (1, 8000, 1)]),
        ("-N2 -n3 --gpus-per-task=1", [(2, 8000, 2), (1, 8000, 1)]),
        ("-N1 -n1 --gpus-per-task=2", [(1, 8000, 2)]),
    ],
)
def test_workers_have_their_nodes_whole_share(
    lab: Lab, tmp_path: Path, options: str, shapes: list[tuple[int, int, int]]
) -> None:
    job = lab.salloc(*options.split())
    workers = _Workers(lab, job, tmp_path)
    assert workers.shapes() == shapes
    # No variable of the shell stands there that could be taken for the node's.
    assert "SLURM_MEM_PER_CPU" not in workers.told(workers.nodes[0])["env"]
    found = worker_steps(job.id)
    assert isinstance(found, list)
    assert sorted(node for step in found for node in step.nodes) == list(workers.nodes)
    if len(set(shapes)) == 1:  # else SLURM itself refuses a step over all of them
        job.run("srun", "true")


def test_first_component_of_a_heterogeneous_job(lab: Lab, tmp_path: Path) -> None:
    job = lab.salloc("-N1", "-n2", ":", "-N1", "-n1")
    found = allocation(job.env)
    assert found is not None
    assert (found.nodes, found.cpus, found.components) == ((lab.nodes[0],), (2,), 2)
    assert _Workers(lab, job, tmp_path).shapes() == [(2, 8000, 0)]


def test_binding_of_the_shells_step_is_not_the_workers(
    make_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(nodes=1, cpus=2, extra="TaskPlugin=task/affinity")
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    job = lab.salloc("-n2")
    job.env["SLURM_CPU_BIND"] = "quiet,mask_cpu:0x1"
    assert _Workers(lab, job, tmp_path).shapes() == [(2, 8000, 0)]


# ---- Steps of the user's -------------------------------------------------------------------------


def test_inner_steps_start_at_once_and_side_by_side(netns_lab: Lab, tmp_path: Path) -> None:
    lab = netns_lab
    job = lab.salloc("-N2", "-n8")
    workers = _Workers(lab, job, tmp_path)
    first, second = workers.nodes
    # As a recipe on the second node does, first for a caller in the job's shell, then for one
    # without any variable of a job.
    for caller in (job.env, lab.env):
        env = command_environment(caller, workers.told(second)["env"])
        ask = ["srun", "-n8", "printenv", "SLURMD_NODENAME"]
        spread = lab.run(*lab.on(second), *ask, env=env)
        assert sorted(spread.stdout.split()) == [first] * 4 + [second] * 4
    # Each waits for the other to begin: one after the other they would never end.
    meet = f"touch {tmp_path}/$0; until [ -e {tmp_path}/$1 ]; do sleep 0.05; done"
    env = command_environment(job.env, workers.told(first)["env"])
    pair = [lab.popen("srun", "-n8", "sh", "-c", meet, *names, env=env) for names in ("ab", "ba")]
    assert [each.wait(60) for each in pair] == [0, 0]


def test_nodes_of_a_lab_are_hosts(netns_lab: Lab, tmp_path: Path) -> None:
    lab = netns_lab
    job = lab.salloc("-N2")
    look = f"hostname; cat /proc/sys/kernel/random/boot_id; ls {lab.local}; touch {lab.local}/x"
    look += "; cat /sys/class/net/lo/ifindex"
    seen = job.run("srun", "-N2", "-n2", "--label", "sh", "-c", look).stdout.splitlines()
    (one, two) = ([line[3:] for line in seen if line.startswith(f"{n}: ")] for n in (0, 1))
    assert [one[0], two[0]] == lab.nodes
    assert lab.run(*lab.on(lab.nodes[1]), "hostname").stdout.strip() == lab.nodes[1]
    assert len({one[1], two[1], Path("/proc/sys/kernel/random/boot_id").read_text().strip()}) == 3
    assert not (lab.local / "x").exists()
    # A server on one node's loopback is out of another's reach; on its address it is not.
    serve = "import socket,sys,time; s = socket.create_server((sys.argv[1], 0));"
    serve += "print(s.getsockname()[1], flush=True); time.sleep(600)"
    reach = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    assert lab.network is not None
    for host, code in (("127.0.0.1", 1), (lab.network.address(lab.nodes[0]), 0)):
        told = tmp_path / host
        step = ["srun", "--overlap", "-N1", "-n1", f"--output={told}"]
        lab.popen(*step, "-w", lab.nodes[0], sys.executable, "-c", serve, host, env=job.env)
        wait_until(partial(_has_text, told), "it listens")
        ask = [sys.executable, "-c", reach, host, told.read_text().strip()]
        job.run("srun", "--overlap", "-N1", "-n1", "-w", lab.nodes[1], *ask, check=code)


def _has_text(path: Path) -> bool:
    return path.exists() and bool(path.read_text().strip())


# ---- Ends ----------------------------------------------------------------------------------------


def test_worker_that_ends_takes_no_other_with_it(lab: Lab, tmp_path: Path) -> None:
    job = lab.salloc("-N2")
    workers = _Workers(lab, job, tmp_path)
    end(lab.named(_WAIT[0], lab.nodes[0]))
    wait_until(lambda: workers.running() == lab.nodes[1:], "the first is gone")
    (program,) = workers.programs
    job.run("srun", "--overlap", "-N2", "-n2", "true")
    assert program.poll() is None
    assert workers.running() == lab.nodes[1:]


def test_step_whose_srun_was_killed_is_found_and_ended(lab: Lab, tmp_path: Path) -> None:
    job = lab.salloc("-N2")
    workers = _Workers(lab, job, tmp_path)
    # It has a child that ends the step when it dies.
    end_at_once(lab.named("srun"))
    (orphan,) = _steps(worker_steps(job.id))
    assert orphan.nodes == workers.nodes
    assert workers.running() == lab.nodes
    assert cancel_step(orphan) is None
    wait_until(workers.are_gone, "the workers are gone")
    wait_until(lambda: _steps(worker_steps(job.id)) == [], "the step is over")
    assert slurm.job_state(job.id).state is JobState.ALIVE
    assert cancel_step(orphan) is None


def _steps(found: list[Step] | Unknown) -> list[Step]:
    assert isinstance(found, list), found
    return found


@pytest.mark.parametrize("how", ["cancel", "expire", "exit"])
def test_workers_end_with_their_job(lab: Lab, tmp_path: Path, how: str) -> None:
    job = lab.salloc("-N2", "--time=5")
    workers = _Workers(lab, job, tmp_path)
    left = slurm.time_left(job.id)
    assert isinstance(left, float) and 0 < left <= 300
    getattr(job, how)()  # SLURM looks at time limits every 30 s
    wait_until(workers.are_gone, "the workers are gone", 60.0)
    wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDED, "it has ended")


@pytest.mark.parametrize("keep", [True, False])
def test_node_that_is_lost(
    make_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    lab = make_lab(nodes=2)
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    job = lab.salloc("-N2", *(["--no-kill"] if keep else []))
    workers = _Workers(lab, job, tmp_path)
    lab.lose(lab.nodes[1])
    # At once what otherwise takes the controller SlurmdTimeout.
    lab.run("scontrol", "update", f"NodeName={lab.nodes[1]}", "State=DOWN", "Reason=test")
    if keep:
        assert workers.running() == lab.nodes[:1]
        assert slurm.job_state(job.id).state is JobState.ALIVE
        assert _described(job).nodes == workers.nodes[:1]
    else:
        wait_until(lambda: slurm.job_state(job.id).state is JobState.ENDED, "it has ended")
        wait_until(workers.are_gone, "the workers are gone")
    lab.mend(lab.nodes[1])


# ---- In a terminal -------------------------------------------------------------------------------


def test_interactive_step(make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab(extra="LaunchParameters=use_interactive_step")
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    terminal = lab.terminal("salloc", "-N2", env={"SHELL": "/bin/sh", "PS1": "$ "})
    terminal.type(f"env -0 > {lab.base}/told; echo to''ld")
    terminal.wait_for("told\r")
    words = (lab.base / "told").read_text().split("\0")
    found = allocation(dict(word.partition("=")[::2] for word in words))
    assert found is not None
    assert (list(found.nodes), found.node) == (lab.nodes, lab.nodes[0])
    terminal.type("exit")
    terminal.wait()
    wait_until(lambda: slurm.job_state(found.job).state is JobState.ENDED, "it has ended")


# ---- Lists of nodes ------------------------------------------------------------------------------


@st.composite
def _ranges(draw: st.DrawFn) -> str:
    width = draw(st.integers(1, 4))
    first = draw(st.integers(0, min(10**width - 1, 9000)))
    last = first + draw(st.integers(0, 5))
    return f"{first:0{width}d}" + (f"-{last:0{width}d}" if draw(st.booleans()) else "")


_PLAIN = st.text("abn-", min_size=1, max_size=3).filter(lambda text: text[0] != "-")
_BRACKETS = st.lists(_ranges(), min_size=1, max_size=3).map(lambda each: f"[{','.join(each)}]")
_NAMES = st.builds("".join, st.tuples(_PLAIN, _BRACKETS)) | _PLAIN
_LISTS = st.lists(_NAMES, min_size=1, max_size=4).map(",".join)


@pytest.fixture(scope="module")
def _any_configuration(_module_lab: Lab) -> Iterator[Lab]:
    yield _module_lab


@settings(max_examples=60)
@given(text=_LISTS)
def test_lists_of_nodes_are_what_slurm_takes_them_for(_any_configuration: Lab, text: str) -> None:
    said = _any_configuration.run("scontrol", "show", "hostnames", text).stdout.split()
    assert list(expand_nodes(text)) == said
