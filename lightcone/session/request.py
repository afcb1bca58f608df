"""Requests to SLURM for a project's allocation, in which its session then runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lightcone.errors import SessionError, UsageError
from lightcone.project.context import Context, allocation_file, context_of
from lightcone.slurm import jobs
from lightcone.slurm.allocation import job_id, step_environment
from lightcone.slurm.allocation_file import forget_allocation, read_allocation, write_allocation
from lightcone.system.files import private_directory
from lightcone.system.guard import die_with_parent
from lightcone.system.locks import Lock
from lightcone.system.signals import TERMINATION_SIGNALS, signal_handlers

__all__ = ["allocate", "end_allocation"]

_JOB = re.compile(r"job(?: allocation)? (\d+)")
_TERM_TIMEOUT = 5.0


def allocate(context: Context, options: str, notify: Callable[[str], None]) -> Context:
    """Return the context of the project's allocation, requesting one if it has none.

    It blocks while the request waits in the queue. The request is cancelled where a signal or an
    error ends the wait, and on Linux where this process is killed. Of several calls one makes the
    request, and the others wait.

    Args:
        context: the project's.
        options: for ``salloc``, as one would write them in a shell.
        notify: called with a line of text about each wait.

    Raises:
        UsageError: inside an allocation, or where SLURM refuses the options.
        SessionError: where SLURM cannot be asked, or the allocation cannot be kept in a file.
        KeyboardInterrupt: where the request was cancelled.
    """
    job = job_id(os.environ)
    if job is not None:
        raise UsageError(f"This shell is in an allocation, SLURM job {job}: leave out --allocate.")
    path = allocation_file(context.root, context.settings)
    private_directory(path.parent.parent, "set LIGHTCONE_SCRATCH to a directory that is yours")
    private_directory(path.parent, "set LIGHTCONE_SCRATCH to a directory that is yours")
    try:
        arguments = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"The options {options!r} cannot be read ({error}).") from error
    with (
        signal_handlers(dict.fromkeys(TERMINATION_SIGNALS, _raise_interrupt)),
        _allocation_lock_held(path, notify),
    ):
        current = context_of(context.root)  # another call may have got one meanwhile
        if current.job is not None:
            notify(f"using the allocation that this project has, SLURM job {current.job}")
            return current
        new_job = _salloc([f"--job-name={current.name}", *arguments], notify)
        try:
            _record_allocation(path, new_job, current)
        except BaseException:
            # No later call would find it, and it would be charged until its time is over.
            jobs.cancel_job(new_job)
            raise
        notify(f"SLURM granted the allocation, job {new_job}")
    return context_of(context.root)


def end_allocation(context: Context) -> bool:
    """End the allocation of ``context`` if ``allocate`` requested it; whether it did."""
    if context.job is None or job_id(os.environ) is not None:
        return False
    path = allocation_file(context.root, context.settings)
    if read_allocation(path) != context.job:
        return False
    failed = jobs.cancel_job(context.job)
    if failed is not None:
        raise SessionError(
            f"The allocation, SLURM job {context.job}, could not be ended, because {failed.why}: "
            f"end it with 'scancel {context.job}'."
        )
    forget_allocation(path, context.job)
    return True


@contextlib.contextmanager
def _allocation_lock_held(path: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock under which one call requests the allocation at ``path``."""
    lock = Lock(path.with_suffix(".lock"))
    if not lock.acquire():
        notify("waiting for another call, which asks SLURM for the allocation of this project")
        lock.acquire(timeout=None)
    try:
        yield
    finally:
        lock.release()


def _record_allocation(path: Path, job: int, context: Context) -> None:
    try:
        write_allocation(path, job, context.root)
    except OSError as error:
        raise SessionError(
            f"{path}, which is to name the allocation, cannot be written ({error.strerror}), and "
            "the allocation was given back: ask for one again when it can be."
        ) from error


def _salloc(options: list[str], notify: Callable[[str], None]) -> int:
    """Run ``salloc``, and return the number of the job granted."""
    early_signals: list[int] = []
    try:
        # A signal that comes while it is being started would leave nothing that ends it.
        with signal_handlers(
            dict.fromkeys(TERMINATION_SIGNALS, lambda signum, _: early_signals.append(signum))
        ):
            program = subprocess.Popen(
                ["salloc", "--no-shell", *options],
                env=step_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                # Its request would wait on without this process, be granted some day, and charged.
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
    except OSError as error:
        raise SessionError(
            f"SLURM's salloc cannot be run ({error.strerror}): is this a host of a cluster?"
        ) from error
    job: int | None = None
    printed: list[str] = []
    with program:
        assert program.stdout is not None
        try:
            if early_signals:
                raise KeyboardInterrupt
            for line in program.stdout:
                printed.append(line.strip())
                job = job or _parse_job(line)
                if "Pending" in line:
                    notify(f"waiting in SLURM's queue, job {job}; Ctrl-C takes the request back")
            program.wait()
        except BaseException:
            notify(_cancel_request(program, job))
            raise
    if program.returncode == 0 and job is not None:
        return job
    outcome = _cancel_job(job)
    if program.returncode < 0:
        raise SessionError(
            f"SLURM's salloc was ended by signal {-program.returncode}, and {outcome}: run again."
        )
    errors = [line.partition("error: ")[2] for line in printed if "error: " in line] or printed
    why = "; ".join(errors) or "it said nothing"
    raise UsageError(f"SLURM granted no allocation ({why}): change the options of --allocate.")


def _parse_job(text: str) -> int | None:
    match = _JOB.search(text)
    return int(match[1]) if match else None


def _cancel_request(program: subprocess.Popen[str], job: int | None) -> str:
    """End ``salloc`` and its request; the outcome, as a clause of a sentence.

    A further signal ends ``salloc`` at once, and no more than that.
    """
    assert program.stdout is not None

    def send(signum: int) -> None:
        # To all of its session: on some clusters it is a script that runs the real one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signum)

    with signal_handlers(dict.fromkeys(TERMINATION_SIGNALS, lambda *_: send(signal.SIGKILL))):
        if job is None:
            send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_TERM_TIMEOUT)
        # Asked to end when it has a request, one in ten does not hear it, and some hang for ever.
        send(signal.SIGKILL)
        program.wait()
        return _cancel_job(job or _parse_job(program.stdout.read()))


def _cancel_job(job: int | None) -> str:
    """Cancel a requested job; the outcome, as a clause of a sentence."""
    failed = jobs.cancel_job(job) if job is not None else None
    if failed is None:
        return "the request was taken back"
    return (
        f"the request, job {job}, could not be taken back, because {failed.why}: "
        f"do it with 'scancel {job}'"
    )


def _raise_interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
