"""What is kept of sessions whose allocations ended long ago, and its removal."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from lightcone.engine.command_lines import node_step_command, scheduler_command, steps_command
from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.project.host import address_facing
from lightcone.slurm import controller, jobs, steps
from lightcone.slurm.allocation import step_environment
from lightcone.slurm.controller import Unknown
from lightcone.slurm.jobs import Job, JobState
from lightcone.system.locks import Lock

__all__ = [
    "address_for_nodes",
    "allocation_windows",
    "end_steps",
    "ends_at",
    "live_job",
    "program_environment",
    "prune_old_allocations",
]


def live_job(context: Context) -> Job:
    """The allocation of ``context``.

    Raises:
        SessionError: where it has ended, is not this user's, or SLURM cannot be asked.
    """
    assert context.job is not None
    job = context.job
    verdict = jobs.job_state(job)
    if verdict.state is JobState.UNKNOWN:
        raise _unknown(job, verdict.why)
    if verdict.state is not JobState.ALIVE:
        raise SessionError(
            f"The allocation of this shell, SLURM job {job}, is not there ({verdict.why}): leave "
            "the shell and get another, or 'unset SLURM_JOB_ID SLURM_JOBID' to go on without one."
        )
    described = jobs.describe_job(job)
    if isinstance(described, Unknown):
        raise _unknown(job, described.why)
    if not described.is_mine:
        raise SessionError(
            f"SLURM job {job}, which SLURM_JOB_ID names, is another user's: unset that variable."
        )
    return described


def _unknown(job: int, why: str) -> SessionError:
    return SessionError(
        f"Whether the allocation of this shell, SLURM job {job}, is alive cannot be told, because "
        f"{why}: run again when SLURM answers."
    )


def ends_at(context: Context, description: Mapping[str, Any]) -> float | None:
    """When the allocation of ``context`` ends, in seconds since the epoch; None where it does not.

    Asked each time, as the limit can be changed. Where SLURM does not say, it is what it was when
    the session, which says ``description`` of itself, was started.
    """
    if context.job is None:
        return None
    described = jobs.describe_job(context.job)
    if isinstance(described, Unknown):
        return cast("float | None", description.get("ends_at"))
    return described.end_time


def address_for_nodes(job: Job) -> str:
    """The address of this host that the nodes of a job reach it at.

    Raises:
        SessionError: where there is no way between them.
    """
    others = [node for node in job.nodes if node != os.environ.get("SLURMD_NODENAME")]
    node = (others or job.nodes)[0]
    found = controller.node_address(node)
    if isinstance(found, Unknown):
        raise _unknown(job.id, found.why)
    try:
        return address_facing(found)
    except OSError as error:
        raise SessionError(
            f"This host has no way to the node {node} of SLURM job {job.id} at {found} "
            f"({error.strerror}): run lc on one of the job's nodes."
        ) from error


def allocation_windows(
    context: Context, job: Job, certificate: Path, host: str
) -> dict[str, list[str]]:
    """The command lines of the session's programs, by their part in it."""
    state, grace = context.state, context.settings.grace
    program = node_step_command(state, grace)
    return {
        "scheduler": scheduler_command(state, certificate, grace, host),
        "worker": steps_command(state, grace, steps.step_commands(job, program, state)),
    }


def program_environment() -> Mapping[str, str]:
    """The environment of the session's programs, in which ``srun`` finds no options."""
    return step_environment(os.environ)


def end_steps(context: Context) -> None:
    """End what is left of the session on the allocation's nodes, whoever started it."""
    assert context.job is not None
    found = steps.worker_steps(context.job)
    if not isinstance(found, Unknown):
        for step in found:
            steps.cancel_step(step)


_KEPT = 14 * 86400.0

# Each costs a question to SLURM; what is left is for the next time.
_AT_ONCE = 10

_PATIENCE = 1.0

_LOCKS = ("spawn.lock", "owner.lock", "members.lock")


def prune_old_allocations(context: Context) -> None:
    """Remove the state of other allocations of which nothing was written for two weeks.

    Only where SLURM says that the job has ended and nobody holds a lock of the session. What
    cannot be told or removed stays.
    """
    for directory, job in list(_old(context))[:_AT_ONCE]:
        verdict = jobs.job_state(job, _PATIENCE)
        if verdict.state is JobState.UNKNOWN:
            return
        with contextlib.suppress(OSError, SessionError):
            if verdict.state is JobState.ENDED and _is_free(directory):
                shutil.rmtree(directory)


def _old(context: Context) -> Iterator[tuple[Path, int]]:
    """The state directories of other allocations that nothing was written in for long."""
    before = time.time() - _KEPT
    for directory in sorted(context.state.parent.glob("slurm-*")):
        job = directory.name.removeprefix("slurm-")
        if directory == context.state or not job.isdigit() or directory.is_symlink():
            continue
        with contextlib.suppress(OSError):
            places = (directory, *directory.iterdir(), *directory.glob("logs/*"))
            if max(path.lstat().st_mtime for path in places) < before:
                yield directory, int(job)


def _is_free(directory: Path) -> bool:
    return all(Lock.is_free(directory / name, including_shared=True) for name in _LOCKS)
