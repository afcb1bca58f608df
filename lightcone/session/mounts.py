"""The file systems of this host and where they are mounted (Linux)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["file_system", "other_path"]

_TABLE = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class _Mount:
    """One line of the table: where which part of which file system is, see proc(5)."""

    device: str
    part: Path
    point: Path
    kind: str


def file_system(path: Path) -> str:
    """The kind of the file system that ``path`` is on, such as ``nfs4``; "" where unknown."""
    mount = _mount_of(Path(os.path.realpath(path)), _mounts())
    return "" if mount is None else mount.kind


def other_path(path: Path) -> Path | None:
    """The same file as ``path`` by another mount of its file system, where there is one."""
    path, mounts = Path(os.path.realpath(path)), _mounts()
    own = _mount_of(path, mounts)
    if own is None:
        return None
    inside = own.part / path.relative_to(own.point)
    for mount in mounts:
        if mount.device == own.device and mount != own and inside.is_relative_to(mount.part):
            other = mount.point / inside.relative_to(mount.part)
            try:
                if other != path and os.path.samefile(other, path):
                    return other
            except OSError:
                continue
    return None


def _mount_of(path: Path, mounts: list[_Mount]) -> _Mount | None:
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    # Of several at one place the last one hides the others.
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=None)


def _mounts() -> list[_Mount]:
    try:
        text = _TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        words = [_plain(word) for word in line.split(" ")]
        kind = words[words.index("-") + 1]
        found.append(_Mount(words[2], Path(words[3]), Path(words[4]), kind))
    return found


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
