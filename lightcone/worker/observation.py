"""Observation of a recipe: which paths its processes open, list and look for.

``strace`` watches the recipe. With ``-DD`` the recipe stays this process's own child, so that its
exit code, its signals and its end are what they are without ``strace``; with ``--seccomp-bpf`` the
kernel stops it at the calls of interest alone. ``strace`` writes into a pipe of this process's and
ends with the last process that it watches. When ``strace`` is killed before that, those calls fail
in the recipe (ENOSYS), so such a recipe counts as failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lightcone.state.observed import Trace
from lightcone.worker.trace import TraceReader

__all__ = ["Observation", "find_tracer", "why_not_observed"]

_OLDEST = (5, 3)
# A call that an older strace or another processor does not have is left out.
_CALLS = "%file,?fchdir,?getdents,?getdents64,?clone,?clone3,?fork,?vfork"
_OPTIONS = (
    "-DD",
    "-f",
    "--seccomp-bpf",
    "-y",
    "-q",
    "-everbose=?openat2,?clone3",
    f"-etrace={_CALLS}",
)
_PIPE_SIZE = 1 << 20
_CHUNK = 1 << 16
_PROBE_TIMEOUT = 10.0
# strace reports the recipe's end before the kernel does, except on a machine that is overloaded.
_END_TIMEOUT = 10.0
# A process that the recipe detached is watched for as long as it lives, which nothing waits for.
_QUIET = 0.05
_LINGER = 1.0

_checked: dict[str, str] = {}


def find_tracer(path: str | None) -> str | None:
    """Return the ``strace`` on the search path ``path``, or None."""
    return shutil.which("strace", path=path)


def why_not_observed(path: str | None) -> str:
    """Return why no recipe can be observed here, in a phrase; "" where one can.

    Args:
        path: the search path of programs; None for this process's.
    """
    if sys.platform != "linux":
        return "observing takes Linux"
    tracer = find_tracer(path)
    if tracer is None:
        return "strace is not installed"
    if tracer not in _checked:
        _checked[tracer] = _check(tracer)
    return _checked[tracer]


def _check(tracer: str) -> str:
    run = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "timeout": _PROBE_TIMEOUT}
    try:
        text = subprocess.check_output([tracer, "--version"], text=True, **run)  # type: ignore[call-overload]
        version = re.search(r"version (\d+)\.(\d+)", text)
        if version is not None and tuple(map(int, version.groups())) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            return f"{tracer} is version {'.'.join(version.groups())}, older than {oldest}"
        observation = Observation(tracer, Path("/"))
        try:
            argv = observation.arguments(["/bin/sh", "-c", "exit 0"])
            result = subprocess.run(argv, stdout=subprocess.PIPE, check=False, **run)  # type: ignore[call-overload]
        finally:
            observation.finish()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{tracer} cannot be used ({type(error).__name__})"
    if result.returncode == 0 and observation.is_complete:
        return ""
    said = result.stdout.decode(errors="replace").strip().splitlines()
    return f"strace may not trace here ({said[0] if said else f'exit code {result.returncode}'})"


class Observation:
    """The observation of one command, from before its start until after its end.

    Args:
        tracer: the path of ``strace``.
        root: the project's directory, a real path, in which the command starts.
    """

    def __init__(self, tracer: str, root: Path) -> None:
        self._tracer = tracer
        self._reader = TraceReader(os.fspath(root))
        self._read_end, self._write_end = os.pipe()
        self._finished_at: float | None = None
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._read_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._thread = threading.Thread(target=self._read, name="observation", daemon=True)
        self._thread.start()

    @property
    def trace(self) -> Trace:
        """What the command used; whole once it is finished."""
        return self._reader.trace

    @property
    def is_complete(self) -> bool:
        """Whether the command was watched from its start to its end."""
        return self._reader.has_ended

    def was_late(self, code: int) -> bool:
        """Return whether the command ended with ``code`` before it was its turn to begin.

        On an overloaded machine: SIGALRM ends a command that ``strace`` has not begun to watch
        after 3 s.
        """
        return code == -signal.SIGALRM and not self._reader.has_begun

    def arguments(self, argv: Sequence[str]) -> list[str]:
        """Return the arguments that run ``argv`` and watch it."""
        # By this name strace opens a descriptor of its own, which the recipe does not inherit.
        pipe = f"-o/proc/{os.getpid()}/fd/{self._write_end}"
        return [self._tracer, *_OPTIONS, pipe, "--", *argv]

    def finish(self) -> None:
        """Read the rest of the trace, once the command has ended."""
        if self._finished_at is None:
            self._finished_at = time.monotonic()
            os.close(self._write_end)
            self._thread.join()

    def _read(self) -> None:
        rest = b""
        try:
            while not self._is_over():
                if not select.select([self._read_end], [], [], _QUIET)[0]:
                    if self._finished_at is not None and self._reader.has_ended:
                        return
                    continue
                data = os.read(self._read_end, _CHUNK)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._reader.feed(line)
        finally:
            # strace must never wait for a reader that is gone.
            os.close(self._read_end)
            self._reader.finish()

    def _is_over(self) -> bool:
        if self._finished_at is None:
            return False
        timeout = _LINGER if self._reader.has_ended else _END_TIMEOUT
        return time.monotonic() > self._finished_at + timeout
