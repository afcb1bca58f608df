"""The program on each node of an allocation, which becomes the node's worker.

The worker has the node's whole share. The batch system runs, on every node,
``python -P -m lightcone.worker.step STATE GRACE``.
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

_INSTRUCTIONS_TIMEOUT = 15.0
_POLL_INTERVAL = 0.05
# Memory, file systems on other machines, and unknown ones.
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
    instructions = _read_instructions(state)
    if instructions is None:
        sys.exit(
            f"The directory {state} of the session is not to be seen on the node {name}: set "
            "LIGHTCONE_SCRATCH to a directory that all nodes share."
        )
    shape = step_shape()
    # A job without devices has none, whatever the node has.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shape.gpus)
    host = address_facing(str(instructions["listen"]))
    spill = _local_spill(str(instructions["key"])) or state / "spill" / name
    spill.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = node_worker_command(state, grace, name, host, spill, shape.cpus, shape.memory)
    os.execv(program[0], program)  # noqa: S606 (no shell)


def _read_instructions(state: Path) -> dict[str, object] | None:
    # A file system that all nodes share may show what has been written a little later.
    deadline = time.monotonic() + _INSTRUCTIONS_TIMEOUT
    while time.monotonic() < deadline:
        try:
            instructions: dict[str, object] = json.loads((state / "spawn.json").read_bytes())
        except (OSError, ValueError):
            time.sleep(_POLL_INTERVAL)
        else:
            return instructions
    return None


def _local_spill(key: str) -> Path | None:
    """Create a spill directory on this node's local disk, if it has one."""
    directory = Path(tempfile.gettempdir())
    if file_system(directory) in _NOT_LOCAL:
        return None
    return Path(tempfile.mkdtemp(prefix=f"lightcone-{key}-", dir=directory))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
