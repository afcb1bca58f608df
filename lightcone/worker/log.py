"""The log of one attempt at making an output: a heading, all that the recipe prints, the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.spec.output import Output
from lightcone.system.units import format_bytes, format_seconds
from lightcone.worker.tasks import Ended

__all__ = ["Log", "environment_lines", "heading"]


class Log:
    """A log that is being written; whoever reads the one before it goes on reading that.

    Args:
        path: where it lies from now on.
        umask: what it is made with: it is readable for nobody else, from its first moment.
        text: what it begins with.

    Raises:
        OSError: where there is no room even for the heading.
    """

    def __init__(self, path: Path, umask: int, text: str) -> None:
        self._missing = 0
        self._at_start = True
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o666 & ~umask)
        except FileExistsError:
            os.unlink(path)
            self._file = os.open(path, flags, 0o666 & ~umask)
        try:
            os.fchmod(self._file, 0o666 & ~umask)
            self._write(os.fsencode(text))
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(path)) from error

    def write(self, data: bytes) -> None:
        """Add what was printed, or as much of it as there is room for.

        A disk that is too full for the log may yet have room for the result.
        """
        with contextlib.suppress(OSError):
            self._write(data)

    def end(self, ended: Ended, usage: Mapping[str, Any]) -> None:
        """Add how the recipe ended and what it used."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        how = f"exit code {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"
        used = ""
        if usage:
            used = (
                f", {format_seconds(usage['cpu_seconds'])} of processor time, "
                f"at most {format_bytes(usage['peak_memory'])}"
            )
        if self._missing:
            self.add(f"{self._missing} bytes are missing here: the disk was full")
        self.add(f"{how} after {format_seconds(ended.seconds)}{used}; {now}")

    def add(self, text: str) -> None:
        """Add a line of our own, after whatever was printed."""
        self.write(os.fsencode(f"{'' if self._at_start else chr(10)}# {text}\n"))

    def close(self) -> None:
        """Write no more."""
        file, self._file = self._file, -1
        with contextlib.suppress(OSError):  # where some file systems say that there was no room
            os.close(file)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.write(self._file, rest)
                self._at_start = rest[written - 1] == ord("\n")
                rest = rest[written:]
        finally:
            self._missing += len(rest)


def heading(output: Output, cpus: float, run: str, more: Sequence[str]) -> str:
    """What the log of an attempt begins with: what is made where for whom, and the command."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        f"{output.name}, {now}, on {socket.gethostname()} with {cpus:g} "
        f"cpu{'' if cpus == 1 else 's'}, for {run}",
        f"in {output.root}",
        *more,
    ]
    return "".join(f"# {line}\n" for line in lines) + f"$ {output.command}\n"


def environment_lines(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What a recipe's environment has that its caller's has not, and the other way round.

    Values are those that we have set, never any of the caller's, which may be secret.
    """
    changed = sorted(
        f"{name}={shlex.quote(value)}" for name, value in after.items() if before.get(name) != value
    )
    gone = sorted(before.keys() - after.keys())
    lines = [f"environment set: {' '.join(changed)}"] if changed else []
    return [*lines, f"environment removed: {' '.join(gone)}"] if gone else lines
