"""Which processes on this machine are a lab's jobs, and on which of its nodes each runs."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.helpers import end, is_alive, wait_until
from tests.slurm.daemons import Daemon, Layout

__all__ = ["Watch"]


class Watch(ABC):
    """Finds the processes of a lab."""

    def __init__(self, layout: Layout, mark: str) -> None:
        """``mark`` is an assignment in the environment of everything that the lab starts."""
        self._layout = layout
        self._mark_name, _, self._mark_value = mark.partition("=")

    @abstractmethod
    def _all_daemons(self) -> list[Daemon]: ...

    def processes(self, daemons: bool = False) -> list[psutil.Process]:
        """Every living process of jobs and their clients: by mark, control group or parent.

        ``daemons`` includes those that SLURM has beside each step.
        """
        own = {daemon.pid for daemon in self._all_daemons()}
        kin, below = set(own), []
        psutil.process_iter.cache_clear()  # an id may be another's by now
        for process in psutil.process_iter():  # by their ids: parents mostly come first
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE or process.pid in (os.getpid(), *own):
                    continue
                if self._is_marked(process):
                    kin.add(process.pid)
                below.append((process, process.ppid()))
        while more := {process.pid for process, parent in below if parent in kin} - kin:
            kin |= more
        # What the controller has beside itself is none of a job's.
        hidden = ("slurmscriptd",) if daemons else ("slurmscriptd", "slurmstepd")
        found = []
        for process, _ in below:
            with contextlib.suppress(psutil.Error):
                if process.pid in kin and process.name() not in hidden:
                    found.append(process)
        return found

    def node_processes(self, node: str, daemons: bool = False) -> list[psutil.Process]:
        """Those of :meth:`processes` that run on one node."""
        found = []
        for process in self.processes(daemons):
            with contextlib.suppress(psutil.Error):
                if self._node_of(process) == node:
                    found.append(process)
        return found

    def named(self, name: str, node: str | None = None) -> list[int]:
        """The ids of the jobs' and their clients' processes of a name, on one node or anywhere."""
        pids = []
        for process in self.processes() if node is None else self.node_processes(node):
            with contextlib.suppress(psutil.Error):
                if process.name() == name:
                    pids.append(process.pid)
        return pids

    def describe(self, daemons: bool = True) -> list[str]:
        """The living processes, for people."""
        lines = []
        for process in self.processes(daemons):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())[:200]
                lines.append(f"{self._node_of(process) or 'submit host'}: {process.pid} {line}")
        return lines

    def end_all(self, find: Callable[[], list[psutil.Process]]) -> None:
        """Kill what ``find`` finds until it finds nothing."""

        def none_left() -> bool:
            pids = [process.pid for process in find()]
            end(pids)
            return not any(is_alive(pid) for pid in pids)

        wait_until(none_left, "they are dead")

    def _is_marked(self, process: psutil.Process) -> bool:
        if self._group_node(process) is not None:
            return True
        with contextlib.suppress(psutil.AccessDenied):
            if process.environ().get(self._mark_name) == self._mark_value:
                return True
        return any(self._mark_value in argument for argument in process.cmdline())

    def _group_node(self, process: psutil.Process) -> str | None:
        groups = ""
        with contextlib.suppress(OSError):
            groups = Path("/proc", str(process.pid), "cgroup").read_text()
        found = (node for node in self._layout.nodes if f"/slurm_{node}/" in groups)
        return next(found, None)

    def _node_of(self, process: psutil.Process) -> str | None:
        network = self._layout.network
        if network is None:
            node = self._group_node(process)
            with contextlib.suppress(psutil.AccessDenied):
                node = node or process.environ().get("SLURMD_NODENAME")
            return node if node in self._layout.nodes else None
        with contextlib.suppress(OSError):
            own = os.stat(f"/proc/{process.pid}/ns/net").st_ino
            for node in self._layout.nodes:
                if os.stat(network.namespace(node)).st_ino == own:
                    return node
        return None
