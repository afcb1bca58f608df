"""Leases: the named use of a session by one conversation, person or script."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lightcone.errors import LightconeError, UsageError
from lightcone.project.context import current_context
from lightcone.project.host import runtime_directory
from lightcone.project.settings import load_settings
from lightcone.project.variables import LEASE_VARIABLE
from lightcone.wire.control_client import ask_session

__all__ = ["check_lease", "own_lease", "release_lease"]

_LONGEST = 200


def own_lease() -> str | None:
    """The lease named in this process's environment, if any."""
    name = os.environ.get(LEASE_VARIABLE)
    return None if not name else check_lease(name)


def check_lease(name: str) -> str:
    """Return ``name`` if it is valid as the name of a lease.

    Raises:
        UsageError: where it is not.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST:
        raise UsageError(
            f"{name!r} cannot be the name of a lease: use a word of at most {_LONGEST} characters."
        )
    return name


def release_lease(lease: str, directory: str) -> None:
    """Release ``lease`` in every session of this user on this host.

    The session of the project at ``directory`` is one of them; but a conversation may have gone
    from project to project, and its lease's name is its own. A session that has not granted it,
    or does not answer, is left as it is.
    """
    try:
        settings = current_context(Path(directory)).settings
    except (LightconeError, OSError, ValueError):
        settings = load_settings(Path("/"))
    for socket in sorted(runtime_directory(settings).glob("*/control")):
        with contextlib.suppress(OSError):
            ask_session(socket, "release", lease=lease)
