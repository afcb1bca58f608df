"""The one answer to "is it alive": asked of what is alive, never believed of a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from lightcone.context import Context
from lightcone.files import Lock
from lightcone.session import control

__all__ = ["Life", "Liveness", "probe", "recorded_end"]


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
    silence = "it does not answer"
    try:
        description = control.ask(context.control_socket, "describe", timeout)
    except FileNotFoundError:
        silence = f"its socket {context.control_socket} is gone"
    except OSError:
        pass
    else:
        if description.get("key") == context.key:
            return Liveness(Life.ALIVE, description=description)
        silence = f"what answers on {context.control_socket} is another session"
    if not Lock.is_free(context.owner_lock):
        return Liveness(Life.UNKNOWN, f"its scheduler is running but {silence}")
    remains = not Lock.is_free(context.members_lock, of_all=True)
    return Liveness(Life.DEAD, "no session is running", remains=remains)


def recorded_end(context: Context) -> dict[str, str] | None:
    """Why and when the last session ended (``reason``, ``at`` in ISO 8601), as far as is known."""
    try:
        ended = json.loads(context.record.read_bytes()).get("ended")
        if ended is None:
            # Its scheduler had no time to say; its log ends when it did.
            last = (context.state / "logs" / "scheduler.log").stat().st_mtime
            at = datetime.fromtimestamp(last, UTC).isoformat()
            return {"reason": "its scheduler was killed", "at": at}
        return {"reason": str(ended["reason"]), "at": str(ended["at"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
