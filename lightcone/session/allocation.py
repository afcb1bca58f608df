"""The SLURM allocation of a session: job, command lines, steps, old state."""

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
    """Return the running SLURM job of ``context``'s allocation.

    Raises:
        SessionError: where it has ended, is not this user's, or SLURM cannot be asked.
    """
    assert context.job is not None
    job = context.job
    verdict = jobs.job_state(job)
    if verdict.state is JobState.UNKNOWN:
        raise _allocation_unknown(job, verdict.why)
    if verdict.state is not JobState.ALIVE:
        raise SessionError(
            f"The allocation of this shell, SLURM job {job}, is not there ({verdict.why}): leave "
            "the shell and get another, or 'unset SLURM_JOB_ID SLURM_JOBID' to go on without one."
        )
    described = jobs.describe_job(job)
    if isinstance(described, Unknown):
        raise _allocation_unknown(job, described.why)
    if not described.is_mine:
        raise SessionError(
            f"SLURM job {job}, which SLURM_JOB_ID names, is another user's: unset that variable."
        )
    return described


def _allocation_unknown(job: int, why: str) -> SessionError:
    return SessionError(
        f"Whether the allocation of this shell, SLURM job {job}, is alive cannot be told, because "
        f"{why}: run again when SLURM answers."
    )


def ends_at(context: Context, description: Mapping[str, Any]) -> float | None:
    """When the allocation of ``context`` ends, in epoch seconds; None if it does not.

    SLURM is asked each time, as the limit can be changed. Where it does not answer, the result is
    the time in ``description``, which the session recorded when it was started.
    """
    if context.job is None:
        return None
    described = jobs.describe_job(context.job)
    if isinstance(described, Unknown):
        return cast("float | None", description.get("ends_at"))
    return described.end_time


def address_for_nodes(job: Job) -> str:
    """This host's address as the job's nodes reach it.

    Raises:
        SessionError: where there is no way between them.
    """
    others = [node for node in job.nodes if node != os.environ.get("SLURMD_NODENAME")]
    node = (others or job.nodes)[0]
    address = controller.node_address(node)
    if isinstance(address, Unknown):
        raise _allocation_unknown(job.id, address.why)
    try:
        return address_facing(address)
    except OSError as error:
        raise SessionError(
            f"This host has no way to the node {node} of SLURM job {job.id} at {address} "
            f"({error.strerror}): run lc on one of the job's nodes."
        ) from error


def allocation_windows(
    context: Context, job: Job, certificate: Path, host: str
) -> dict[str, list[str]]:
    """The command lines of the session's programs in an allocation, by role."""
    state, grace = context.state, context.settings.grace
    program = node_step_command(state, grace)
    return {
        "scheduler": scheduler_command(state, certificate, grace, host),
        "worker": steps_command(state, grace, steps.step_commands(job, program, state)),
    }


def program_environment() -> Mapping[str, str]:
    """The environment of the session's programs, without options for ``srun``."""
    return step_environment(os.environ)


def end_steps(context: Context) -> None:
    """Cancel the session's remaining steps on the allocation's nodes."""
    assert context.job is not None
    running = steps.worker_steps(context.job)
    if not isinstance(running, Unknown):
        for step in running:
            steps.cancel_step(step)


_RETENTION = 14 * 86400.0

# Each costs a request to SLURM; a later call checks the rest.
_MAX_JOBS_CHECKED = 10

_QUERY_TIMEOUT = 1.0

_LOCKS = ("spawn.lock", "owner.lock", "members.lock")


def prune_old_allocations(context: Context) -> None:
    """Remove the state of ended allocations, unused for two weeks.

    A directory is removed only where SLURM reports that its job has ended and no process holds a
    lock of the session; any other stays.
    """
    for directory, job in list(_expired_directories(context))[:_MAX_JOBS_CHECKED]:
        verdict = jobs.job_state(job, _QUERY_TIMEOUT)
        if verdict.state is JobState.UNKNOWN:
            return
        with contextlib.suppress(OSError, SessionError):
            if verdict.state is JobState.ENDED and _is_unlocked(directory):
                shutil.rmtree(directory)


def _expired_directories(context: Context) -> Iterator[tuple[Path, int]]:
    """Other allocations' state directories without recent writes, with their jobs."""
    cutoff = time.time() - _RETENTION
    for directory in sorted(context.state.parent.glob("slurm-*")):
        job = directory.name.removeprefix("slurm-")
        if directory == context.state or not job.isdigit() or directory.is_symlink():
            continue
        with contextlib.suppress(OSError):
            paths = (directory, *directory.iterdir(), *directory.glob("logs/*"))
            if max(path.lstat().st_mtime for path in paths) < cutoff:
                yield directory, int(job)


def _is_unlocked(directory: Path) -> bool:
    return all(Lock.is_free(directory / name, including_shared=True) for name in _LOCKS)
