"""Partial work of a failed or interrupted recipe, one copy for each output.

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
    "PARTIAL_NEXT",
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
    """Read the failure record in ``state_dir``; None if none is usable.

    A record of another version is not usable.
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
    """Record that ``output`` could not be made, if the disk has room.

    Args:
        output: the output.
        identity: the identity of the output to be made.
        reason: why it was not, in words.
        exit_code: how its recipe ended; None where it did not come to that.
        interrupted: whether it was ended because no run wanted it any more.
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
    """Return the files that the recipe wrote before it failed.

    Empty where the recipe has been declared otherwise since.
    """
    products = record.get("products")
    if record.get("template") != output.template or not isinstance(products, list):
        return set()
    return {name for name in products if isinstance(name, str)}


PARTIAL_NEXT = "partial.new"

"""The name of partial work until the previous result is restored."""

_PARTIAL = "partial"

_PARTIAL_JOURNAL = "partial.json"


def set_partial_aside(output: Output) -> None:
    """Move the partial work at the output's path aside.

    Where it cannot be moved it is removed: the result before it comes first.

    Raises:
        OSError: where it can be neither moved nor removed.
    """
    path, next_partial = output.path, output.state_dir / PARTIAL_NEXT
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
        return
    try:
        remove(next_partial)
        os.rename(path, next_partial)
    except OSError:
        remove(path)


def keep_partial(output: Output, journal: Path) -> None:
    """Replace the kept partial work by the work set aside, if any.

    ``journal`` records the identity that it was made for.
    """
    kept, next_partial, journal_copy = (
        output.state_dir / name for name in (_PARTIAL, PARTIAL_NEXT, _PARTIAL_JOURNAL)
    )
    if not os.path.lexists(next_partial):
        return
    remove(journal_copy)
    remove(kept)
    # Where there is no room even for this, the work is there to be looked at.
    with contextlib.suppress(OSError):
        try:
            os.link(journal, journal_copy)
        except OSError:
            mode = stat.S_IMODE(os.stat(journal).st_mode)
            write_new(journal_copy, read_file(journal), mode, umask=0)
    os.rename(next_partial, kept)


def restore_partial(output: Output, identity: str) -> bool:
    """Restore the partial work of ``identity``; return False without any."""
    kept, journal_copy = output.state_dir / _PARTIAL, output.state_dir / _PARTIAL_JOURNAL
    # The same command may make a file of another name, or a directory.
    if not os.path.lexists(kept) or _identity_and_name(journal_copy) != (
        identity,
        output.path.name,
    ):
        return False
    os.rename(kept, output.path)
    remove(journal_copy)
    return True


def discard_partial(output: Output) -> int:
    """Remove the partial work; return the bytes that it took."""
    size = 0
    for name in (_PARTIAL, PARTIAL_NEXT):
        kept = output.state_dir / name
        with contextlib.suppress(FileNotFoundError):
            size += _size(kept)
            remove(kept)
    remove(output.state_dir / _PARTIAL_JOURNAL)
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


def _identity_and_name(file: Path) -> tuple[object, object]:
    try:
        record = read_object(file)
    except (OSError, ValueError):
        return None, None
    return record.get("identity"), record.get("name")
