"""The daemons of a cluster, together: brought up, disturbed, and taken away without a trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests.helpers import clean_environment, wait_until
from tests.slurm.daemons import Daemon, Layout, Shape
from tests.slurm.place import Place, answers
from tests.slurm.watch import Watch

__all__ = ["Cluster"]

_MARK = "LIGHTCONE_TEST_LAB"


class Cluster(Watch):
    """Daemons in a directory and on ports of their own.

    Attributes:
        base: its directory.
        env: the environment of everything that is run through it.
        nodes: the nodes' names.
        local: with ``netns``, another directory on every node and on the submit host.
        network: with ``netns``, the nodes' network.
        daemons: that of each node.
    """

    def __init__(self, shape: Shape) -> None:
        """A cluster that is not up yet."""
        self._place = Place()
        self.base = Path(tempfile.mkdtemp(prefix="lc-lab-", dir="/tmp")).resolve()
        self.base.chmod(0o755)  # munge's socket has to be reachable
        self.layout = Layout(self.base, self._place, shape)
        super().__init__(self.layout, f"{_MARK}={self.base}")
        self.nodes = self.layout.nodes
        self.network = self.layout.network
        self.local = self.base / "local"
        self.env = {
            **clean_environment(),
            "SLURM_CONF": str(self.layout.configuration),
            _MARK: str(self.base),
        }
        self.daemons: dict[str, Daemon] = {}
        self._others: dict[str, Daemon] = {}

    def is_up(self) -> bool:
        """Whether there is a controller that can be asked, or was."""
        return "slurmctld" in self._others

    def run(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        check: int | None = 0,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; its exit code has to be ``check`` unless that is None."""
        result = subprocess.run(
            argv,
            env={**self.env, **(env or {})},
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        shown = f"{argv}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert check is None or result.returncode == check, shown
        return result

    @property
    def controller(self) -> Daemon:
        """The daemon that answers SLURM's commands."""
        return self._others["slurmctld"]

    @contextlib.contextmanager
    def frozen_controller(self) -> Iterator[None]:
        """A controller that takes connections and never answers."""
        self.controller.freeze()
        try:
            yield
        finally:
            self.controller.thaw()

    @contextlib.contextmanager
    def no_controller(self) -> Iterator[None]:
        """No controller; afterwards there is one that knows the jobs of the one before."""
        self.controller.stop()
        try:
            yield
        finally:
            self._start_controller()
            self._await_nodes()

    def lose(self, node: str) -> None:
        """A node's crash: everything that runs on it is gone, and its network with it."""
        if self.network is not None:
            self.network.cut(node)
        self.daemons.pop(node).kill()
        self.end_all(lambda: self.node_processes(node, daemons=True))

    def mend(self, node: str) -> None:
        """A lost node comes up again, empty."""
        if self.network is not None:
            self.network.cut(node, up=True)
        self._start_node(node)
        self._await_nodes()

    def _start(self) -> None:
        self.layout.write()
        if self.network is not None:
            self.network.open()
        self._others["munged"] = self._daemon("munged", self.layout.munged())
        socket = self.base / "munge" / "sock"
        wait_until(socket.exists, "munged listens")
        self._start_controller("-c")
        for node in self.nodes:
            self._start_node(node)
        self._await_nodes()
        # A node is called idle before it answers; a job proves that it does.
        self.run("srun", "--quiet", f"--nodes={len(self.nodes)}", "true")
        self._await_nodes("idle")

    def _start_controller(self, *options: str) -> None:
        argv = self.layout.slurmctld(*options)
        self._others["slurmctld"] = self._daemon("slurmctld", argv)
        # A node that finds nobody there asks again only after a second.
        wait_until(lambda: answers(self._place.port), "the controller listens")

    def _start_node(self, node: str) -> None:
        self.daemons[node] = self._daemon(node, self.layout.slurmd(node))

    def _daemon(self, name: str, argv: list[str]) -> Daemon:
        return Daemon(argv, self.env, self.base / "log" / f"{name}.out")

    def _all_daemons(self) -> list[Daemon]:
        return [*self.daemons.values(), *self._others.values()]

    def _await_nodes(self, *wanted: str) -> None:
        wanted = wanted or ("idle", "mixed", "allocated")

        def up() -> bool:
            for daemon in self._all_daemons():
                words = "\n".join(each.last_words() for each in self._all_daemons())
                assert daemon.is_running(), f"{daemon.name} has ended\n{words}"
            try:
                said = self.run("sinfo", "-h", "-N", "-o", "%T", check=None, timeout=2.0)
            except subprocess.TimeoutExpired:
                return False
            states = said.stdout.split()
            return len(states) == len(self.nodes) and set(states) <= set(wanted)

        wait_until(up, "every node is up", 60.0)

    def _make_able(self) -> None:
        """Undo what a failed test has done to the daemons, so that they can end jobs."""
        for daemon in self._all_daemons():
            if daemon.is_running():
                daemon.thaw()
        if not self.controller.is_running():
            self._start_controller()
        for process in self.processes(daemons=True):
            with contextlib.suppress(psutil.Error):
                process.resume()
        for node in self.nodes:
            if node not in self.daemons or not self.daemons[node].is_running():
                if self.network is not None:
                    self.network.cut(node, up=True)
                self._start_node(node)
        self._await_nodes()

    def _close(self) -> list[str]:
        """End every daemon and process, take everything away, and tell what is left of it."""
        for daemon in self._all_daemons():
            daemon.stop()
        self.end_all(lambda: self.processes(daemons=True))
        remains = []
        if self.network is not None:
            self.network.close()
            remains += self.network.remains()
        for group in self.layout.cgroups():
            _remove_tree(group)
        remains += [str(group) for group in self.layout.cgroups()]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        remains += [line for line in mounts if str(self.base) in line]
        shutil.rmtree(self.base, ignore_errors=True)
        self._place.close()
        return remains


def _remove_tree(group: Path) -> None:
    for path, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
