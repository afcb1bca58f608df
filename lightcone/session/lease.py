"""Leases: the named use of a session by one conversation, person or script."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lightcone.context import here
from lightcone.errors import LightconeError, UsageError
from lightcone.host import runtime_directory
from lightcone.session import control
from lightcone.settings import load_settings
from lightcone.variables import LEASE_VARIABLE

__all__ = ["check", "own", "release"]

_LONGEST = 200


def own() -> str | None:
    """The lease that this process's calls are made under, if any."""
    name = os.environ.get(LEASE_VARIABLE)
    return None if not name else check(name)


def check(name: str) -> str:
    """``name``, which can be a lease's.

    Raises:
        UsageError: where it cannot.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST:
        raise UsageError(
            f"{name!r} cannot be the name of a lease: use a word of at most {_LONGEST} characters."
        )
    return name


def release(lease: str, directory: str) -> None:
    """Give ``lease`` up in every session of this user on this host.

    The session of the project at ``directory`` is one of them; but a conversation may have gone
    from project to project, and its lease's name is its own. A session that has not granted it,
    or does not answer, is left as it is.
    """
    try:
        settings = here(Path(directory)).settings
    except (LightconeError, OSError, ValueError):
        settings = load_settings(Path("/"))
    for socket in sorted(runtime_directory(settings).glob("*/control")):
        with contextlib.suppress(OSError):
            control.ask(socket, "release", lease=lease)
