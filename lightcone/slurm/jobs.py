"""A job of SLURM's: what becomes of it, what it was granted, its end.

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
    """Whether a job has its nodes."""

    WAITING = "waiting"
    ALIVE = "alive"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to: its nodes are not to be counted on."""
        return self in (JobState.ENDING, JobState.ENDED)


@dataclass(frozen=True)
class JobVerdict:
    """What is known of a job.

    Attributes:
        state: of the job.
        why: a clause: ``SLURM says RUNNING``.
    """

    state: JobState
    why: str


@dataclass(frozen=True)
class Share:
    """What a job was granted of one node.

    Attributes:
        node: its name.
        cpus: processors, as far as SLURM says; 0 where it does not.
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
        word: SLURM's own word for its state, such as ``RUNNING``.
        uid: the user that it belongs to.
        partition: where it runs.
        nodes: the names of its nodes, in SLURM's order; none before it has begun.
        batch_host: the node that its script runs on, the first one.
        shares: what it was granted of each node; none once it has ended.
        end_time: when its time is over, in seconds since the epoch; None where it is unlimited.
        is_mixed: whether it is a component of a heterogeneous job.
    """

    id: int
    word: str
    uid: int
    partition: str
    nodes: tuple[str, ...]
    batch_host: str
    shares: tuple[Share, ...]
    end_time: float | None
    is_mixed: bool = False

    @property
    def is_mine(self) -> bool:
        """Whether it belongs to this user."""
        return self.uid == os.getuid()


def job_state(job: int, timeout: float = TIMEOUT) -> JobVerdict:
    """Whether a job has its nodes."""
    row = _row(job, timeout)
    if isinstance(row, Unknown):
        if UNKNOWN_JOB in row.why:
            return JobVerdict(JobState.ENDED, f"SLURM knows no job {job}")
        return JobVerdict(JobState.UNKNOWN, row.why)
    if row is None:
        return JobVerdict(JobState.ENDED, f"job {job} is in SLURM's queue no longer")
    return JobVerdict(_state(row[1]), f"SLURM says {row[1]}")


def _row(job: int, timeout: float) -> tuple[str, str] | Unknown | None:
    """How SLURM writes a job's id, such as ``7_2``, and its state; None where it has ended."""
    said = run_slurm(["squeue", "-h", "-j", str(job), "-o", "%A|%i|%T"], timeout)
    if isinstance(said, Unknown):
        return said
    for line in said.split():
        number, label, word = line.split("|")
        # An array's last element has the array's number, which also stands for all the others.
        if number == str(job):
            return label, word
    return None


def _state(word: str) -> JobState:
    if word == "COMPLETING":
        return JobState.ENDING
    if word in _ALIVE:
        return JobState.ALIVE
    return JobState.WAITING if word in _WAITING else JobState.ENDED


def describe_job(job: int, timeout: float = TIMEOUT) -> Job | Unknown:
    """Everything about a job that SLURM knows, as long as it remembers it."""
    said = run_slurm(["scontrol", "show", "job", "-d", str(job)], timeout)
    if isinstance(said, Unknown):
        return Unknown(f"SLURM knows no job {job}") if UNKNOWN_JOB in said.why else said
    for record in re.split(r"\n\s*\n", said):
        first, *lines = record.strip().split("\n")
        if first.split()[:1] == [f"JobId={job}"]:
            try:
                is_mixed = " HetJobId=" in first
                return _job(job, is_mixed, [line.split() for line in lines])
            except (KeyError, ValueError) as error:
                return Unknown(f"scontrol described job {job} in an unknown form ({error})")
    return Unknown(f"scontrol did not describe job {job}")


def _job(number: int, is_mixed: bool, lines: Sequence[Sequence[str]]) -> Job:
    fields: dict[str, str] = {}
    shares: list[Share] = []
    for words in lines:
        pairs = dict(word.partition("=")[::2] for word in words)
        if words and words[0].startswith("Nodes="):
            shares += _shares(pairs)
        else:
            fields = pairs | fields  # free text, such as a path, comes last
    nodes = "" if fields.get("NodeList") == "(null)" else fields.get("NodeList", "")
    user = re.fullmatch(r".*\((\d+)\)", fields["UserId"])
    end = fields.get("EndTime", "Unknown")
    return Job(
        id=number,
        word=fields["JobState"],
        uid=int(user[1]) if user else -1,
        partition=fields.get("Partition", ""),
        nodes=expand_nodes(nodes),
        batch_host=fields.get("BatchHost", ""),
        shares=tuple(shares),
        end_time=float(end) if end.isdigit() else None,
        is_mixed=is_mixed,
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
    """Seconds until a job's time is over: ``math.inf`` where it is unlimited, never below 0."""
    described = describe_job(job, timeout)
    if isinstance(described, Unknown):
        return described
    if described.end_time is None:
        return math.inf
    return max(0.0, described.end_time - time.time())


def cancel_job(job: int, timeout: float = TIMEOUT) -> Unknown | None:
    """End a job, or take its request back. One that is over is fine.

    Of an array no more than that element.
    """
    row = _row(job, timeout)
    if isinstance(row, Unknown):
        return None if UNKNOWN_JOB in row.why else row
    if row is None:
        return None
    # An element of an array cannot be cancelled by its own number, nor the last one alone by it.
    return cancel_by_name(row[0] if "_" in row[0] else str(job), timeout)


def cancel_by_name(what: str, timeout: float) -> Unknown | None:
    """End what SLURM writes so, a job or a step. One that is over is fine."""
    # It leaves with 0 though it could not do what it was to do.
    said = run_slurm(["scancel", what], timeout, strict=True)
    over = isinstance(said, Unknown) and any(words in said.why for words in _OVER)
    return said if isinstance(said, Unknown) and not over else None
