"""What is kept of sessions whose allocations ended long ago, and its removal."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.locks import Lock
from lightcone.slurm import jobs
from lightcone.slurm.jobs import JobState

__all__ = ["prune"]

_KEPT = 14 * 86400.0
# Each costs a question to SLURM; what is left is for the next time.
_AT_ONCE = 10
_PATIENCE = 1.0
_LOCKS = ("spawn.lock", "owner.lock", "members.lock")


def prune(context: Context) -> None:
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
    return all(Lock.is_free(directory / name, of_all=True) for name in _LOCKS)
