"""Whether a session is alive: the scheduler's answer and the locks, never a file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.system.files import read_object, write_atomically
from lightcone.system.locks import Lock
from lightcone.wire.control_client import ask_session

__all__ = [
    "START_DEADLINE",
    "Life",
    "Liveness",
    "Notify",
    "Progress",
    "is_outdated",
    "probe",
    "record_end",
    "recorded_end",
    "wait_until_ready",
]

START_DEADLINE = 60.0

"""Seconds that a call waits for its turn, and for a session that is starting."""


class Life(StrEnum):
    """Whether a session is alive; ``UNKNOWN`` never leads to a kill or second session."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Liveness:
    """The state of a context's session, as a probe found it.

    Attributes:
        life: whether it lives.
        why: the reason as a clause of a sentence, where it is not alive.
        description: its description of itself, where it is alive.
        is_ending: whether programs of a dead session are still ending.
    """

    life: Life
    why: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    is_ending: bool = False


def probe(context: Context, timeout: float = 2.0) -> Liveness:
    """Probe whether the session of ``context`` is alive.

    It waits at most ``timeout`` seconds for an answer. The session is alive when it answers on its
    control socket with this context's key. It is dead when no process holds the owner lock, which
    the kernel frees whatever happened to the scheduler. It is unknown when a process holds the
    lock and does not answer.
    """
    symptom = "does not answer"
    try:
        description = ask_session(context, "describe", timeout)
    except FileNotFoundError:
        symptom = f"cannot be asked, as its socket {context.control_socket} is gone"
    except OSError:
        pass
    else:
        if description.get("key") == context.key:
            return Liveness(Life.ALIVE, description=description)
        symptom = f"is not what answers on {context.control_socket}"
    if not Lock.is_free(context.owner_lock):
        return Liveness(Life.UNKNOWN, _describe_scheduler(context, symptom))
    is_ending = not Lock.is_free(context.members_lock, including_shared=True)
    return Liveness(Life.DEAD, "no session is running", is_ending=is_ending)


def _describe_scheduler(context: Context, symptom: str) -> str:
    """Describe a scheduler that holds its lock and does not answer."""
    from lightcone.session import members  # there is seldom one

    for pid in members.holders(context.owner_lock):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            if state in b"Tt":
                return f"its scheduler has been stopped ('kill -CONT {pid}' lets it go on)"
            return f"its scheduler (process {pid}) is running but {symptom}"
    return f"its scheduler is running but {symptom}"


def recorded_end(context: Context) -> dict[str, str] | None:
    """The recorded reason and time of the last session's end, or None."""
    try:
        ended = read_object(context.record).get("ended")
        if ended is None:
            # Its scheduler had no time to record it; its log ends when it did.
            last = (context.state / "logs" / "scheduler.log").stat().st_mtime
            at = datetime.fromtimestamp(last, UTC).isoformat()
            return {"reason": "its scheduler was killed", "at": at}
        at = datetime.fromisoformat(ended["at"]).astimezone(UTC).isoformat()
        return {"reason": str(ended["reason"]), "at": at}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def record_end(context: Context, reason: str) -> None:
    """Record why the dead session has ended, unless it recorded that itself."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        record = read_object(context.record)
        if record.get("ended") is None:
            ended = {"reason": reason, "at": datetime.now(UTC).isoformat()}
            write_atomically(context.record, json.dumps(record | {"ended": ended}).encode())


_PROGRESS_INTERVAL = 5.0

_TICK = 0.02

Notify = Callable[[str], None]


class Progress:
    """Reports from time to time how long an activity has taken."""

    def __init__(self, notify: Notify, activity: str) -> None:
        self._notify = notify
        self._activity = activity
        self._started = time.monotonic()
        self._next_report = _PROGRESS_INTERVAL

    def show(self) -> None:
        """Report the elapsed time, if a report is due."""
        elapsed = time.monotonic() - self._started
        if elapsed >= self._next_report:
            self._next_report += _PROGRESS_INTERVAL
            self._notify(f"{self._activity} ({elapsed:.0f} s)")


def wait_until_ready(context: Context, notify: Notify) -> dict[str, Any] | None:
    """Wait until the session has a worker; its description, or None without session."""
    try:
        description = ask_session(context, "describe")
    except OSError:
        return None
    if description.get("key") != context.key or is_outdated(description):
        return None
    deadline = time.monotonic() + START_DEADLINE
    progress = Progress(notify, "waiting for the session's worker")
    while True:
        remaining = deadline - time.monotonic()
        try:
            if not description["ready"]:
                description = ask_session(
                    context, "ready", max(min(remaining, _PROGRESS_INTERVAL), _TICK)
                )
            workers, nodes = len(description["workers"]), description.get("nodes", 1)
            if workers < nodes:
                notify(f"{workers} of {nodes} nodes have a worker: see 'lc session logs worker'")
            return description
        except TimeoutError as error:
            if remaining <= _PROGRESS_INTERVAL:
                raise SessionError(
                    f"The session {context.name} has no worker and got none within "
                    f"{START_DEADLINE:.0f} s: look at 'lc session logs worker', or end it "
                    "with 'lc session stop'."
                ) from error
            progress.show()
        except OSError:
            return None


def is_outdated(description: dict[str, Any]) -> bool:
    """Whether this version of lc cannot use the session and must replace it.

    Raises:
        SessionError: where it can neither be used nor, being in use, be replaced.
    """
    # A probe does without the module that packs messages.
    from lightcone.wire.protocol import PROTOCOL, PYTHON

    if (description["protocol"], description["python"]) == (PROTOCOL, PYTHON):
        return False
    if description["idle"]:
        return True
    users = ", ".join(run["name"] for run in description["runs"]) or "a program that holds results"
    raise SessionError(
        f"The session {description['name']} was started by lightcone {description['version']} with "
        f"Python {description['python']}, which this one cannot use, and replacing it would end "
        f"{users}: wait for that, or run 'lc session stop'."
    )
