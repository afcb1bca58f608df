"""Resources of a node, as probed there and as its worker declares."""

from __future__ import annotations

import os
import re
from typing import Any

from lightcone import __version__

__all__ = ["describe_node", "probe_process", "visible_gpus"]


def probe_process(root: str) -> dict[str, Any]:
    """Report whether the directory ``root`` exists, and the ``version`` of lightcone."""
    return {"root": os.path.isdir(root), "version": __version__}


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device.strip() for device in visible.split(",")]
        return [device for device in devices if device not in ("", "-1")]
    try:
        matches = [re.fullmatch(r"nvidia(\d+)", name) for name in os.listdir("/dev")]
    except OSError:
        return []
    return sorted((match[1] for match in matches if match), key=int)


def describe_node(worker: Any) -> dict[str, Any]:
    """Describe the node of ``worker`` as JSON; memory in bytes."""
    return {
        "host": str(worker.name),
        "cpus": worker.resources.get("CPU", worker.nthreads),
        "memory": int(worker.resources.get("MEMORY", worker.memory_limit)),
        "gpus": int(worker.resources.get("GPU", 0)),
    }
