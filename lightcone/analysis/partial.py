"""Partial work: what a recipe had written when it failed or was interrupted, one copy an output.

It is kept by renaming alone. When a recipe fails because the disk is full, there is no room for
anything else, and what it has written may be the checkpoint of a day's work.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from lightcone.analysis.output import Output
from lightcone.files import read_file, read_object, remove, write_new

__all__ = ["NEXT", "discard_partial", "hand_back_partial", "keep_partial", "take_partial_away"]

NEXT = "partial.new"
"""Where it lies until the result before it is back in place."""

_PARTIAL = "partial"
_MADE_FOR = "partial.json"


def take_partial_away(output: Output) -> None:
    """Move what lies at the output's path to where it can be kept.

    Where it cannot be moved it is removed: the result before it comes first.

    Raises:
        OSError: where it can be neither moved nor removed.
    """
    path, place = output.path, output.state_dir / NEXT
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
        return
    try:
        remove(place)
        os.rename(path, place)
    except OSError:
        remove(path)


def keep_partial(output: Output, journal: Path) -> None:
    """Let what was taken away, if anything, replace what was kept before.

    ``journal`` says what it was made for.
    """
    kept, place, made_for = (output.state_dir / name for name in (_PARTIAL, NEXT, _MADE_FOR))
    if not os.path.lexists(place):
        return
    remove(made_for)
    remove(kept)
    # Where there is no room even for this, the work is there to be looked at.
    with contextlib.suppress(OSError):
        try:
            os.link(journal, made_for)
        except OSError:
            mode = stat.S_IMODE(os.stat(journal).st_mode)
            write_new(made_for, read_file(journal), mode, umask=0)
    os.rename(place, kept)


def hand_back_partial(output: Output, identity: str) -> bool:
    """Put what was written for ``identity`` back in place; False where there is nothing such."""
    kept, made_for = output.state_dir / _PARTIAL, output.state_dir / _MADE_FOR
    # The same command may make a file of another name, or a directory.
    if not os.path.lexists(kept) or _made_for(made_for) != (identity, output.path.name):
        return False
    os.rename(kept, output.path)
    remove(made_for)
    return True


def discard_partial(output: Output) -> int:
    """Remove what an interrupted or failed recipe had written; the bytes that it took."""
    size = 0
    for name in (_PARTIAL, NEXT):
        kept = output.state_dir / name
        with contextlib.suppress(FileNotFoundError):
            size += _size(kept)
            remove(kept)
    remove(output.state_dir / _MADE_FOR)
    return size


def _size(path: Path) -> int:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    size = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(directory, name)).st_size
    return size


def _made_for(file: Path) -> tuple[object, object]:
    try:
        told = read_object(file)
    except (OSError, ValueError):
        return None, None
    return told.get("identity"), told.get("name")
