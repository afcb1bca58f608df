"""The reasons, as text, why a recipe made no good output."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lightcone.errors import LightconeError
from lightcone.spec.output import Output
from lightcone.system.files import FULL_DISK, is_full
from lightcone.system.units import format_seconds
from lightcone.worker.tasks import Cause, CompletedCommand

__all__ = ["describe_error", "find_fault"]


def find_fault(output: Output, completed: CompletedCommand) -> str | None:
    """Describe what is wrong with a recipe's end or output, if anything."""
    if completed.cause is Cause.CANCELLED:
        return "it was interrupted"
    if completed.cause is Cause.TIME_LIMIT:
        limit = format_seconds(output.resources.time_limit or 0.0)
        return f"it was ended at its time limit of {limit}"
    if completed.code < 0:
        name = ""
        with contextlib.suppress(ValueError):
            name = f" ({signal.Signals(-completed.code).name})"
        return f"it was ended by signal {-completed.code}{name}"
    if completed.code > 0:
        full = f"; {_full_disk(output.path.parent)}" if is_full(output.path.parent) else ""
        return f"exit code {completed.code}{full}"
    if os.path.isfile(output.place):
        return None
    shown = os.path.relpath(output.path, output.root)
    if not output.path.exists():
        return f"it exited with 0 and wrote no {shown}"
    if output.path.is_dir() and not any(output.path.iterdir()):
        return f"it exited with 0 and left {shown}/ empty"
    return None


def describe_error(error: OSError | LightconeError, output: Output) -> str:
    """Describe the error that kept ``output`` from being made."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        directory, path = output.path.parent, Path(os.fsdecode(error.filename or output.path))
        text = _full_disk(directory if path.is_relative_to(directory) else path.parent)
    elif isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror}{where}"
    # A path need not be text, and what crosses the network must be.
    return text.encode(errors="replace").decode()


def _full_disk(directory: Path) -> str:
    return (
        f"there is no room left on the disk of {directory}: make some ('lc clean' removes partial "
        "work), and run again"
    )
