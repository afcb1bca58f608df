"""What this node has, as far as the machine, the cgroup and the affinity let this user have it."""

from __future__ import annotations

import os
import re

__all__ = ["gpu_count"]


def gpu_count() -> int:
    """The number of GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    try:
        return sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in os.listdir("/dev"))
    except OSError:
        return 0
