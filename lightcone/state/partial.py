"""Partial work: what a recipe had written when it failed or was interrupted, one copy an output.

It is kept by renaming alone. When a recipe fails because the disk is full, there is no room for
anything else, and what it has written may be the checkpoint of a day's work.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.spec.output import Output
from lightcone.system.files import read_file, read_object, remove, write_atomically, write_new

__all__ = [
    "FAILURE",
    "FAILURE_VERSION",
    "NEXT",
    "discard_partial",
    "keep_partial",
    "products_of",
    "read_failure",
    "restore_partial",
    "set_partial_aside",
    "write_failure",
]

FAILURE = "failure.json"

FAILURE_VERSION = 1


def read_failure(state_dir: str | Path) -> dict[str, Any] | None:
    """The record in ``state_dir``, or None where there is none that can be used.

    One of another version says nothing here.
    """
    try:
        record = read_object(f"{state_dir}/{FAILURE}")
    except (OSError, ValueError):
        return None
    return record if record.get("version") == FAILURE_VERSION else None


def write_failure(
    output: Output,
    identity: str,
    reason: str,
    *,
    exit_code: int | None,
    interrupted: bool,
    products: Sequence[str],
) -> None:
    """Record that ``output`` could not be made, where there is room for that.

    Args:
        output: the output.
        identity: what was to be made.
        reason: why it was not, in words.
        exit_code: how its recipe ended; None where it did not come to that.
        interrupted: whether it was ended because nobody wanted it any more.
        products: the files that its command names and its recipe wrote.
    """
    record = {
        "version": FAILURE_VERSION,
        "identity": identity,
        "template": output.template,
        "products": list(products),
        "exit_code": exit_code,
        "reason": reason,
        "interrupted": interrupted,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        content = json.dumps(record).encode()
        write_atomically(output.state_dir / FAILURE, content, mode=0o666, durable=False)


def products_of(record: Mapping[str, Any], output: Output) -> set[str]:
    """The files that the output's recipe, as it is declared now, wrote before it failed."""
    products = record.get("products")
    if record.get("template") != output.template or not isinstance(products, list):
        return set()
    return {name for name in products if isinstance(name, str)}


NEXT = "partial.new"

"""Where it lies until the result before it is back in place."""

_PARTIAL = "partial"

_MADE_FOR = "partial.json"


def set_partial_aside(output: Output) -> None:
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


def restore_partial(output: Output, identity: str) -> bool:
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
