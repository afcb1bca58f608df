"""What SLURM's variables and lists mean, and that its commands are not waited for in vain."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from lightcone.slurm.allocation import (
    Allocation,
    allocation,
    command_environment,
    step_environment,
    step_shape,
)
from lightcone.slurm.controller import Unknown
from lightcone.slurm.jobs import (
    Job,
    JobState,
    Share,
    cancel_job,
    describe_job,
    job_state,
    time_left,
)
from lightcone.slurm.nodelist import expand_counts, expand_nodes
from lightcone.slurm.steps import step_commands, steps

# ---- Lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ""),
        ("login1", "login1"),
        ("nid[001-004,9]", "nid001 nid002 nid003 nid004 nid9"),
        ("a1,b[2-3]", "a1 b2 b3"),
        ("gpu[9-11]", "gpu9 gpu10 gpu11"),
        ("c[1-2]d[07-08]-ib,x", "c1d07-ib c1d08-ib c2d07-ib c2d08-ib x"),
    ],
)
def test_nodes(text: str, names: str) -> None:
    assert expand_nodes(text) == tuple(names.split())


@pytest.mark.parametrize("text", ["a[", "a]", ",a", "a,", "a[x]", "a[1-]", "a[1,]", "a[[1]]"])
def test_what_is_no_list_of_nodes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        expand_nodes(text)


def test_counts() -> None:
    assert expand_counts("4(x2),2") == (4, 4, 2)
    assert expand_counts("128") == (128,)
    assert expand_counts("") == ()
    with pytest.raises(ValueError, match=r"'4\(x' is not a list of counts"):
        expand_counts("4(x")


# ---- Variables -----------------------------------------------------------------------------------

SHELL = {
    "PATH": "/bin",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_CPUS_PER_NODE": "4,2",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "6",
    "SLURM_MEM_PER_NODE": "500",
}
NODE = {
    "CUDA_VISIBLE_DEVICES": "0,1",
    "SLURMD_NODENAME": "n2",
    "SLURM_CPUS_ON_NODE": "2",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "0",
    "TMPDIR": "/tmp",
}


def test_no_allocation() -> None:
    assert allocation({}) is None
    assert allocation({"SLURM_JOB_ID": ""}) is None
    assert allocation({"SLURM_JOB_ID": "none"}) is None


def test_allocation_on_the_submit_host_and_on_a_node() -> None:
    expected = Allocation(77, ("n1", "n2"), (4, 2), None, None, 1)
    assert allocation(SHELL) == expected
    on_node = {**SHELL, "SLURMD_NODENAME": "n2", "SLURM_JOB_END_TIME": "1700000000"}
    assert allocation(on_node) == Allocation(77, ("n1", "n2"), (4, 2), "n2", 1.7e9, 1)


def test_allocation_that_says_no_more_than_its_number_or_nonsense() -> None:
    assert allocation({"SLURM_JOBID": "5"}) == Allocation(5, (), (), None, None, 1)
    odd = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n[", "SLURM_JOB_CPUS_PER_NODE": "?"}
    assert allocation(odd) == Allocation(5, (), (), None, None, 1)


def test_first_component_of_a_heterogeneous_job() -> None:
    mixed = {
        "SLURM_JOB_ID": "8",
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0": "4",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n2",
    }
    assert allocation(mixed) == Allocation(8, ("n1",), (4,), None, None, 2)


def _limit(monkeypatch: pytest.MonkeyPatch, rss: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (rss, rss))


def _usable(monkeypatch: pytest.MonkeyPatch, usable: int, machine: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), False)


def test_shape_is_what_slurm_says_though_the_machine_has_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _limit(monkeypatch, 1000)
    _usable(monkeypatch, 2, 2)
    shape = step_shape({"SLURM_CPUS_ON_NODE": "64", "CUDA_VISIBLE_DEVICES": "0,1"})
    assert (shape.cpus, shape.memory, shape.gpus) == (64, 1000, ("0", "1"))


def test_shape_of_a_step_that_is_bound_to_some_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    _usable(monkeypatch, 4, 8)
    assert step_shape({"SLURM_CPUS_ON_NODE": "8"}).cpus == 4
    assert step_shape({}).cpus == 4


@pytest.mark.parametrize(
    ("said", "mib"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "500"}, 500),
        ({"SLURM_MEM_PER_CPU": "100"}, 200),
        ({"SLURM_MEM_PER_GPU": "100", "SLURM_STEP_GPUS": "0,1,2"}, 300),
    ],
)
def test_memory_where_no_limit_is_set(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], mib: int | None
) -> None:
    _limit(monkeypatch, resource.RLIM_INFINITY)
    _usable(monkeypatch, 2, 2)
    memory = step_shape({"SLURM_CPUS_ON_NODE": "2", **said}).memory
    assert memory == (None if mib is None else mib * 1024 * 1024)


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ({}, ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_STEP_GPUS": "3"}, ("0",)),
        ({"ROCR_VISIBLE_DEVICES": "0,1"}, ("0", "1")),
        ({"SLURM_STEP_GPUS": "2,3"}, ("2", "3")),
        ({"SLURM_JOB_GPUS": "1"}, ("1",)),
    ],
)
def test_gpus(said: dict[str, str], gpus: tuple[str, ...]) -> None:
    assert step_shape(said).gpus == gpus


def test_commands_of_slurm_see_no_options_of_the_shell() -> None:
    shell = {**SHELL, "SLURM_CONF": "/c", "SRUN_CPUS_PER_TASK": "3", "SQUEUE_STATES": "PD"}
    shell |= {"SLURM_EXPORT_ENV": "NONE", "CUDA_VISIBLE_DEVICES": "0", "PMI_RANK": "0"}
    assert step_environment(shell) == {"PATH": "/bin", "SLURM_CONF": "/c"}


def test_command_gets_its_callers_job_and_its_own_node() -> None:
    seen = command_environment(SHELL, NODE, lambda _: True)
    assert seen == {
        **SHELL,
        "CUDA_VISIBLE_DEVICES": "0,1",
        "SLURMD_NODENAME": "n2",
        "SLURM_OVERLAP": "1",
        "TMPDIR": "/tmp",
    }


def test_command_of_a_caller_on_another_node() -> None:
    caller = {**SHELL, "SLURMD_NODENAME": "n1", "SLURM_PROCID": "0", "SLURM_NODEID": "0"}
    caller |= {"CUDA_VISIBLE_DEVICES": "7", "SLURM_STEP_ID": "3", "SLURM_CPU_BIND_TYPE": "none"}
    caller |= {"TMPDIR": "/local/n1", "SLURM_OVERLAP": "0"}
    seen = command_environment(caller, NODE, lambda path: path == "/tmp")
    assert seen == {
        **SHELL,
        "CUDA_VISIBLE_DEVICES": "0,1",
        "SLURMD_NODENAME": "n2",
        "SLURM_OVERLAP": "0",
        "TMPDIR": "/tmp",
    }


def test_command_keeps_a_temporary_directory_that_is_on_the_node_too() -> None:
    seen = command_environment({**SHELL, "TMPDIR": "/scratch/tmp"}, NODE, lambda _: True)
    assert seen["TMPDIR"] == "/scratch/tmp"


@pytest.mark.parametrize(
    "caller", [{}, {"SLURM_JOB_ID": "3", "SLURM_NTASKS": "9"}, {"SLURM_JOB_ID": "77"}]
)
def test_command_of_a_caller_in_no_job_or_another(caller: dict[str, str]) -> None:
    seen = command_environment(caller, NODE, lambda _: True)
    assert seen == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "SLURMD_NODENAME": "n2",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "n[1-2]",
        "SLURM_OVERLAP": "1",
        "TMPDIR": "/tmp",
    }


# ---- Commands ------------------------------------------------------------------------------------


def _job(*gpus: int) -> Job:
    shares = tuple(Share(f"n{index}", 4, 0, count) for index, count in enumerate(gpus))
    nodes = tuple(share.node for share in shares)
    return Job(7, "RUNNING", 0, "debug", nodes, nodes[0], shares, None)


def test_one_command_where_the_nodes_are_alike() -> None:
    (command,) = step_commands(_job(2, 2, 2), ["prog", "-x"], Path("/"))
    assert command[0] == "srun"
    assert command[-4:] == ["--ntasks=3", "--gres=gpu:2", "prog", "-x"]


def test_one_command_for_each_node_where_their_gpus_differ() -> None:
    commands = step_commands(_job(4, 0, 1), ["prog"], Path("/"))
    assert [command[-3:] for command in commands] == [
        ["--nodelist=n0", "--gpus=4", "prog"],
        ["--nodelist=n1", "--gres=none", "prog"],
        ["--nodelist=n2", "--gpus=1", "prog"],
    ]


def test_no_slurm_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    verdict = job_state(1)
    assert verdict.state is JobState.UNKNOWN
    assert verdict.why == "squeue cannot be run (No such file or directory)"
    why = "scontrol cannot be run (No such file or directory)"
    assert describe_job(1) == Unknown(why)
    assert time_left(1) == Unknown(why)
    assert steps(1) == Unknown("squeue cannot be run (No such file or directory)")
    assert cancel_job(1) == Unknown("squeue cannot be run (No such file or directory)")


def _program(place: Path, name: str, script: str) -> None:
    path = place / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "squeue", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    began = time.monotonic()
    verdict = job_state(1, timeout=0.2)
    assert verdict.state is JobState.UNKNOWN
    assert verdict.why == "squeue did not answer within 0.2 s"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("1|1|RUNNING", JobState.ALIVE),
        ("1|1|SUSPENDED", JobState.ALIVE),
        ("1|1|CONFIGURING", JobState.ALIVE),
        ("1|1|PENDING", JobState.WAITING),
        ("1|1|COMPLETING", JobState.ENDING),
        ("1|1|TIMEOUT", JobState.ENDED),
        ("1|1|NODE_FAIL", JobState.ENDED),
        ("", JobState.ENDED),
        ("2|1_1|RUNNING\n3|1_2|PENDING", JobState.ENDED),
        ("2|1_1|RUNNING\n1|1_2|PENDING", JobState.WAITING),
    ],
)
def test_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, state: JobState
) -> None:
    _program(tmp_path, "squeue", f"printf '{said}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert job_state(1).state is state


DESCRIBED = """\
JobId=6 ArrayJobId=7 ArrayTaskId=1 JobName=x
   UserId=ada(500) GroupId=ada(500) MCS_label=N/A
   JobState=PENDING Reason=None Dependency=(null)

