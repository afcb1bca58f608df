"""The session of an allocation: whether SLURM grants it still, and the programs on its nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightcone.cluster import command
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.host import address_facing
from lightcone.slurm import controller, jobs, steps
from lightcone.slurm.allocation import step_environment
from lightcone.slurm.controller import Unknown
from lightcone.slurm.jobs import Job, JobState

__all__ = ["address", "end_steps", "ends_at", "environment", "granted", "windows"]


def granted(context: Context) -> Job:
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
    described = jobs.describe(job)
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
    described = jobs.describe(context.job)
    if isinstance(described, Unknown):
        return cast("float | None", description.get("ends_at"))
    return described.end_time


def address(job: Job) -> str:
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


def windows(context: Context, job: Job, certificate: Path, host: str) -> dict[str, list[str]]:
    """The command lines of the session's programs, by their part in it."""
    state, grace = context.state, context.settings.grace
    program = command.on_node(state, grace)
    return {
        "scheduler": command.scheduler(state, certificate, grace, host),
        "worker": command.steps(state, grace, steps.step_commands(job, program, state)),
    }


def environment() -> Mapping[str, str]:
    """The environment of the session's programs, in which ``srun`` finds no options."""
    return step_environment(os.environ)


def end_steps(context: Context) -> None:
    """End what is left of the session on the allocation's nodes, whoever started it."""
    assert context.job is not None
    found = steps.worker_steps(context.job)
    if not isinstance(found, Unknown):
        for step in found:
            steps.cancel_step(step)
