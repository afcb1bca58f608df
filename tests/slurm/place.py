"""What a lab has to itself on this machine: a number, and ports, names and a network from it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Network", "Place", "answers", "find", "missing"]

# Debian keeps daemons and network tools where a plain user's PATH does not look.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "salloc", "sbatch", "srun", "scancel", "scontrol")
# Below the ports that the kernel gives to outgoing connections.
_FIRST_PORT, _BLOCK, _BLOCKS = 20000, 64, 180


def find(program: str) -> str | None:
    """The path of a program, daemons included."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]))


def missing(network: bool = False) -> str:
    """Why there can be no lab here, or ""."""
    if sys.platform != "linux":
        return "SLURM runs on Linux only"
    absent = [program for program in _PROGRAMS if find(program) is None]
    if absent:
        return (
            f"SLURM is not installed: no {', '.join(absent)} (scripts/setup.sh slurm installs it)"
        )
    if network and os.geteuid() != 0:
        return "a network of its own for each node takes root"
    absent = [tool for tool in ("ip", "nsenter", "unshare") if network and find(tool) is None]
    return f"a network for each node takes {', '.join(absent)}" if absent else ""


class Place:
    """A number that no other lab has while this one is open.

    Attributes:
        number: from 0 to 179.
        port: the controller's port; node ``i``, counted from 1, listens on ``port + i``.
    """

    def __init__(self) -> None:
        """Take a number.

        Raises:
            OSError: where none is free.
        """
        numbers = list(range(_BLOCKS))
        random.shuffle(numbers)
        for self.number in numbers:
            first = _FIRST_PORT + self.number * _BLOCK
            self.port = first + 1
            try:
                # Bound and never listened on: it is what takes the block.
                self._token = _bound(first)
            except OSError:
                continue
            try:
                for port in range(self.port, first + _BLOCK):
                    _bound(port).close()
            except OSError:
                self._token.close()
                continue
            return
        raise OSError("every block of ports that a lab could have is taken")

    def close(self) -> None:
        """Give the number back."""
        self._token.close()


def _bound(port: int) -> socket.socket:
    token = socket.socket()
    try:
        token.bind(("0.0.0.0", port))  # noqa: S104 (nothing ever listens on it)
    except OSError:
        token.close()
        raise
    return token


def answers(port: int) -> bool:
    """Whether something on this host takes connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Network:
    """A bridge on this host, and for each node a network namespace with an address on it."""

    def __init__(self, number: int, nodes: Sequence[str]) -> None:
        self.nodes = list(nodes)
        # 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
        self._prefix = f"198.18.{number}"
        self._bridge = f"lclab{number}"

    def address(self, node: str | None = None) -> str:
        """A node's address, or the submit host's."""
        host = 1 if node is None else 10 + self.nodes.index(node)
        return f"{self._prefix}.{host}"

    def namespace(self, node: str) -> Path:
        """The file that stands for a node's network namespace."""
        return Path("/run/netns", node)

    def hosts(self) -> str:
        """What ``/etc/hosts`` says on every node."""
        lines = ["127.0.0.1 localhost", f"{self.address()} {socket.gethostname().split('.')[0]}"]
        return "\n".join([*lines, *(f"{self.address(node)} {node}" for node in self.nodes), ""])

    def open(self) -> None:
        """Make all of it."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address()}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for index, node in enumerate(self.nodes):
            link = f"{self._bridge}-{index}"
            _ip("netns", "add", node)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", node)
            _ip("link", "set", link, "master", self._bridge, "up")
            _ip("-n", node, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            _ip("-n", node, "link", "set", "eth0", "up")
            _ip("-n", node, "link", "set", "lo", "up")
            # A node reaches every address of the submit host, as on a cluster.
            _ip("-n", node, "route", "add", "default", "via", self.address())

    def cut(self, node: str, up: bool = False) -> None:
        """Pull a node's cable out, or, with ``up``, put it back in."""
        link = f"{self._bridge}-{self.nodes.index(node)}"
        _ip("link", "set", link, "up" if up else "down")

    def close(self) -> None:
        """Take all of it away."""
        # One by one: those that go with a namespace go some time after it.
        for link in self._links():
            _ip("link", "del", link)
        for node in self.nodes:
            if self.namespace(node).exists():
                _ip("netns", "del", node)

    def remains(self) -> list[str]:
        """What is there of it."""
        spaces = [f"netns {node}" for node in self.nodes if self.namespace(node).exists()]
        return self._links() + spaces

    def _links(self) -> list[str]:
        names = [self._bridge, *(f"{self._bridge}-{index}" for index in range(len(self.nodes)))]
        return [name for name in names if Path("/sys/class/net", name).exists()]


def _ip(*arguments: str) -> None:
    program = find("ip")
    assert program is not None
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"ip {' '.join(arguments)}: {result.stderr}"
