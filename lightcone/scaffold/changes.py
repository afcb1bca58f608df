"""Changes to a project's files, all decided on before any is made."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lightcone.errors import UsageError
from lightcone.system.files import read_file, write_atomically

__all__ = ["Change", "Kind", "apply_changes", "read"]


class Kind(Enum):
    """The kinds of change to a file."""

    CREATED = "created"
    CHANGED = "changed"
    REMOVED = "removed"
    KEPT = "kept"


@dataclass(frozen=True)
class Change:
    """One file's content before and after; None where it does not exist.

    Attributes:
        path: the file, relative to the project.
    """

    path: str
    before: bytes | None
    after: bytes | None

    @property
    def kind(self) -> Kind:
        """The kind of this change."""
        if self.before == self.after:
            return Kind.KEPT
        if self.before is None:
            return Kind.CREATED
        return Kind.REMOVED if self.after is None else Kind.CHANGED


def read(path: Path) -> bytes | None:
    """Return a file's content, or None where it does not exist.

    Raises:
        UsageError: where it cannot be read.
    """
    try:
        return read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): move it out of the way, or make it a "
            "readable file."
        ) from error


def apply_changes(root: Path, changes: Sequence[Change]) -> None:
    """Apply the changes in order, each atomically; leave kept files untouched.

    Raises:
        UsageError: where a file cannot be written.
    """
    for change in changes:
        if change.kind is Kind.KEPT:
            continue
        # Where a link stands, what it leads to is meant.
        path = Path(os.path.realpath(root / change.path))
        try:
            if change.after is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                mode = None if change.before is None else stat.S_IMODE(path.stat().st_mode)
                write_atomically(path, change.after, mode or 0o666)
                if mode is not None:
                    path.chmod(mode)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written ({error.strerror}): make its directory writable, and "
                "use 'lc init' again."
            ) from error
        if change.after is None and path.parent != root:
            with contextlib.suppress(OSError):  # as it is where something else is in it
                (root / change.path).parent.rmdir()
