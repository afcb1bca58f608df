"""One of the engine's own programs: ``python -m lightcone.system.interpreter MODULE ARGUMENTS``.

As ``python -m MODULE ARGUMENTS``, but for the garbage collector, which would take a tenth of the
time that the engine is imported in.
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
    """Look for no garbage meanwhile: what is made by the ten thousand is there to stay.

    Neither is it looked through later, nor at the end of the program.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.freeze()
            gc.enable()


_given: list[tuple[int, int]] = []


def raise_open_files_limit() -> None:
    """Let this process open as many files as it may: each command and caller takes a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hasattr(resource, "prlimit") and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append((soft, hard))


def restore_open_files_limit(pid: int) -> None:
    """Give a command that was just started the limit that there was: some use all that they may."""
    for limits in _given:
        with contextlib.suppress(OSError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def main() -> None:
    """Run the program that the arguments name."""
    del sys.argv[0]
    with gc_paused():
        program = importlib.import_module(sys.argv[0])
    program.main()


if __name__ == "__main__":
    main()
