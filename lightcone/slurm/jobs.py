"""SLURM jobs: their state, their granted resources, their end.

As with the controller, nothing here waits for longer than its timeout, and nothing raises.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lightcone.slurm.controller import TIMEOUT, UNKNOWN_JOB, Unknown, run_slurm
from lightcone.slurm.nodelist import expand_nodes

__all__ = [
    "Job",
    "JobState",
    "JobVerdict",
    "Share",
    "cancel_by_name",
    "cancel_job",
    "describe_job",
    "job_state",
    "time_left",
]

_OVER = (UNKNOWN_JOB, "already completing or completed")
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_ALIVE = ("RUNNING", "SUSPENDED", "CONFIGURING", "RESIZING", "SIGNALING", "STOPPED", "STAGE_OUT")


class JobState(StrEnum):
    """The states of a job, by whether it has its nodes."""

    WAITING = "waiting"
    ALIVE = "alive"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended or is ending, and loses its nodes."""
        return self in (JobState.ENDING, JobState.ENDED)


@dataclass(frozen=True)
class JobVerdict:
    """A job's state and the evidence for it.

    Attributes:
        state: of the job.
        why: a clause: ``SLURM says RUNNING``.
    """

    state: JobState
    why: str


@dataclass(frozen=True)
class Share:
    """The resources that a job was granted on one node.

    Attributes:
        node: its name.
        cpus: processors; 0 where SLURM does not list them.
        memory: bytes, 0 where SLURM does not manage memory.
        gpus: how many.
    """

    node: str
    cpus: int
    memory: int
    gpus: int


@dataclass(frozen=True)
class Job:
    """A job, as SLURM describes it.

    Attributes:
        id: its number.
        slurm_state: SLURM's own word for its state, such as ``RUNNING``.
        uid: the user that it belongs to.
        partition: where it runs.
        nodes: the names of its nodes, in SLURM's order; none before it has begun.
        batch_host: the node that its script runs on, the first one.
        shares: what it was granted of each node; none once it has ended.
        end_time: when its time is over, in seconds since the epoch; None where it is unlimited.
        is_heterogeneous: whether it is a component of a heterogeneous job.
    """

    id: int
    slurm_state: str
    uid: int
    partition: str
    nodes: tuple[str, ...]
    batch_host: str
    shares: tuple[Share, ...]
    end_time: float | None
    is_heterogeneous: bool = False

    @property
    def is_mine(self) -> bool:
        """Whether the job belongs to this user."""
        return self.uid == os.getuid()


def job_state(job: int, timeout: float = TIMEOUT) -> JobVerdict:
    """Ask SLURM whether a job has its nodes."""
    row = _row(job, timeout)
    if isinstance(row, Unknown):
        if UNKNOWN_JOB in row.why:
            return JobVerdict(JobState.ENDED, f"SLURM knows no job {job}")
        return JobVerdict(JobState.UNKNOWN, row.why)
    if row is None:
        return JobVerdict(JobState.ENDED, f"job {job} is in SLURM's queue no longer")
    return JobVerdict(_state(row[1]), f"SLURM says {row[1]}")


def _row(job: int, timeout: float) -> tuple[str, str] | Unknown | None:
    """Query a job's id, as SLURM writes it (``7_2``), and its state.

    None where the job has ended.
    """
    output = run_slurm(["squeue", "-h", "-j", str(job), "-o", "%A|%i|%T"], timeout)
    if isinstance(output, Unknown):
        return output
    for line in output.split():
        number, label, slurm_state = line.split("|")
        # An array's last element has the array's number, which also stands for all the others.
        if number == str(job):
            return label, slurm_state
    return None


def _state(slurm_state: str) -> JobState:
    if slurm_state == "COMPLETING":
        return JobState.ENDING
    if slurm_state in _ALIVE:
        return JobState.ALIVE
    return JobState.WAITING if slurm_state in _WAITING else JobState.ENDED


def describe_job(job: int, timeout: float = TIMEOUT) -> Job | Unknown:
    """Query SLURM's description of a job, while SLURM remembers it."""
    output = run_slurm(["scontrol", "show", "job", "-d", str(job)], timeout)
    if isinstance(output, Unknown):
        return Unknown(f"SLURM knows no job {job}") if UNKNOWN_JOB in output.why else output
    for record in re.split(r"\n\s*\n", output):
        first, *lines = record.strip().split("\n")
        if first.split()[:1] == [f"JobId={job}"]:
            try:
                is_heterogeneous = " HetJobId=" in first
                return _job(job, is_heterogeneous, [line.split() for line in lines])
            except (KeyError, ValueError) as error:
                return Unknown(f"scontrol described job {job} in an unknown form ({error})")
    return Unknown(f"scontrol did not describe job {job}")


def _job(number: int, is_heterogeneous: bool, lines: Sequence[Sequence[str]]) -> Job:
    fields: dict[str, str] = {}
    shares: list[Share] = []
    for entries in lines:
        pairs = dict(entry.partition("=")[::2] for entry in entries)
        if entries and entries[0].startswith("Nodes="):
            shares += _shares(pairs)
        else:
            fields = pairs | fields  # free text, such as a path, comes last
    nodes = "" if fields.get("NodeList") == "(null)" else fields.get("NodeList", "")
    user = re.fullmatch(r".*\((\d+)\)", fields["UserId"])
    end = fields.get("EndTime", "Unknown")
    return Job(
        id=number,
        slurm_state=fields["JobState"],
        uid=int(user[1]) if user else -1,
        partition=fields.get("Partition", ""),
        nodes=expand_nodes(nodes),
        batch_host=fields.get("BatchHost", ""),
        shares=tuple(shares),
        end_time=float(end) if end.isdigit() else None,
        is_heterogeneous=is_heterogeneous,
    )


def _shares(pairs: Mapping[str, str]) -> list[Share]:
    cpus = sum(
        int(last or first) - int(first) + 1
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", pairs.get("CPU_IDs", ""))
    )
    memory = int(pairs.get("Mem", "0")) * 1024 * 1024
    # gpu:4(IDX:0-3), gpu:a100:2(S:0,IDX:1,3): the count stands before the bracket.
    gpus = sum(map(int, re.findall(r"\bgpu(?::[^:(,]+)?:(\d+)\(", pairs.get("GRES", ""))))
    return [Share(node, cpus, memory, gpus) for node in expand_nodes(pairs["Nodes"])]


def time_left(job: int, timeout: float = TIMEOUT) -> float | Unknown:
    """Return the seconds until a job's time is over, at least 0.

    ``math.inf`` where its time is unlimited.
    """
    described = describe_job(job, timeout)
    if isinstance(described, Unknown):
        return described
    if described.end_time is None:
        return math.inf
    return max(0.0, described.end_time - time.time())


def cancel_job(job: int, timeout: float = TIMEOUT) -> Unknown | None:
    """Cancel a running or waiting job; an ended one is no error.

    Of an array, only that element is cancelled.
    """
    row = _row(job, timeout)
    if isinstance(row, Unknown):
        return None if UNKNOWN_JOB in row.why else row
    if row is None:
        return None
    # An element of an array cannot be cancelled by its own number, nor the last one alone by it.
    return cancel_by_name(row[0] if "_" in row[0] else str(job), timeout)


def cancel_by_name(target: str, timeout: float) -> Unknown | None:
    """Cancel a job or step by SLURM's id, unless it has ended."""
    # Strict, because scancel exits with 0 even where it fails.
    output = run_slurm(["scancel", target], timeout, strict=True)
    over = isinstance(output, Unknown) and any(message in output.why for message in _OVER)
    return output if isinstance(output, Unknown) and not over else None
