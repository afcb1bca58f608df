"""The allocation that ``lc run --allocate`` got for a project."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lightcone import sites
from lightcone.errors import SessionError
from lightcone.files import read_object
from lightcone.settings import Settings

__all__ = [
    "VERSION",
    "allocated_job",
    "allocation_file",
    "forget",
    "living_job",
    "project_key",
    "shared_scratch",
]

VERSION = 1


def allocation_file(root: Path, settings: Settings) -> Path:
    """The file that names the allocation which ``lc run --allocate`` got for a project."""
    directory = shared_scratch(settings) / ".lightcone" / "allocations"
    return directory / f"{project_key(root)}.json"


def allocated_job(root: Path, settings: Settings) -> int | None:
    """The allocation that ``lc run --allocate`` got for the project, as far as it is written.

    Raises:
        SessionError: where a newer ``lc`` has written it.
    """
    path = allocation_file(root, settings)
    try:
        told = read_object(path)
    except (OSError, ValueError):
        return None
    version, job = told.get("version"), told.get("job")
    if isinstance(version, int) and version > VERSION:
        raise SessionError(
            f"{path}, which names the allocation of this project, was written by a newer lc: "
            "upgrade lc, or remove the file to go on without the allocation."
        )
    return job if version == VERSION and type(job) is int and job > 0 else None


def living_job(root: Path, settings: Settings) -> int | None:
    """That allocation unless it has ended, which is then forgotten.

    Raises:
        SessionError: as :func:`allocated_job`.
    """
    job = allocated_job(root, settings)
    if job is None:
        return None
    from lightcone.slurm.jobs import job_state

    if not job_state(job).state.is_over:
        return job
    forget(root, settings, job)
    return None


def forget(root: Path, settings: Settings, job: int) -> None:
    """Forget that allocation, unless the project has got another one meanwhile."""
    if allocated_job(root, settings) == job:
        allocation_file(root, settings).unlink(missing_ok=True)


def project_key(root: Path) -> str:
    """The key of a project outside any allocation."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def shared_scratch(settings: Settings) -> Path:
    """A directory that the nodes of an allocation share: home is that nearly everywhere."""
    return settings.scratch or sites.scratch() or Path.home()
