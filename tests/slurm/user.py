"""A user of a lab: projects, and ``lc`` called from a job's shell, a node or the submit host."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.helpers import wait_until
from tests.slurm.job import Job
from tests.slurm.lab import Lab
from tests.specs import recipe, spec

__all__ = ["Call", "User"]

_LC = (sys.executable, "-P", "-m", "lightcone")


class Call:
    """A call that goes on while the test does something else."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def text(self) -> str:
        """All that it has printed so far, errors too."""
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, deadline: float = 60.0) -> None:
        """Wait until it has printed ``text``."""
        try:
            wait_until(lambda: text in self.text(), f"{text!r} is printed", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is:\n{self.text()}") from None

    def wait(self, code: int, deadline: float = 60.0) -> str:
        """Wait until it has left, which has to be with ``code``; what it has printed."""
        wait_until(lambda: self.process.poll() is not None, "the call has left", deadline)
        assert self.process.returncode == code, f"{self.process.returncode}:\n{self.text()}"
        assert "Traceback" not in self.text(), self.text()
        return self.text()


class User:
    """A home that all hosts of a lab share, sockets that none do, and a project.

    Attributes:
        lab: the cluster.
        home: the home directory, under which sessions keep their files.
        project: the project's directory.
        env: the environment of everything that the user calls outside any job.
    """

    def __init__(self, lab: Lab, name: str, outputs: str | None = None) -> None:
        self.lab = lab
        self.home = lab.base / name
        (self.home / "tmp").mkdir(parents=True)
        # With a network namespace for each node this is another directory on each of them.
        runtime = lab.local if lab.network is not None else self.home
        self.env = {
            **lab.env,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "LIGHTCONE_RUNTIME_DIR": str(runtime / f"run-{name}"),
            "TERM": "xterm-256color",
            "TMPDIR": str(self.home / "tmp"),
        }
        self.project = self.new_project("project", outputs)
        self._calls = 0

    def new_project(self, name: str, outputs: str | None = None) -> Path:
        """Another project."""
        root = self.home / name
        root.mkdir()
        text = outputs or spec(recipe("where", "hostname > {output}"))
        (root / "astra.yaml").write_text(text)
        return root

    def lc(self, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Call ``lc`` and wait for its end, as :meth:`run` does for any program."""
        result = self.run(*_LC, *arguments, **how)
        shown = f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr, shown
        return result

    def run(
        self,
        *argv: str,
        job: Job | None = None,
        node: str | None = None,
        cwd: Path | None = None,
        check: int | None = 0,
        timeout: float = 90.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Call a program and wait for its end.

        Args:
            argv: the program and its arguments.
            job: the job whose shell it is called in; else it is called outside any.
            node: the node that it is called on, as in a login there; else the submit host.
            cwd: the directory, else the project's.
            check: what its exit code has to be, unless that is None.
            timeout: seconds.
            env: further variables.
        """
        line = self._line(argv, node, cwd)
        variables = {**self.variables(job), **(env or {})}
        return self.lab.run(*line, env=variables, check=check, timeout=timeout)

    def start(
        self,
        *arguments: str,
        job: Job | None = None,
        node: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Call:
        """Call ``lc`` and go on; the lab ends it when it is cleared."""
        self._calls += 1
        output = self.home / f"call-{self._calls}.txt"
        output.touch()
        shell = ("/bin/sh", "-c", 'exec > "$1" 2>&1; shift; exec "$@"', "sh", str(output))
        line = [*shell, *self.line(*arguments, node=node, cwd=cwd)]
        return Call(self.lab.popen(*line, env={**self.variables(job), **(env or {})}), output)

    def line(self, *arguments: str, node: str | None = None, cwd: Path | None = None) -> list[str]:
        """The command line of a call of ``lc``; it belongs into the user's environment."""
        return self._line((*_LC, *arguments), node, cwd)

    def variables(self, job: Job | None) -> dict[str, str]:
        """The user's environment in a job's shell, or outside any."""
        # What salloc has passed on was the lab's; HOME and the like are the user's.
        return self.env if job is None else {**job.env, **self.env}

    def script(self, *arguments: str) -> str:
        """A line of a batch script that calls ``lc`` in the project."""
        own = {name: self.env[name] for name in ("HOME", "LIGHTCONE_RUNTIME_DIR")}
        words = [f"{name}={value}" for name, value in own.items()]
        return shlex.join(["env", *words, *self.line(*arguments)])

    def status(self, job: Job | None = None, **more: Any) -> dict[str, Any]:
        """What ``lc session status --json`` says."""
        said = self.lc("session", "status", "--json", job=job, **more).stdout
        told: dict[str, Any] = json.loads(said)
        return told

    def state(self, job: Job) -> Path:
        """The directory of the session of a job."""
        return self.home / ".lightcone" / "sessions" / f"slurm-{job.id}"

    def programs(self, job: Job) -> dict[str, list[psutil.Process]]:
        """The processes of a job's session, on whichever host, by their part in it.

        The parts are ``tmux``, ``scheduler``, ``srun``, ``worker``, ``guard`` (those of the nodes)
        and ``other``; recipes are among them.
        """
        mark, parts = f"slurm-{job.id}", defaultdict[str, list[psutil.Process]](list)
        for process in self.lab.processes():
            with contextlib.suppress(psutil.Error):
                chain = [process, *process.parents()]
                if any(mark in word for each in chain for word in each.cmdline()):
                    parts[_part(process)].append(process)
        return parts

    def made(self, cwd: Path | None = None) -> dict[str, str]:
        """What the project's outputs hold, by name."""
        files = (cwd or self.project).glob("results/*/*.txt")
        return {file.stem: file.read_text().strip() for file in files}

    def _line(self, argv: tuple[str, ...], node: str | None, cwd: Path | None) -> list[str]:
        on = () if node is None else self.lab.on(node)
        return [*on, "env", "-C", str(cwd or self.project), *argv]


def _part(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    if process.name().startswith("tmux"):
        return "tmux"
    if process.name() == "srun":
        return "srun"
    if "guard.py" in line:
        return "guard" if "--remove=" in line and "dask_worker" in line else "other"
    for part in ("scheduler", "worker"):
        if f"distributed.cli.dask_{part}" in line:
            return part
    return "other"
