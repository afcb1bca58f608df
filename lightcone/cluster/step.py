"""What runs on each node of an allocation: becomes a worker that has the node's whole share.

Run by the batch system on every node, ``python -P -m lightcone.cluster.step STATE GRACE``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from lightcone.cluster import command
from lightcone.slurm.allocation import step_shape

__all__ = ["main"]

_PATIENCE = 15.0
_TICK = 0.05
_ANY_PORT = 9
# Memory, and file systems that lie elsewhere.
_NOT_LOCAL = {"tmpfs", "ramfs", "overlay", "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "afs"}


def main(state: Path, grace: float) -> None:
    """Become the node's worker."""
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    told = _told(state)
    if told is None:
        sys.exit(
            f"The directory {state} of the session is not to be seen on the node {name}: set "
            "LIGHTCONE_SCRATCH to a directory that all nodes share."
        )
    shape = step_shape()
    # A job without devices has none, whatever the node has.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shape.gpus)
    host = _facing(str(told["listen"]))
    spill = _spill(str(told["key"])) or state / "spill" / name
    spill.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = command.node(state, grace, name, host, spill, shape.cpus, shape.memory)
    os.execv(program[0], program)  # noqa: S606 (no shell)


def _told(state: Path) -> dict[str, object] | None:
    # A file system that all nodes share may show what has been written a little later.
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            told: dict[str, object] = json.loads((state / "spawn.json").read_bytes())
        except (OSError, ValueError):
            time.sleep(_TICK)
        else:
            return told
    return None


def _facing(host: str) -> str:
    """The address of this node on its way to ``host``."""
    family, kind, _, _, where = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(where)  # sends nothing: it only chooses the way
        return str(probe.getsockname()[0])


def _spill(key: str) -> Path | None:
    """A directory of the session's on a disk of this node, where there is one."""
    place = Path(tempfile.gettempdir())
    if _file_system(place) in _NOT_LOCAL:
        return None
    return Path(tempfile.mkdtemp(prefix=f"lightcone-{key}-", dir=place))


def _file_system(path: Path) -> str:
    """The kind of the file system that ``path`` is on; "tmpfs" where that cannot be told."""
    best, kind = "", "tmpfs"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    real = os.path.realpath(path)
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = mount.split()[4]
        if os.path.commonpath((real, point)) == point and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
