"""The file that records a project's allocation from ``lc run --allocate``."""

from __future__ import annotations

import json
from pathlib import Path

from lightcone.errors import SessionError
from lightcone.system.files import read_object, write_atomically

__all__ = [
    "ALLOCATION_VERSION",
    "forget_allocation",
    "live_allocation",
    "read_allocation",
    "write_allocation",
]

ALLOCATION_VERSION = 1


def read_allocation(path: Path) -> int | None:
    """Return the job that the file names, or None where it is unreadable.

    Raises:
        SessionError: where a newer ``lc`` has written it.
    """
    try:
        record = read_object(path)
    except (OSError, ValueError):
        return None
    version, job = record.get("version"), record.get("job")
    if isinstance(version, int) and version > ALLOCATION_VERSION:
        raise SessionError(
            f"{path}, which names the allocation of this project, was written by a newer lc: "
            "upgrade lc, or remove the file to go on without the allocation."
        )
    return job if version == ALLOCATION_VERSION and type(job) is int and job > 0 else None


def live_allocation(path: Path) -> int | None:
    """Return the file's job, or remove the file of an ended job.

    Raises:
        SessionError: as :func:`read_allocation`.
    """
    job = read_allocation(path)
    if job is None:
        return None
    from lightcone.slurm.jobs import job_state

    if not job_state(job).state.is_over:
        return job
    forget_allocation(path, job)
    return None


def write_allocation(path: Path, job: int, root: Path) -> None:
    """Record ``job`` as the allocation of the project at ``root``.

    Raises:
        OSError: where the file cannot be written.
    """
    record = {"version": ALLOCATION_VERSION, "job": job, "root": str(root)}
    write_atomically(path, json.dumps(record).encode())


def forget_allocation(path: Path, job: int) -> None:
    """Remove the file, unless it names another job by now."""
    if read_allocation(path) == job:
        path.unlink(missing_ok=True)
