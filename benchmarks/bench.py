"""What every row is measured with: a sandbox, how large things are, and programs that are timed."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.environments import Absent, Environment
from benchmarks.samples import Failed
from tests.helpers import Sandbox

__all__ = ["Bench", "Scale", "Use", "started"]

_PATIENCE = 600.0
_SHOWN = 2000


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        name: ``"quick"`` or ``"full"``.
        rounds: of commands that take a second or two.
        many_rounds: of commands that take less.
        slow_rounds: of what takes minutes.
        recipes: how many instant recipes.
        pairs: how many (output, universe) pairs are planned, ascending.
        workers: the nodes of each allocation, and the processors that each of them claims.
        callers: how many call at once.
        idle_seconds: how long an idle session is watched.
        ray_jobs: how many jobs Ray is given, each of which takes seconds.
    """

    name: str
    rounds: int
    many_rounds: int
    slow_rounds: int
    recipes: tuple[int, ...]
    pairs: tuple[int, ...]
    workers: tuple[tuple[int, int], ...]
    callers: int
    idle_seconds: float
    ray_jobs: int


@dataclass(frozen=True)
class Use:
    """What a program took: wall clock and processor seconds, and its peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_memory: int


def started(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """A program, with the options of :class:`subprocess.Popen`.

    Raises:
        Failed: where it cannot be started.
    """
    try:
        return subprocess.Popen(argv, **options)
    except OSError as error:
        raise Failed(f"{argv[0]} cannot be started: {error}") from error


class Bench:
    """A sandbox with its own home, scratch and sockets, in which programs are run and timed.

    Attributes:
        scale: how much is measured.
        box: the sandbox; sessions of its projects are stopped when it closes.
        others: a directory for what alternatives leave, which the sandbox would take for ours.
        cores: the processors that this process may use.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.box = Sandbox()
        self.others = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp")).resolve()
        (self.others / "tmp").mkdir()
        self.cores = (
            len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        )
        self._provided: dict[str, Environment | Absent] = {}
        self._old = itertools.count()

    def say(self, text: str) -> None:
        """Tell whoever waits what is going on."""
        print(f"· {text}", file=sys.stderr, flush=True)

    @cached_property
    def lc(self) -> str:
        """The program ``lc`` of the Python that runs the benchmarks."""
        program = Path(sys.executable).with_name("lc")
        if not program.is_file():
            raise Failed(f"There is no {program}: install lightcone for {sys.executable}.")
        return str(program)

    def alternative(self, name: str) -> Environment | Absent:
        """An alternative, installed on first use."""
        if name not in self._provided:
            self._provided[name] = environments.provide(name, self.say)
        return self._provided[name]

    def tool(self, name: str) -> str | Absent:
        """A program of the system."""
        return shutil.which(name) or Absent(f"there is no {name} in PATH")

    def place(self, name: str) -> Path:
        """An empty directory for an alternative."""
        directory = self.others / name
        self.put_away(directory)
        directory.mkdir()
        return directory

    def put_away(self, directory: Path) -> None:
        """Have ``directory`` out of the way, if it is there, and remove it when all is over.

        Some file systems make files slowly for minutes after as many were removed, and whoever
        comes next would be measured at that.
        """
        if directory.exists():
            directory.rename(self.others / f"old-{next(self._old)}")

    def project(self, name: str, spec: str) -> Path:
        """A new project with ``spec`` as its ``astra.yaml``."""
        return self.box.new_project(name, spec)

    def environment(self, programs: Environment | None = None) -> dict[str, str]:
        """The environment of a program, with an alternative's own programs first in PATH."""
        if programs is None:
            return dict(self.box.env)
        path = os.pathsep.join((str(programs.programs), self.box.env.get("PATH", os.defpath)))
        temporary = str(self.others / "tmp")
        own = {"PATH": path, "TMPDIR": temporary, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**self.box.env, **own}

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Use:
        """Run a program to its end.

        Raises:
            Failed: where it ends with anything but 0, or not in time.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(stdin)
            given.seek(0)
            begun = time.perf_counter()
            program = started(
                argv,
                cwd=cwd,
                env=env or self.environment(),
                stdin=given,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status, usage = self._wait(program)
            seconds = time.perf_counter() - begun
            if status != 0:
                said.seek(0)
                text = said.read().decode(errors="replace")[-_SHOWN:]
                raise Failed(f"{' '.join(argv)[:200]} ended with {status}:\n{text}")
        unit = 1024 if sys.platform == "linux" else 1
        return Use(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)

    def seconds(
        self,
        argv: Sequence[str],
        cwd: Path,
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> float:
        """How long a program takes, from its start to its end; see :meth:`run`."""
        return self.run(argv, cwd, env=env, stdin=stdin).seconds

    def cold_seconds(self, root: Path) -> float:
        """How long ``lc run`` takes without a session; session and results are gone afterwards."""
        seconds = self.seconds([self.lc, "run"], root)
        self.run([self.lc, "session", "stop"], root)
        self.put_away(root / "results")
        return seconds

    def told_seconds(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> float:
        """The seconds that a program measures itself and prints on its last line.

        Raises:
            Failed: where it ends with anything but 0, or not in time.
        """
        try:
            result = subprocess.run(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(str(error)) from error
        if result.returncode != 0:
            raise Failed(f"{' '.join(argv)[:200]}:\n{(result.stdout + result.stderr)[-_SHOWN:]}")
        return float(result.stdout.split()[-1])

    def close(self) -> None:
        """Stop every session.

        Raises:
            AssertionError: where something is left; it is ended.
        """
        shutil.rmtree(self.others, ignore_errors=True)
        self.box.close()

    def _wait(self, program: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
        # An alarm, as there is no wait4 with a deadline.
        def late(*_: object) -> None:
            raise Failed(f"it has not ended within {_PATIENCE:g} s: {program.args!r}")

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        try:
            _, status, usage = os.wait4(program.pid, 0)
        except BaseException:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        program.returncode = os.waitstatus_to_exitcode(status)
        return program.returncode, usage
