"""A real SLURM on this machine, in a directory and on ports of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping

from tests.helpers import wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.daemons import Shape
from tests.slurm.job import Job, allocate
from tests.slurm.place import find
from tests.slurm.terminal import Terminal

__all__ = ["Lab"]


class Lab(Cluster):
    """A cluster of ``nodes`` nodes; several may be up at once.

    All nodes share this machine's kernel, processes and /tmp. With ``netns`` each has an address,
    host name and boot id of its own, and another directory at ``local``, so that what works only
    on one host is found out.

    Attributes:
        base: its directory.
        env: the environment of everything that is run through the lab.
        nodes: the nodes' names.
        local: with ``netns``, another directory on every node and on the submit host.
        controller: the daemon that answers SLURM's commands.
        daemons: that of each node.
    """

    def __init__(
        self,
        nodes: int = 2,
        cpus: int = 4,
        memory: int = 8000,
        gpus: int = 0,
        netns: bool = False,
        proctrack: str = "auto",
        kill_wait: int = 3,
        extra: str = "",
    ) -> None:
        """Start it and wait until every node takes jobs.

        Args:
            nodes: how many.
            cpus: the processors that each claims; they may exceed the machine's.
            memory: what each claims, in MiB.
            gpus: stand-ins for GPUs, up to six.
            netns: give each node a network of its own, which takes root.
            proctrack: ``linuxproc``, ``cgroup``, or ``auto``: the latter where it can be had.
            kill_wait: seconds between SIGTERM and SIGKILL at a job's end.
            extra: further lines of ``slurm.conf``.
        """
        super().__init__(Shape(nodes, cpus, memory, gpus, netns, proctrack, kill_wait, extra))
        self._terminals: list[Terminal] = []
        self._programs: list[subprocess.Popen[bytes]] = []
        self._jobs: list[Job] = []
        try:
            self._start()
        except BaseException:
            with contextlib.suppress(AssertionError):
                self.close()
            raise

    # ---- Using it --------------------------------------------------------------------------------

    def popen(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program; at the lab's next :meth:`clear` it is ended."""
        program = subprocess.Popen(
            argv,
            env={**self.env, **(env or {})},
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._programs.append(program)
        return program

    def terminal(self, *argv: str, env: Mapping[str, str] | None = None) -> Terminal:
        """Start a program, such as ``salloc -N2``, on a terminal that can be typed into."""
        terminal = Terminal(argv, {**self.env, **(env or {})}, self.base)
        self._terminals.append(terminal)
        return terminal

    def on(self, node: str) -> tuple[str, ...]:
        """What goes before a command line to run it on a node, as a login there does.

        It is no part of a job's step, and its environment is that which it is given. Without
        ``netns`` it makes no difference.
        """
        if self.network is None:
            return ()
        program = find("nsenter")
        assert program is not None
        host = (f"--target={self.daemons[node].pid}", "--net", "--uts", "--mount")
        return (program, *host, f"--wd={self.base}", "--")

    def salloc(self, *options: str, env: Mapping[str, str] | None = None) -> Job:
        """An allocation with a program that waits where the user's shell would be."""
        job = allocate(self.run, options, {**self.env, **(env or {})}, self.base)
        self._jobs.append(job)
        return job

    def salloc_no_shell(self, *options: str) -> Job:
        """An allocation without a shell; its environment names the job and no more."""
        said = self.run("salloc", "--no-shell", *options).stderr
        number = int(said.split("Granted job allocation ")[1].split()[0])
        return Job(number, {**self.env, "SLURM_JOB_ID": str(number)}, self.run)

    def sbatch(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> Job:
        """A batch job of a shell script; what it prints goes to ``out-<job id>`` in ``base``."""
        path = self.base / "script"
        path.write_text(f"#!/bin/sh\n{script}\n")
        output = f"--output={self.base}/out-%j"
        said = self.run("sbatch", "--parsable", output, *options, str(path), env=env).stdout
        number = int(said.split(";")[0])
        return Job(number, {**self.env, "SLURM_JOB_ID": str(number)}, self.run)

    def output(self, job: Job) -> str:
        """What a batch job has printed so far."""
        path = self.base / f"out-{job.id}"
        return path.read_text() if path.exists() else ""

    # ---- Ending it -------------------------------------------------------------------------------

    def clear(self) -> None:
        """End every job and client, and check that nothing of them is left on any node.

        Raises:
            AssertionError: naming what is left, which is then ended.
        """
        self._make_able()
        for job in self._jobs:
            job.close()
        for terminal in self._terminals:
            terminal.close()
        # Before its clients are killed: a step that cannot report to one takes seconds to end.
        self._cancel_all()
        for program in self._programs:
            program.kill()
            program.wait()
        self._jobs, self._terminals, self._programs = [], [], []
        try:
            wait_until(lambda: not self.processes(daemons=True), "nothing is left")
        except AssertionError:
            left = "\n".join(self.describe())
            self.end_all(lambda: self.processes(daemons=True))
            raise AssertionError(f"left behind by a job:\n{left}") from None

    def close(self) -> None:
        """End everything, the daemons too, and check that nothing at all is left.

        Raises:
            AssertionError: naming what is left; processes are then ended.
        """
        failures = []
        try:
            if self.is_up():
                self.clear()
        except AssertionError as error:
            failures.append(str(error))
        finally:
            failures += self._close()
        assert not failures, "left behind by the lab:\n" + "\n".join(failures)

    def _cancel_all(self) -> None:
        def queued() -> set[str]:
            # An element of an array goes by this name only; a part of a mixed job has a "+".
            said = self.run("squeue", "-h", "-o", "%i").stdout.split()
            return {label.partition("+")[0] for label in said}

        if jobs := queued():
            self.run("scancel", *jobs, check=None)
            wait_until(lambda: not queued(), "every job ends", 30.0 + self.layout.shape.kill_wait)
            # A request that comes before is looked at again only seconds later.
            self._await_nodes("idle")
