"""Small file systems of a test's own, and disks that are full."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.needs import do_without

__all__ = ["bound", "fill", "mounted"]

_PAGE = 4096


@contextlib.contextmanager
def mounted(place: Path, size: str = "1m") -> Iterator[Path]:
    """An empty file system of its own at ``place``, unmounted at the end; skips where it cannot be.

    Everything that a test starts and that might look into it has to have ended by then.
    """
    _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


@contextlib.contextmanager
def bound(what: Path, place: Path, read_only: bool = False) -> Iterator[Path]:
    """What lies at ``what``, to be found at ``place`` too; skips where that cannot be."""
    _mount("-o", "bind,ro" if read_only else "bind", str(what), str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


def fill(directory: Path, leave: int = 0) -> Path:
    """Leave ``leave`` pages of room on the disk of ``directory``; returns the file to remove."""
    filler = directory / "filler"
    with contextlib.suppress(FileNotFoundError):
        filler.unlink()
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * _PAGE)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    os.truncate(filler, filler.stat().st_size - leave * _PAGE)
    return filler


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        do_without("only root can mount")
    result = subprocess.run(
        ["mount", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    if result.returncode != 0:
        do_without(f"nothing can be mounted here: {result.stderr.strip()}")
