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
    if os.path.isdir(path):
        for directory, _, names in os.walk(path):
            for name in names:
                full = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(full).st_mode):
                    flush_to_disk(full)
            flush_to_disk(directory)
    elif os.path.isfile(path):
        flush_to_disk(path)
    flush_to_disk(os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path))