JobId=7 ArrayJobId=7 ArrayTaskId=2 JobName=a JobState=FAILED
   UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   StartTime=1700000000 EndTime=1700003600 Deadline=N/A
   Partition=gpu AllocNode:Sid=login1:12142
   NodeList=nid[001-003]
   BatchHost=nid001
   JOB_GRES=gpu:a100:9
     Nodes=nid[001-002] CPU_IDs=0-31,64-95 Mem=2000 GRES=gpu:a100:4(IDX:0-3)
     Nodes=nid003 CPU_IDs=5 Mem=1000 GRES=gpu:a100:1(S:0,IDX:2),craynetwork:1(IDX:1)
   Command=/home/ada/EndTime=5
"""


def test_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "scontrol", f"cat <<'END'\n{DESCRIBED}\nEND")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    mib = 1024 * 1024
    assert describe_job(7) == Job(
        id=7,
        slurm_state="RUNNING",
        uid=1000,
        partition="gpu",
        nodes=("nid001", "nid002", "nid003"),
        batch_host="nid001",
        shares=(
            Share("nid001", 64, 2000 * mib, 4),
            Share("nid002", 64, 2000 * mib, 4),
            Share("nid003", 1, 1000 * mib, 1),
        ),
        end_time=1700003600.0,
    )
    assert time_left(7) == 0.0
    assert describe_job(8) == Unknown("scontrol did not describe job 8")
