"""The Python interpreter of our programs: its garbage collector and its limit of open files.

``python -m lightcone.system.interpreter MODULE ARGUMENTS`` runs a program as ``python -m MODULE
ARGUMENTS`` does, but imports it with the collector paused, which saves a tenth of the import.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import resource
import sys
from collections.abc import Iterator

__all__ = ["gc_paused", "main", "raise_open_files_limit", "restore_open_files_limit"]


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector while the context is open.

    Objects made by the ten thousand are there to stay, so they are frozen at the end: neither a
    later collection nor the end of the program looks through them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


_original_limits: list[tuple[int, int]] = []


def raise_open_files_limit() -> None:
    """Raise this process's limit of open files as far as allowed.

    Each command and caller takes a few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hasattr(resource, "prlimit") and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _original_limits.append((soft, hard))


def restore_open_files_limit(pid: int) -> None:
    """Give a just started command the original limit of open files.

    Some programs use all that they may.
    """
    for limits in _original_limits:
        with contextlib.suppress(OSError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def main() -> None:
    """Run the program that the first argument names."""
    del sys.argv[0]
    with gc_paused():
        program = importlib.import_module(sys.argv[0])
    program.main()


if __name__ == "__main__":
    main()
