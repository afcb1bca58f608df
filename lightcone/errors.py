"""The errors that users see, each with its exit code.

Every message is one sentence saying what is wrong, where, and what to do next; the command
line prints it and exits with the error's ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ENOUGH",
    "INTERRUPTED",
    "OUT_OF_TIME",
    "LightconeError",
    "OutputError",
    "SessionError",
    "SettingsError",
    "SpecError",
    "UsageError",
]

INTERRUPTED = 130
"""The exit code of a command that the user stopped: 128 and SIGINT, as shells have it."""

OUT_OF_TIME = 4
"""The exit code of a run that its allocation has too little time for."""

ENOUGH = "end some of what runs here, or have this machine's limits raised, and run again"
"""The remedy where the system refuses further processes or open files."""


class LightconeError(Exception):
    """Base of all errors that a user can cause or has to know."""

    exit_code: ClassVar[int] = 1


class OutputError(LightconeError):
    """Standard output cannot be written, for instance to a full disk."""


class UsageError(LightconeError):
    """The call is invalid: an unknown output, a bad option value."""

    exit_code = 2


class SpecError(LightconeError):
    """The project's ``astra.yaml`` or a universe file cannot be used."""

    exit_code = 2


class SettingsError(LightconeError):
    """A settings file or an environment variable has a value that cannot be used."""

    exit_code = 2


class SessionError(LightconeError):
    """The session could not be started or reached."""

    exit_code = 3
