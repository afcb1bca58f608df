"""The file systems of this host and where they are mounted (Linux)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["alternative_path", "file_system", "mount_point_in"]

_TABLE = Path("/proc/self/mountinfo")


class _Mount(NamedTuple):
    """One line of the table: where which part of which file system is, see proc(5)."""

    device: str
    part: str
    point: str
    kind: str


def file_system(path: Path) -> str:
    """The kind of the file system that ``path`` is on, such as ``nfs4``; "" where unknown."""
    mount = _mount_of(os.path.realpath(path), _mounts())
    return "" if mount is None else mount.kind


def alternative_path(path: Path) -> Path | None:
    """The same file as ``path`` by another mount of its file system, where there is one."""
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
    """A mount point at ``path`` or below it, or None where there is none.

    Where the system does not list its mounts, only ``path`` itself is looked at.
    """
    place = os.path.join(os.path.realpath(path.parent), path.name)
    mounts = _mounts()
    if not mounts:
        return path if os.path.ismount(place) else None
    for mount in mounts:
        if _is_below(mount.point, place):
            return path / os.path.relpath(mount.point, place)
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
        words = line.split(" ")
        if "\\" in line:
            words = [_plain(word) for word in words]
        found.append(_Mount(words[2], words[3], words[4], words[words.index("-") + 1]))
    return found


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
