"""Whether a session can be used: it answers, has a worker, and is of a version like this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightcone.cluster.protocol import PROTOCOL, PYTHON
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session import control
from lightcone.session.liveness import START_DEADLINE

__all__ = ["Progress", "Say", "is_outdated", "ready"]

_PROGRESS = 5.0
_TICK = 0.02
Say = Callable[[str], None]


class Progress:
    """Says now and then how long something has taken."""

    def __init__(self, say: Say, what: str) -> None:
        self._say = say
        self._what = what
        self._begun = time.monotonic()
        self._next = _PROGRESS

    def show(self) -> None:
        """Say so, if it is time to."""
        passed = time.monotonic() - self._begun
        if passed >= self._next:
            self._next += _PROGRESS
            self._say(f"{self._what} ({passed:.0f} s)")


def ready(context: Context, say: Say) -> dict[str, Any] | None:
    """What the session says of itself once it has a worker, or None where nobody answers."""
    try:
        description = control.ask(context, "describe")
    except OSError:
        return None
    if description.get("key") != context.key or is_outdated(description):
        return None
    deadline = time.monotonic() + START_DEADLINE
    progress = Progress(say, "waiting for the session's worker")
    while True:
        left = deadline - time.monotonic()
        try:
            if not description["ready"]:
                description = control.ask(context, "ready", max(min(left, _PROGRESS), _TICK))
            workers, nodes = len(description["workers"]), description.get("nodes", 1)
            if workers < nodes:
                say(f"{workers} of {nodes} nodes have a worker: see 'lc session logs worker'")
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
