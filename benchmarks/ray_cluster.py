"""A Ray cluster on this machine, for its jobs."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from benchmarks.bench import Bench, started
from benchmarks.environments import Environment
from benchmarks.samples import Failed

__all__ = ["RayCluster", "ray_cluster"]

_START_DEADLINE = 90.0
_END_DEADLINE = 15.0
_TICK = 0.05


@dataclass(frozen=True)
class RayCluster:
    """A cluster that takes jobs; ``process`` is the parent of all its processes."""

    bench: Bench
    environment: Environment
    address: str
    process: psutil.Process

    def submit(self, *command: str) -> float:
        """Submit one job and wait for its end; how many seconds that took."""
        ray = str(self.environment.programs / "ray")
        argv = [ray, "job", "submit", "--address", self.address, "--", *command]
        return self.bench.seconds(
            argv, self.bench.others, env=self.bench.environment(self.environment)
        )


@contextlib.contextmanager
def ray_cluster(bench: Bench, environment: Environment) -> Iterator[RayCluster]:
    """A head node that takes jobs, ended with all it started.

    Raises:
        Failed: where it is not up in time.
    """
    port, dashboard = _free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    argv = [str(environment.programs / "ray"), "start", "--head", "--block"]
    argv += ["--disable-usage-stats", f"--num-cpus={bench.cores}", "--node-ip-address=127.0.0.1"]
    argv += [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    argv += [f"--temp-dir={bench.others / 'ray'}"]
    with open(bench.others / "ray.log", "wb") as log:
        program = started(
            argv,
            cwd=bench.others,
            env=bench.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process = psutil.Process(program.pid)
    try:
        _wait_until_up(program, address)
        yield RayCluster(bench, environment, address, process)
    finally:
        # Not with its own 'ray stop', which ends every Ray of this machine by name.
        members = [process, *process.children(recursive=True)] if process.is_running() else []
        program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(_END_DEADLINE)
        for member in psutil.wait_procs(members, 1.0)[1]:
            with contextlib.suppress(psutil.Error):
                member.kill()
        program.wait()


def _wait_until_up(program: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while time.monotonic() < deadline and program.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=5):  # noqa: S310 (ours)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_TICK)
    raise Failed(f"Ray is not up after {_START_DEADLINE:g} s, or has ended ({program.returncode})")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
