"""What a node has for commands: as it is found there, and as its worker has told."""

from __future__ import annotations

import os
import re
from typing import Any

from lightcone import __version__

__all__ = ["describe_node", "probe_process", "visible_gpus"]


def probe_process(root: str) -> dict[str, Any]:
    """Whether the directory ``root`` is there, and the ``version`` of lightcone."""
    return {"root": os.path.isdir(root), "version": __version__}


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [device.strip() for device in visible.split(",")]
        return [device for device in named if device not in ("", "-1")]
    try:
        found = [re.fullmatch(r"nvidia(\d+)", name) for name in os.listdir("/dev")]
    except OSError:
        return []
    return sorted((match[1] for match in found if match), key=int)


def describe_node(worker: Any) -> dict[str, Any]:
    """What the scheduler knows of the node of ``worker``, as JSON; memory in bytes."""
    return {
        "host": str(worker.name),
        "cpus": worker.resources.get("CPU", worker.nthreads),
        "memory": int(worker.resources.get("MEMORY", worker.memory_limit)),
        "gpus": int(worker.resources.get("GPU", 0)),
    }
