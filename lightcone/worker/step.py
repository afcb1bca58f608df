"""What runs on each node of an allocation: becomes a worker that has the node's whole share.

Run by the batch system on every node, ``python -P -m lightcone.worker.step STATE GRACE``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from lightcone.engine.command_lines import node_worker_command
from lightcone.project.host import address_facing
from lightcone.slurm.allocation import step_shape
from lightcone.system.mounts import file_system

__all__ = ["main"]

_PATIENCE = 15.0
_TICK = 0.05
# Memory, file systems that lie elsewhere, and what cannot be told.
_NOT_LOCAL = {
    "",
    "tmpfs",
    "ramfs",
    "overlay",
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
}


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
    host = address_facing(str(told["listen"]))
    spill = _spill(str(told["key"])) or state / "spill" / name
    spill.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = node_worker_command(state, grace, name, host, spill, shape.cpus, shape.memory)
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


def _spill(key: str) -> Path | None:
    """A directory of the session's on a disk of this node, where there is one."""
    place = Path(tempfile.gettempdir())
    if file_system(place) in _NOT_LOCAL:
        return None
    return Path(tempfile.mkdtemp(prefix=f"lightcone-{key}-", dir=place))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
