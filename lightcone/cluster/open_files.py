"""How many files a session's programs may have open, and the commands that they start."""

from __future__ import annotations

import contextlib
import resource

__all__ = ["give_back", "raise_limit"]

_given: list[tuple[int, int]] = []


def raise_limit() -> None:
    """Let this process open as many files as it may: each command and caller takes a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hasattr(resource, "prlimit") and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append((soft, hard))


def give_back(pid: int) -> None:
    """Give a command that was just started the limit that there was: some use all that they may."""
    for limits in _given:
        with contextlib.suppress(OSError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
