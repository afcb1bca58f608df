"""The one answer to "is it alive": asked of what is alive, never believed of a file."""

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
    """Whether a session lives; ``UNKNOWN`` never leads to a kill or to a second session."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Liveness:
    """What is known of a context's session.

    Attributes:
        life: whether it lives.
        why: a clause for people, where it is not alive.
        description: what it says of itself, where it is alive.
        remains: whether programs of a session that is dead are still ending.
    """

    life: Life
    why: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    remains: bool = False


def probe(context: Context, timeout: float = 2.0) -> Liveness:
    """Whether the session of ``context`` lives; waits at most ``timeout`` seconds for an answer.

    It is alive when it answers on its control socket, with this context's key. It is dead when
    nobody holds the owner lock, which the kernel frees whatever happened to the scheduler. A lock
    that is held by one who does not answer leaves it unknown.
    """
    silence = "does not answer"
    try:
        description = ask_session(context, "describe", timeout)
    except FileNotFoundError:
        silence = f"cannot be asked, as its socket {context.control_socket} is gone"
    except OSError:
        pass
    else:
        if description.get("key") == context.key:
            return Liveness(Life.ALIVE, description=description)
        silence = f"is not what answers on {context.control_socket}"
    if not Lock.is_free(context.owner_lock):
        return Liveness(Life.UNKNOWN, _told_of_scheduler(context, silence))
    remains = not Lock.is_free(context.members_lock, including_shared=True)
    return Liveness(Life.DEAD, "no session is running", remains=remains)


def _told_of_scheduler(context: Context, silence: str) -> str:
    """What is known of a scheduler that runs and cannot be asked."""
    from lightcone.session import members  # there is seldom one

    for pid in members.holders(context.owner_lock):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            if state in b"Tt":
                return f"its scheduler has been stopped ('kill -CONT {pid}' lets it go on)"
            return f"its scheduler (process {pid}) is running but {silence}"
    return f"its scheduler is running but {silence}"


def recorded_end(context: Context) -> dict[str, str] | None:
    """Why and when the last session ended (``reason``, ``at`` in ISO 8601), as far as is known."""
    try:
        ended = read_object(context.record).get("ended")
        if ended is None:
            # Its scheduler had no time to say; its log ends when it did.
            last = (context.state / "logs" / "scheduler.log").stat().st_mtime
            at = datetime.fromtimestamp(last, UTC).isoformat()
            return {"reason": "its scheduler was killed", "at": at}
        at = datetime.fromisoformat(ended["at"]).astimezone(UTC).isoformat()
        return {"reason": str(ended["reason"]), "at": at}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def record_end(context: Context, reason: str) -> None:
    """Record why the session, which is dead, has ended, unless it has said so itself."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        record = read_object(context.record)
        if record.get("ended") is None:
            ended = {"reason": reason, "at": datetime.now(UTC).isoformat()}
            write_atomically(context.record, json.dumps(record | {"ended": ended}).encode())


_PROGRESS = 5.0

_TICK = 0.02

Notify = Callable[[str], None]


class Progress:
    """Says now and then how long something has taken."""

    def __init__(self, notify: Notify, what: str) -> None:
        self._notify = notify
        self._what = what
        self._begun = time.monotonic()
        self._next = _PROGRESS

    def show(self) -> None:
        """Say so, if it is time to."""
        passed = time.monotonic() - self._begun
        if passed >= self._next:
            self._next += _PROGRESS
            self._notify(f"{self._what} ({passed:.0f} s)")


def wait_until_ready(context: Context, notify: Notify) -> dict[str, Any] | None:
    """What the session says of itself once it has a worker, or None where nobody answers."""
    try:
        description = ask_session(context, "describe")
    except OSError:
        return None
    if description.get("key") != context.key or is_outdated(description):
        return None
    deadline = time.monotonic() + START_DEADLINE
    progress = Progress(notify, "waiting for the session's worker")
    while True:
        left = deadline - time.monotonic()
        try:
            if not description["ready"]:
                description = ask_session(context, "ready", max(min(left, _PROGRESS), _TICK))
            workers, nodes = len(description["workers"]), description.get("nodes", 1)
            if workers < nodes:
                notify(f"{workers} of {nodes} nodes have a worker: see 'lc session logs worker'")
            return description
        except TimeoutError as error:
            if left <= _PROGRESS:
                raise SessionError(
                    f"The session {context.name} has no worker and got none within "
                    f"{START_DEADLINE:.0f} s: look at 'lc session logs worker', or end it "
                    "with 'lc session stop'."
                ) from error
            progress.show()
        except OSError:
            return None


def is_outdated(description: dict[str, Any]) -> bool:
    """Whether this version cannot talk to the session, which is then to be replaced.

    Raises:
        SessionError: where it can neither be used nor, being in use, be replaced.
    """
    # What packs messages is not needed to ask whether a session is alive.
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
