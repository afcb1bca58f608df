"""What this node has, as far as the machine, the cgroup and the affinity let this user have it."""

from __future__ import annotations

import os
import re

__all__ = ["gpus"]


def gpus() -> list[str]:
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
