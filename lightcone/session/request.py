"""Asking SLURM for an allocation, for a project that then has its session there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lightcone.context import Context, of
from lightcone.errors import SessionError, UsageError
from lightcone.files import private_directory, write_atomically
from lightcone.granted import VERSION, allocated_job, allocation_file
from lightcone.signals import ASK_TO_END, handled
from lightcone.slurm import jobs
from lightcone.slurm.allocation import job_id, step_environment

__all__ = ["allocate", "give_back"]

_JOB = re.compile(r"job(?: allocation)? (\d+)")
_PATIENCE = 5.0


def allocate(context: Context, options: str, say: Callable[[str], None]) -> Context:
    """The context of an allocation for the project of ``context``, asked for unless it has one.

    Blocks while the request waits in the queue; a signal to end takes it back.

    Args:
        context: the project's.
        options: for ``salloc``, as one would write them in a shell.
        say: is told, in a line, what is waited for.

    Raises:
        UsageError: inside an allocation, or where SLURM refuses the options.
        SessionError: where SLURM cannot be asked, or the allocation cannot be kept in a file.
        KeyboardInterrupt: where the request was taken back.
    """
    job = job_id(os.environ)
    if job is not None:
        raise UsageError(f"This shell is in an allocation, SLURM job {job}: leave out --allocate.")
    if context.job is not None:
        say(f"using the allocation that this project has, SLURM job {context.job}")
        return context
    path = allocation_file(context.root, context.settings)
    private_directory(path.parent.parent, "set LIGHTCONE_SCRATCH to a directory that is yours")
    private_directory(path.parent, "set LIGHTCONE_SCRATCH to a directory that is yours")
    try:
        chosen = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"The options {options!r} cannot be read ({error}).") from error
    with handled(dict.fromkeys(ASK_TO_END, _stop)):
        granted = _salloc([f"--job-name={context.name}", *chosen], say)
        try:
            _keep(path, granted, context)
        except BaseException:
            # No later call would find it, and it would be charged until its time is over.
            jobs.cancel(granted)
            raise
        say(f"SLURM granted the allocation, job {granted}")
    return of(context.root)


def give_back(context: Context) -> bool:
    """End the allocation of ``context`` if it was got by :func:`allocate`; whether it was."""
    if context.job is None or job_id(os.environ) is not None:
        return False
    if allocated_job(context.root, context.settings) != context.job:
        return False
    failed = jobs.cancel(context.job)
    if failed is not None:
        raise SessionError(
            f"The allocation, SLURM job {context.job}, could not be ended, because {failed.why}: "
            f"end it with 'scancel {context.job}'."
        )
    allocation_file(context.root, context.settings).unlink(missing_ok=True)
    return True


def _keep(path: Path, job: int, context: Context) -> None:
    told = {"version": VERSION, "job": job, "root": str(context.root)}
    try:
        write_atomically(path, json.dumps(told).encode())
    except OSError as error:
        raise SessionError(
            f"{path}, which is to name the allocation, cannot be written ({error.strerror}), and "
            "the allocation was given back: ask for one again when it can be."
        ) from error


def _salloc(options: list[str], say: Callable[[str], None]) -> int:
    """The number of the job that was granted."""
    early: list[int] = []
    try:
        # A signal that comes while it is being started would leave nobody who knows of it.
        with handled(dict.fromkeys(ASK_TO_END, lambda signum, _: early.append(signum))):
            program = subprocess.Popen(
                ["salloc", "--no-shell", *options],
                env=step_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
    except OSError as error:
        raise SessionError(
            f"SLURM's salloc cannot be run ({error.strerror}): is this a host of a cluster?"
        ) from error
    job: int | None = None
    said: list[str] = []
    with program:
        assert program.stdout is not None
        try:
            if early:
                raise KeyboardInterrupt
            for line in program.stdout:
                said.append(line.strip())
                job = job or _job_in(line)
                if "Pending" in line:
                    say(f"waiting in SLURM's queue, job {job}; Ctrl-C takes the request back")
        except KeyboardInterrupt:
            say(_take_back(program, job))
            raise
    if program.returncode == 0 and job is not None:
        return job
    errors = [line.partition("error: ")[2] for line in said if "error: " in line] or said
    why = "; ".join(errors) or "it said nothing"
    raise UsageError(f"SLURM granted no allocation ({why}): change the options of --allocate.")


def _job_in(text: str) -> int | None:
    found = _JOB.search(text)
    return int(found[1]) if found else None


def _take_back(program: subprocess.Popen[str], job: int | None) -> str:
    """End ``salloc`` and its request; what became of it, in a clause.

    A further signal ends ``salloc`` at once, and no more than that.
    """
    assert program.stdout is not None
    with handled(dict.fromkeys(ASK_TO_END, lambda *_: program.kill())):
        # It takes its request back by itself, from within its handler of the signal: a place from
        # which it may never come back.
        program.terminate()
        try:
            program.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        # It may have got the allocation at that very moment.
        job = job or _job_in(program.stdout.read())
        failed = jobs.cancel(job) if job is not None else None
    if failed is None:
        return "the request was taken back"
    return (
        f"the request, job {job}, could not be taken back, because {failed.why}: "
        f"do it with 'scancel {job}'"
    )


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
