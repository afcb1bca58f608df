"""A job of a lab, as the one who asked for it sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.helpers import wait_until

__all__ = ["Job", "allocate"]

# Where the user's shell would be: tells its environment, and goes when its input ends.
_SHELL = 'env -0 > "$1.new" && mv "$1.new" "$1" && exec cat > /dev/null'


class Run(Protocol):
    """:meth:`tests.slurm.lab.Lab.run`."""

    def __call__(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        check: int | None = 0,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]: ...


class Job:
    """A job.

    Attributes:
        id: its number.
        env: the environment of the shell that ``salloc`` started, all of it.
        shell: ``salloc`` itself, where there is one.
    """

    def __init__(
        self,
        number: int,
        env: dict[str, str],
        run: Run,
        shell: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.id = number
        self.env = env
        self.shell = shell
        self._run = run

    def run(
        self, *argv: str, check: int | None = 0, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as from the job's shell."""
        return self._run(*argv, env=self.env, check=check, timeout=timeout)

    def state(self) -> str:
        """What the queue says, such as ``RUNNING``, or "" once it is out of it."""
        return self._run("squeue", "-h", "-j", str(self.id), "-o", "%T", check=None).stdout.strip()

    def wait_for(self, *states: str, deadline: float = 30.0) -> None:
        """Wait until the job is in one of the states."""
        wait_until(lambda: self.state() in states, f"job {self.id} is {states}", deadline)

    def steps(self) -> list[str]:
        """The names of its running steps."""
        said = self._run("squeue", "-h", "-s", "-j", str(self.id), "-o", "%j").stdout
        return sorted(name for name in said.split() if name != "extern")

    def has_no_steps(self) -> None:
        """Wait until it has no step: SLURM hears of a step's end after those who were in it."""
        wait_until(lambda: self.steps() == [], f"job {self.id} has no step")

    def exit(self) -> None:
        """What a user does who types ``exit`` in the shell; returns when ``salloc`` has left."""
        assert self.shell is not None and self.shell.stdin is not None
        self.shell.stdin.close()
        self.shell.wait(60)

    def cancel(self) -> None:
        """``scancel``."""
        self._run("scancel", str(self.id))

    def expire(self) -> None:
        """Its time limit is reached, some seconds from now: what is past on arrival is refused."""
        self._run("scontrol", "update", f"JobId={self.id}", "EndTime=now+5")

    def close(self) -> None:
        """End ``salloc``, and with it the job."""
        if self.shell is not None:
            assert self.shell.stdin is not None
            self.shell.stdin.close()
            try:
                self.shell.wait(10)
            except subprocess.TimeoutExpired:
                # Not TERM: salloc can hang for good when that comes as its shell ends.
                self.shell.kill()
                self.shell.wait()


def allocate(run: Run, options: Sequence[str], env: Mapping[str, str], directory: Path) -> Job:
    """Ask ``salloc`` for an allocation and wait for it.

    Raises:
        AssertionError: with what ``salloc`` said, where it was refused.
    """
    told = directory / f"salloc-{os.urandom(6).hex()}"
    errors = told.with_suffix(".err")
    with errors.open("wb") as output:
        shell = subprocess.Popen(
            ["salloc", *options, "/bin/sh", "-c", _SHELL, "sh", str(told)],
            env=dict(env),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        wait_until(lambda: told.exists() or shell.poll() is not None, "salloc has answered", 60.0)
        assert told.exists(), f"salloc {' '.join(options)}: {errors.read_text()}"
    except BaseException:
        shell.terminate()
        shell.communicate()
        raise
    assignments = (os.fsdecode(each).partition("=") for each in told.read_bytes().split(b"\0"))
    variables = {name: value for name, _, value in assignments if name}
    return Job(int(variables["SLURM_JOB_ID"]), variables, run, shell)
