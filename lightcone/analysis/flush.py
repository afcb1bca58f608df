"""Bringing what a recipe wrote to the disk, before a manifest says that it is there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lightcone.files import flush_to_disk

__all__ = ["flush"]


def flush(path: Path) -> None:
    """Bring every file and directory of an output to the disk, its own name included.

    Raises:
        OSError: where the disk refuses, for instance because it is full.
    """
    real = os.fspath(path)
    mode = os.lstat(real).st_mode
    if stat.S_ISLNK(mode):
        real = os.path.realpath(real)
        mode = os.lstat(real).st_mode
    if stat.S_ISDIR(mode):
        for directory, _, names in os.walk(real):
            for name in names:
                full = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(full).st_mode):
                    flush_to_disk(full)
            flush_to_disk(directory)
    elif stat.S_ISREG(mode):
        flush_to_disk(real)
    flush_to_disk(os.path.dirname(real))
