"""Detached runs: they go on without their terminal, and are found by name.

The driver of such a run is a process of its own under a guard. It belongs to the session: it holds
the session's lock on its members, and ends with it. It counts as a use of the session from its
start, before it has connected. Each run has a directory in the session's state:

- ``lock``: held by the driver and its guard for as long as they live;
- ``log``: what the run has printed; of much, the end, and ``log.old``, the part before that;
- ``status``: its exit code, written when it ends without being killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lightcone.engine.command_lines import driver_command
from lightcone.errors import SessionError, UsageError
from lightcone.project.context import Context
from lightcone.project.variables import RUN_NAME_VARIABLE
from lightcone.session.lease import own_lease
from lightcone.system.files import make_directory, private_directory
from lightcone.system.locks import Lock
from lightcone.wire.control_client import ask_session, use_session

__all__ = ["DetachedRun", "find", "list_runs", "start"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TICK = 0.1
_START_TIMEOUT = 10.0
_END_MARGIN = 15.0
_MAX_KEPT = 20


@dataclass(frozen=True)
class DetachedRun:
    """A run that was detached, running or ended.

    Attributes:
        context: the context that it was started in.
        name: unique among the runs of the context's session.
    """

    context: Context
    name: str

    @property
    def directory(self) -> Path:
        """The directory of its files."""
        return _directory(self.context) / self.name

    @property
    def is_running(self) -> bool:
        """Whether its driver, or the guard of its driver, is running."""
        # The driver holds the lock exclusively; another call that probes it shares it for a moment.
        return not Lock.is_free(self.directory / "lock")

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs, and where it was killed."""
        try:
            return int((self.directory / "status").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has ended; False after ``timeout`` seconds."""
        lock = Lock(self.directory / "lock")
        if not lock.acquire(shared=True, timeout=timeout):
            return False
        lock.release()
        return True

    def follow(self, out: IO[bytes]) -> None:
        """Copy its log to ``out`` until it has ended."""
        while (log := self._current_log(None)) is None and self.is_running:
            time.sleep(_TICK)
        while log is not None:
            with log:
                log = self._copy(log, out)

    def _copy(self, log: IO[bytes], out: IO[bytes]) -> IO[bytes] | None:
        """Copy all of ``log`` to ``out``; returns the next log, None at the end."""
        while True:
            # Both checked before copying, so that all that was written until then is copied.
            ended, newer = not self.is_running, self._current_log(log)
            shutil.copyfileobj(log, out)
            out.flush()
            if newer is not None or ended:
                return newer
            time.sleep(_TICK)

    def _current_log(self, log: IO[bytes] | None) -> IO[bytes] | None:
        """The log that the guard writes, unless that is ``log``."""
        path = self.directory / "log"
        with contextlib.suppress(FileNotFoundError):  # it is just being renamed, or made
            if log is None or not os.path.samestat(os.stat(path), os.fstat(log.fileno())):
                return open(path, "rb")
        return None

    def cancel(self) -> bool:
        """Interrupt the run as Ctrl-C does, and wait for its end.

        Returns False where it had ended already.

        Raises:
            SessionError: where it did not end in time.
        """
        if not self.is_running:
            return False
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._request_cancel() and self.is_running and time.monotonic() < deadline:
            time.sleep(_TICK)  # it has only just started
        timeout = self.context.settings.grace + _END_MARGIN
        if not self.wait(timeout):
            raise SessionError(
                f"The run {self.name} has not ended within {timeout:.0f} s: cancel it once more, "
                "which ends its recipes at once."
            )
        return True

    def _request_cancel(self) -> bool:
        try:
            return bool(ask_session(self.context, "cancel", run=self.name)["cancelled"])
        except (OSError, KeyError):
            return False


def start(context: Context, name: str | None, arguments: Sequence[str]) -> DetachedRun:
    """Start ``lc run`` with ``arguments``, detached from this terminal.

    It runs in the project's directory and in this process's environment.

    Args:
        context: whose session is up.
        name: its name; by default the first number that is free.
        arguments: those of ``lc run``.

    Raises:
        UsageError: where the name is not valid, or belongs to a run that is running.
        SessionError: where the session has ended.
    """
    try:
        use = use_session(context, own_lease())
    except OSError as error:
        raise SessionError(
            f"The session {context.name} ended, or stopped answering, as it was about to be used: "
            "run again."
        ) from error
    with use:
        run, lock = _claim_name(context, name)
        try:
            (run.directory / "log").touch(mode=0o600)
            program = [sys.executable, "-P", "-X", "utf8", "-m", "lightcone", "run", *arguments]
            command = driver_command(context.state, run.directory, context.settings.grace, program)
            subprocess.Popen(
                command,
                cwd=context.root,
                env=os.environ | {RUN_NAME_VARIABLE: run.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # The use too: the session might end before the driver has come to use it.
                pass_fds=(lock.fd, use.fileno()),
            )
        finally:
            lock.close()  # the driver and its guard hold it now
    return run


def find(context: Context, name: str | None) -> DetachedRun:
    """Find a detached run by name; without one, the running or the last.

    Raises:
        UsageError: where there is none, or several are running.
    """
    runs = list_runs(context)
    if name is not None:
        named = [run for run in runs if run.name == name]
        if not named:
            known = ", ".join(run.name for run in runs) or "none"
            raise UsageError(f"There is no detached run called {name!r}: there are {known}.")
        return named[0]
    running = [run for run in runs if run.is_running]
    if len(running) > 1:
        names = ", ".join(run.name for run in running)
        raise UsageError(f"Several detached runs go on: name one of {names}.")
    if not runs:
        raise UsageError("There is no detached run here: begin one with 'lc run --detach'.")
    return (running or runs)[-1]


def list_runs(context: Context) -> list[DetachedRun]:
    """The detached runs of the session, the oldest first."""
    entries = []
    for path in _directory(context).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another call has just removed it, as old
            if _NAME.fullmatch(path.name):
                entries.append((path.stat().st_mtime, path.name))
    return [DetachedRun(context, name) for _, name in sorted(entries)]


def _directory(context: Context) -> Path:
    return context.state / "runs"


def _claim_name(context: Context, name: str | None) -> tuple[DetachedRun, Lock]:
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a run: use letters, digits, '.', '_' and '-'."
        )
    parent = private_directory(_directory(context), "set LIGHTCONE_SCRATCH to another directory")
    for old in list_runs(context)[:-_MAX_KEPT]:
        if not old.is_running:
            shutil.rmtree(old.directory, ignore_errors=True)
    for candidate in [name] if name is not None else map(str, itertools.count(1)):
        run = DetachedRun(context, candidate)
        if not make_directory(run.directory, 0o700) and name is None:
            continue
        lock = Lock(run.directory / "lock")
        if lock.acquire(timeout=_TICK):  # others may be asking whether it runs
            for file in ("log", "status"):
                (run.directory / file).unlink(missing_ok=True)
            return run, lock
        if name is not None:
            raise UsageError(f"A run called {name!r} goes on: choose another name, or cancel it.")
    raise AssertionError(parent)
