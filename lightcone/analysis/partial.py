"""Partial work: what a recipe had written when it failed or was interrupted, one copy an output.

The place for it is made before the recipe begins: when it fails because the disk is full, there is
no room for one, and what it has written may be the checkpoint of a day's work.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lightcone.analysis.output import Output
from lightcone.files import read_file, remove

__all__ = [
    "discard_partial",
    "hand_back_partial",
    "keep_partial",
    "prepare_partial",
    "take_partial_away",
]

_PARTIAL = "partial"
_NEXT = "partial.new"
_MADE_FOR = ".identity"


def prepare_partial(output: Output, identity: str) -> None:
    """Make a place for what a recipe is going to write for ``identity``.

    Raises:
        OSError: where there is no room for it.
    """
    place = output.state_dir / _NEXT
    remove(place)
    place.mkdir()
    (place / _MADE_FOR).write_text(identity, encoding="ascii", errors="replace")


def take_partial_away(output: Output, identity: str) -> None:
    """Move what lies at the output's path, written for ``identity``, to its place.

    Where it cannot be moved it is removed: the result before it comes first.

    Raises:
        OSError: where it can be neither moved nor removed.
    """
    path, place = output.path, output.state_dir / _NEXT
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
        return
    try:
        if not place.is_dir():
            prepare_partial(output, identity)
        os.rename(path, place / path.name)
    except OSError:
        remove(path)


def keep_partial(output: Output) -> None:
    """Let what was taken away, if anything, replace what was kept before."""
    kept, place = output.state_dir / _PARTIAL, output.state_dir / _NEXT
    if os.path.lexists(place / output.path.name):
        remove(kept)
        os.rename(place, kept)
    remove(place)


def hand_back_partial(output: Output, identity: str) -> bool:
    """Put what was written for ``identity`` back in place; False where there is nothing such."""
    kept = output.state_dir / _PARTIAL
    work = kept / output.path.name
    if not os.path.lexists(work) or _made_for(kept) != identity:
        return False
    os.rename(work, output.path)
    return True


def discard_partial(output: Output) -> int:
    """Remove what an interrupted or failed recipe had written; the bytes that it took."""
    size = 0
    for kept in (output.state_dir / _PARTIAL, output.state_dir / _NEXT):
        for directory, _, names in os.walk(kept):
            for name in set(names) - {_MADE_FOR}:
                with contextlib.suppress(FileNotFoundError):
                    size += os.lstat(os.path.join(directory, name)).st_size
        remove(kept)
    return size


def _made_for(kept: Path) -> str | None:
    try:
        return read_file(kept / _MADE_FOR).decode("ascii")
    except (OSError, ValueError):
        return None
