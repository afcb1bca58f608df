"""The log of one attempt at an output: heading, printed lines, end."""

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
from lightcone.worker.tasks import CompletedCommand

__all__ = ["Log", "environment_lines", "heading"]


class Log:
    """A log file that is being written.

    It replaces the previous log by a new file, so a reader of that one is not disturbed.

    Args:
        path: the path of the file.
        umask: the file mode creation mask, in effect from the file's first moment.
        text: the text that it begins with.

    Raises:
        OSError: where there is no room even for the heading.
    """

    def __init__(self, path: Path, umask: int, text: str) -> None:
        self._dropped = 0
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
        """Append output, or as much of it as there is room for.

        A disk that is too full for the log may yet have room for the result.
        """
        with contextlib.suppress(OSError):
            self._write(data)

    def end(self, completed: CompletedCommand, usage: Mapping[str, Any]) -> None:
        """Append how the recipe ended and what it used."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status = (
            f"exit code {completed.code}" if completed.code >= 0 else f"signal {-completed.code}"
        )
        used = ""
        if usage:
            used = (
                f", {format_seconds(usage['cpu_seconds'])} of processor time, "
                f"at most {format_bytes(usage['peak_memory'])}"
            )
        if self._dropped:
            self.add(f"{self._dropped} bytes are missing here: the disk was full")
        self.add(f"{status} after {format_seconds(completed.seconds)}{used}; {now}")

    def add(self, text: str) -> None:
        """Append a line of lightcone's, after the output so far."""
        self.write(os.fsencode(f"{'' if self._at_start else chr(10)}# {text}\n"))

    def close(self) -> None:
        """Close the file."""
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
            self._dropped += len(rest)


def heading(output: Output, cpus: float, run: str, more: Sequence[str]) -> str:
    """Format the heading of a log: output, host, caller and command."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        f"{output.name}, {now}, on {socket.gethostname()} with {cpus:g} "
        f"cpu{'' if cpus == 1 else 's'}, for {run}",
        f"in {output.root}",
        *more,
    ]
    return "".join(f"# {line}\n" for line in lines) + f"$ {output.shell_command}\n"


def environment_lines(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """List how a recipe's environment differs from its caller's.

    Values are those that lightcone has set, never any of the caller's, which may be secret.
    """
    changed = sorted(
        f"{name}={shlex.quote(value)}" for name, value in after.items() if before.get(name) != value
    )
    removed = sorted(before.keys() - after.keys())
    lines = [f"environment set: {' '.join(changed)}"] if changed else []
    return [*lines, f"environment removed: {' '.join(removed)}"] if removed else lines
