"""The file systems of this host and where they are mounted (Linux)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["alternative_path", "file_system", "mount_point_in"]

_TABLE = Path("/proc/self/mountinfo")


class _Mount(NamedTuple):
    """One line of the mount table, as proc(5) describes it."""

    device: str
    part: str
    point: str
    kind: str


def file_system(path: Path) -> str:
    """Return the file system's type for ``path``, such as ``nfs4``; "" where unknown."""
    mount = _mount_of(os.path.realpath(path), _mounts())
    return "" if mount is None else mount.kind


def alternative_path(path: Path) -> Path | None:
    """Find the same file through another mount of its file system."""
    path, mounts = Path(os.path.realpath(path)), _mounts()
    own = _mount_of(str(path), mounts)
    if own is None:
        return None
    inside = Path(own.part) / path.relative_to(own.point)
    for mount in mounts:
        if mount.device == own.device and mount != own and inside.is_relative_to(mount.part):
            other = mount.point / inside.relative_to(mount.part)
            try:
                if other != path and os.path.samefile(other, path):
                    return other
            except OSError:
                continue
    return None


def mount_point_in(path: Path) -> Path | None:
    """Find a mount point at ``path`` or below it; None without one.

    Where the system does not list its mounts, only ``path`` itself is checked.
    """
    location = os.path.join(os.path.realpath(path.parent), path.name)
    mounts = _mounts()
    if not mounts:
        return path if os.path.ismount(location) else None
    for mount in mounts:
        if _is_below(mount.point, location):
            return path / os.path.relpath(mount.point, location)
    return None


def _mount_of(path: str, mounts: list[_Mount]) -> _Mount | None:
    above = [mount for mount in mounts if _is_below(path, mount.point)]
    # Of several at one place the last one hides the others.
    return max(reversed(above), key=lambda mount: len(mount.point), default=None)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _mounts() -> list[_Mount]:
    try:
        text = os.fsdecode(_TABLE.read_bytes())
    except OSError:
        return []
    found = []
    # Names may contain whatever else ends a line elsewhere.
    for line in text.split("\n")[:-1]:
        fields = line.split(" ")
        if "\\" in line:
            fields = [_unescape(field) for field in fields]
        found.append(_Mount(fields[2], fields[3], fields[4], fields[fields.index("-") + 1]))
    return found


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
