"""A sandbox in which tests start real sessions, and the proof that nothing of it is left."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from lightcone.wire.control_client import ask_session

__all__ = [
    "FOREIGN",
    "Sandbox",
    "clean_environment",
    "end",
    "end_at_once",
    "filled_pipe",
    "is_alive",
    "is_empty",
    "is_full",
    "told",
    "unread_pipe",
    "wait_until",
]

_MARK = "LIGHTCONE_TEST_SANDBOX"
_TICK = 0.02
_STARTING = 30.0
_LC = ("-m", "lightcone")
# What a shell, a batch system or another session may have put into this process's environment.
FOREIGN = ("DASK_", "LIGHTCONE_", "SLURM", "SALLOC_", "SBATCH_", "TMUX", "PYTHON", "OMP_", "CUDA_")
# The least that is a valid project.
SPEC = """\
version: "0.0.14"
name: sandbox
inputs: []
outputs:
  - id: greeting
    type: data
    format: txt
    recipe:
      command: echo hello > {output}
"""
# A part of every Python of an environment: one of the session's programs does something first.
_BEGINNING = """\
import os, sys, time
line = " ".join(sys.orig_argv)
if "distributed.cli.dask_{part}" in line and "guard.py" not in line:
    {does}
"""


def clean_environment() -> dict[str, str]:
    """This process's environment without what could change how a program of ours behaves."""
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}


def wait_until(condition: Callable[[], object], what: str, deadline: float = 60.0) -> None:
    """Return once ``condition()`` is true; fail, naming ``what``, after ``deadline`` seconds."""
    end_at = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end_at, f"not within {deadline:g} s: {what}"
        time.sleep(_TICK)


def told(errors: str) -> list[str]:
    """The lines that a call said beside its output, without those of how long it waits."""
    return [line for line in errors.splitlines() if not re.fullmatch(r"lc: .* \(\d+ s\)", line)]


