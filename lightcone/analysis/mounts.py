"""Mount points, which can be neither moved nor removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["mount_point_in"]

_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def mount_point_in(path: Path) -> Path | None:
    """A mount point at ``path`` or below it, or None where there is none.

    Where the system does not list its mounts, only ``path`` itself is looked at.
    """
    place = os.path.join(os.path.realpath(path.parent), path.name)
    try:
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return path if os.path.ismount(place) else None
    for line in lines:
        # The fifth field, see proc_pid_mountinfo(5).
        mounted = os.fsdecode(_ESCAPED.sub(_unescape, line.split(b" ", 5)[4]))
        if mounted == place or mounted.startswith(f"{place}/"):
            return path / os.path.relpath(mounted, place)
    return None


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
