"""Allocations, step shares and command environments, from SLURM's variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightcone.slurm.nodelist import expand_counts, expand_nodes

__all__ = [
    "DEVICES",
    "Allocation",
    "Shape",
    "allocation",
    "command_environment",
    "job_id",
    "step_environment",
    "step_shape",
]

DEVICES = (
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)
"""The variables that name a program's devices, one for each vendor's libraries."""

# Which cluster is meant, and who one is to it.
_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# What of a node's variables is the whole job's. Counts of tasks there are the worker step's own.
_JOB = (
    "SLURM_CLUSTER_NAME",
    "SLURM_CONF",
    "SLURM_JOBID",
    "SLURM_JOB_GID",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_UID",
    "SLURM_JOB_USER",
)
# What SLURM tells a task of itself, of its step and of the node that it is on.
_TASK = (
    "SLURMD_",
    "SLURM_CPUS_ON_NODE",
    "SLURM_CPU_BIND",
    "SLURM_GPUS_ON_NODE",
    "SLURM_GTIDS",
    "SLURM_JOB_GPUS",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID",
    "SLURM_MEM_BIND",
    "SLURM_NODEID",
    "SLURM_PROCID",
    "SLURM_PTY_",
    "SLURM_SHARDS_ON_NODE",
    "SLURM_SRUN_COMM_",
    "SLURM_STEP",
    "SLURM_TASK_PID",
    "SLURM_TOPOLOGY_ADDR",
    "PALS_",
    "PMIX_",
    "PMI_",
)


@dataclass(frozen=True)
class Allocation:
    """The allocation that this process was started in, alive or not.

    Attributes:
        job: the job's id, for an element of an array its own.
        nodes: the names of its nodes, empty where the variables do not name them.
        cpus: the processors granted on each of them, likewise.
        node: the node that this process is on, None on the submit host.
        end_time: when it ends, in seconds since the epoch, None where unknown.
        components: 1, or how many a heterogeneous job has, of which this is the first.
    """

    job: int
    nodes: tuple[str, ...]
    cpus: tuple[int, ...]
    node: str | None
    end_time: float | None
    components: int


@dataclass(frozen=True)
class Shape:
    """The part of a node that SLURM granted to a step.

    Attributes:
        cpus: processors.
        memory: bytes, or None where SLURM does not manage memory: what the machine has.
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them.
    """

    cpus: int
    memory: int | None
    gpus: tuple[str, ...]


def job_id(environ: Mapping[str, str]) -> int | None:
    """Return the job that the variables name, alive or not."""
    text = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def allocation(environ: Mapping[str, str] = os.environ) -> Allocation | None:
    """Return the allocation that the variables describe, or None."""
    job = job_id(environ)
    if job is None:
        return None

    def variable(name: str) -> str:
        return environ.get(name) or environ.get(f"{name}_HET_GROUP_0") or ""

    try:
        nodes = expand_nodes(variable("SLURM_JOB_NODELIST"))
        cpus = expand_counts(variable("SLURM_JOB_CPUS_PER_NODE"))
    except ValueError:
        nodes, cpus = (), ()
    end = environ.get("SLURM_JOB_END_TIME", "")
    size = environ.get("SLURM_HET_SIZE", "")
    return Allocation(
        job=job,
        nodes=nodes,
        cpus=cpus if len(cpus) == len(nodes) else (),
        node=environ.get("SLURMD_NODENAME") or None,
        end_time=float(end) if end.isdigit() else None,
        components=int(size) if size.isdigit() else 1,
    )


def step_shape(environ: Mapping[str, str] = os.environ) -> Shape:
    """Return the part of this node granted to this process's step.

    ``environ`` is what SLURM gave to the step. Its figures win over the machine's.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    machine = os.cpu_count() or 1
    cpus = _number(environ, "SLURM_CPUS_ON_NODE") or usable or machine
    if usable is not None and usable < machine:
        cpus = min(cpus, usable)  # bound to some of them
    gpus = _devices(environ)
    return Shape(cpus=cpus, memory=_memory(environ, cpus, len(gpus)), gpus=gpus)


def _memory(environ: Mapping[str, str], cpus: int, gpus: int) -> int | None:
    # Set in each step by SLURM itself; the variables may be those of another step or job.
    import resource

    limit = resource.getrlimit(resource.RLIMIT_RSS)[0]
    if limit != resource.RLIM_INFINITY:
        return limit
    mib = (
        _number(environ, "SLURM_MEM_PER_NODE")
        or _number(environ, "SLURM_MEM_PER_CPU") * cpus
        or _number(environ, "SLURM_MEM_PER_GPU") * gpus
    )
    return mib * 1024 * 1024 or None


def _devices(environ: Mapping[str, str]) -> tuple[str, ...]:
    for name in (*DEVICES[:2], "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        named = [device.strip() for device in environ.get(name, "").split(",")]
        if found := tuple(device for device in named if device not in ("", "-1", "NoDevFiles")):
            return found
    return ()


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def step_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` without the variables that SLURM's commands read as options.

    ``srun``, ``squeue`` and the others read a hundred variables as if they were options, and a
    shell in an allocation has many of them set: the caller's ``-n`` or ``--mem`` is not a worker's.
    """
    options = ("SLURM", "SALLOC_", "SBATCH_", "SRUN_", "SQUEUE_", "SCANCEL_", "SCONTROL_")
    return {
        name: value
        for name, value in environ.items()
        if name in _CLUSTER or not name.startswith((*options, *_TASK, *DEVICES))
    }


def command_environment(
    caller: Mapping[str, str],
    node: Mapping[str, str],
    is_directory: Callable[[str], bool] = os.path.isdir,
) -> dict[str, str]:
    """Build the environment of a caller's command in a worker's step.

    All of the caller's, but: what SLURM said of the task and the node that the caller is on is
    left out, and this node's devices and name stand there instead. A caller that is in no job or
    in another one gets this job's variables; one that knows no more than its number gets the
    others. A temporary directory that is not on this node is replaced by the node's.
    ``SLURM_OVERLAP`` is set: else one command's ``srun`` waits, without a word, for another's to
    end.

    Args:
        caller: the caller's environment.
        node: what SLURM gave to the worker's step.
        is_directory: whether a path is a directory on this node.
    """
    environment = dict(caller)
    on_a_node = "SLURMD_NODENAME" in caller
    if job_id(caller) != job_id(node):
        environment = {
            name: environment[name]
            for name in environment
            if not name.startswith(("SLURM", "SRUN_"))
        }
    if "SLURM_JOB_NODELIST" not in environment:  # nor where the job is known by its number alone
        environment |= {name: node[name] for name in _JOB if name in node}
        if nodes := node.get("SLURM_JOB_NODELIST"):
            count = str(len(expand_nodes(nodes)))
            environment |= {
                "SLURM_NODELIST": nodes,
                "SLURM_NNODES": count,
                "SLURM_JOB_NUM_NODES": count,
            }
    environment = {name: value for name, value in environment.items() if not name.startswith(_TASK)}
    for name in DEVICES:
        if on_a_node:
            environment.pop(name, None)
        if name in node:
            environment.setdefault(name, node[name])
    if "SLURMD_NODENAME" in node:
        environment["SLURMD_NODENAME"] = node["SLURMD_NODENAME"]
    if "TMPDIR" in environment and not is_directory(environment["TMPDIR"]):
        del environment["TMPDIR"]
    if "TMPDIR" in node:
        environment.setdefault("TMPDIR", node["TMPDIR"])
    environment.setdefault("SLURM_OVERLAP", "1")
    return environment