def is_alive(pid: int) -> bool:
    """Whether a process is there; a zombie is dead."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(pids: Sequence[int]) -> None:
    """Kill processes of a test's own, by id."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_at_once(pids: Sequence[int]) -> None:
    """Kill processes of a test's own, by id; none of them sees another one die."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGSTOP)
    end(pids)


@contextlib.contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe, for a program that is not followed."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for descriptor in ends:
            os.close(descriptor)


@contextlib.contextmanager
def filled_pipe(data: bytes, closed: bool = True) -> Iterator[int]:
    """The reading end of a pipe with data in it, and with its end, for one who does not wait long.

    Without ``closed`` its writing end stays open.
    """
    reader, writer = os.pipe()
    try:
        assert os.write(writer, data) == len(data)
        if closed:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)
        if not closed:
            os.close(writer)


def is_empty(reader: int) -> bool:
    """Whether who reads from a pipe has to wait."""
    return not select.select([reader], [], [], 0)[0]


def is_full(writer: int) -> bool:
    """Whether who writes to a pipe has to wait."""
    return not select.select([], [writer], [], 0)[1]


class Sandbox:
    """A home, a project, sockets and scratch of a test's own, in one directory.

    Attributes:
        base: the directory; its path is short, as sockets are in it.
        project: a project with one output.
        env: the environment of every program started through the sandbox.
        owner: whose programs they are, as options of :class:`subprocess.Popen`; mine if empty.
        interpreter: the Python that runs them.
    """

    owner: Mapping[str, Any] = MappingProxyType({})
    interpreter = sys.executable

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp")).resolve()
        for name in ("home", "tmp", "run", "scratch"):
            (self.base / name).mkdir()
        self.home = self.base / "home"
        self.runtime = self.base / "run"
        self.scratch = self.base / "scratch"
        self.projects: list[Path] = []
        self.env = {
            **clean_environment(),
            _MARK: str(self.base),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "LIGHTCONE_RUNTIME_DIR": str(self.runtime),
            "LIGHTCONE_SCRATCH": str(self.scratch),
            "TERM": "xterm-256color",
            "TMPDIR": str(self.base / "tmp"),
            "TMUX_TMPDIR": str(self.base / "tmp"),
        }
        self._programs: list[subprocess.Popen[bytes]] = []
        self.project = self.new_project("project")

    def new_project(self, name: str, spec: str = SPEC) -> Path:
        """Another project directory, whose session is stopped at the end too."""
        root = self.base / name
        root.mkdir(parents=True)
        (root / "astra.yaml").write_text(spec)
        self.projects.append(root)
        return root

    def lc(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``lc`` to its end, as :meth:`python` does any program of this Python."""
        return self.python(*_LC, *arguments, **options)

    def popen(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start ``lc`` with pipes for its output, or as ``options`` say otherwise."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        program = subprocess.Popen(
            [self.interpreter, *_LC, *arguments],
            cwd=cwd or self.project,
            env={**self.env, **(env or {})},
            **(settings | dict(self.owner) | options),
        )
        self._programs.append(program)
        return program

    def python(
        self,
        *arguments: str,
        check: int | None = 0,
        timeout: float = 90.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this Python to its end; it may not show a traceback.

        Its exit code has to be ``check`` unless that is None.
        """
        result = subprocess.run(
            [self.interpreter, *arguments],
            cwd=cwd or self.project,
            env={**self.env, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
            **self.owner,
        )
        shown = f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert check is None or result.returncode == check, shown
        assert "Traceback" not in result.stderr, shown
        return result

    def start(self, **options: Any) -> dict[str, Any]:
        """Start the project's session and return its description."""
        self.lc("session", "start", **options)
        return self.status()

    def status(self, cwd: Path | None = None) -> dict[str, Any]:
        """What ``lc session status --json`` says."""
        told: dict[str, Any] = json.loads(self.lc("session", "status", "--json", cwd=cwd).stdout)
        return told

    def state(self) -> Path:
        """The state directory of the project's session."""
        (found,) = (self.scratch / ".lightcone" / "sessions").glob(f"{self.status()['key']}-*")
        return found

    def processes(self) -> list[psutil.Process]:
        """Every living process of this sandbox: by its mark, its command line or its directory."""
        found = []
        # What it remembers of an id may be of another process, and such a one is sent nothing.
        psutil.process_iter.cache_clear()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and self._is_ours(process):
                    found.append(process)
        return found

    def programs(self) -> dict[str, int]:
        """The process ids of a session's programs, by their part in it.

        The parts are ``scheduler``, ``scheduler guard``, ``worker``, ``worker guard`` (the outer
        one), ``inner guard`` and ``tmux``. A part that is there twice fails the test.
        """
        # A program that is just being started still looks like the one that starts it.
        deadline = time.monotonic() + _STARTING
        while True:
            parts: dict[str, int] = {}
            twice = None
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    part = _part(process)
                    twice = part if part in parts else twice
                    if part is not None:
                        parts[part] = process.pid
            if twice is None:
                return parts
            assert time.monotonic() < deadline, f"two of {twice}: {self.describe()}"
            time.sleep(_TICK)

    def beginning_with(self, part: str, does: str) -> dict[str, str]:
        """The environment in which a ``scheduler`` or ``worker`` begins with this statement."""
        site = self.base / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_BEGINNING.format(part=part, does=does))
        return {"PYTHONPATH": str(site)}

    def held_up(self, part: str) -> tuple[dict[str, str], Path]:
        """The environment in which a ``scheduler`` or ``worker`` waits at its start for a file."""
        gate = self.base / "gate"
        wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.05)"
        return self.beginning_with(part, wait), gate

    def workers(self) -> list[dict[str, Any]]:
        """The workers of the project's living session, sooner than :meth:`status` tells of them."""
        return list(ask_session(self._control, "describe", 30.0)["workers"])

    @contextlib.contextmanager
    def without_worker(self) -> Iterator[None]:
        """Kill the session's worker; it stays away, and everybody knows, within the context."""
        programs = self.programs()
        os.kill(programs["inner guard"], signal.SIGSTOP)
        try:
            os.kill(programs["worker"], signal.SIGKILL)
            wait_until(lambda: not self.workers(), "the worker is known to be gone")
            yield
        finally:
            os.kill(programs["inner guard"], signal.SIGCONT)

    def waiting_for_viewers(self) -> set[int]:
        """The process ids of what sleeps in a session's first window until somebody attaches."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                # The server was started with all of their arguments.
                if "new-session" not in line and any("wait-for attached" in word for word in line):
                    found.add(process.pid)
        return found

    def describe(self) -> list[str]:
        """The living processes, for people."""
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())[:300]
                lines.append(f"{process.pid} (parent {process.ppid()}): {line}")
        return lines

    def remains(self) -> list[str]:
        """What is left of sessions: processes, sockets and keys."""
        files = [
            str(path)
            for path in self.base.rglob("*")
            if path.suffix == ".pem" or stat.S_ISSOCK(path.lstat().st_mode)
        ]
        return self.describe() + files

    def close(self) -> None:
        """Stop every session; raise AssertionError if anything is left, and end it then."""
        for program in self._programs:
            program.kill()
            program.wait()
            for stream in (program.stdout, program.stderr):
                if stream is not None:
                    stream.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.resume()  # what a failed test has left stopped could not be stopped
        failures = []
        try:
            if (self.scratch / ".lightcone").is_dir():
                for project in self.projects:
                    result = self.lc("session", "stop", check=None, cwd=project)
                    if result.returncode != 0:
                        failures.append(f"stop in {project}: {result.stdout}{result.stderr}")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.remains(), "nothing is left", 30.0)
            failures += self.remains()
        finally:
            while self.processes():
                end([process.pid for process in self.processes()])
            shutil.rmtree(self.base, ignore_errors=True)
        assert not failures, "left behind by this test:\n" + "\n".join(failures)

    @functools.cached_property
    def _control(self) -> Path:
        return self.runtime / str(self.status()["key"]) / "control"

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        base = str(self.base)
        if any(base in argument for argument in process.cmdline()):
            return True
        with contextlib.suppress(psutil.AccessDenied):
            if process.environ().get(_MARK) == base:
                return True
        with contextlib.suppress(psutil.AccessDenied):
            return Path(base) in (Path(process.cwd()), *Path(process.cwd()).parents)
        return False


def _part(process: psutil.Process) -> str | None:
    line: list[str] = process.cmdline()
    if process.name().startswith("tmux"):
        return "tmux" if any(word.endswith("/terminal/tmux.conf") for word in line) else None
    program = next((word for word in line if word.startswith("distributed.cli.dask_")), None)
    if program is None:
        return None
    part = program.rpartition("_")[2]
    if not any(word.endswith("guard.py") for word in line):
        return part
    outer = any(word.startswith("--members=") for word in line)
    return f"{part} guard" if outer else "inner guard"
