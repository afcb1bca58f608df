"""The line between a command here and its tasks on the cluster."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from lightcone.cluster.keys import key_of
from lightcone.cluster.work import wrap
from lightcone.run import environment
from lightcone.run.detached import NAME_VARIABLE
from lightcone.session.line import Line
from lightcone.signals import heard

__all__ = ["Link"]

_MARGIN = 10.0


class Link:
    """What a run or a single command says to the cluster and hears from it.

    Everything that happens is an event in :attr:`events`, a name and a value, for one thread:

    - ``("messages", mappings)``: from tasks, in the order sent.
    - ``("lost", (key, reason))``: a task ended without having said so.
    - ``("begun", keys)``: the answer to :meth:`interrupt`, the tasks that have begun; word of which
      may still be on its way here.
    - ``("end", reason)``: the session ended.
    - ``("interrupt", None)``: this process was asked to end, by SIGINT, SIGTERM, SIGHUP or
      somebody who cancelled it.

    Attributes:
        deadline: when, by ``time.monotonic``, what was asked to end is not waited for any longer.
    """

    def __init__(self, line: Line, name: str, *, tells: bool = False) -> None:
        """The link of a caller called ``name``; one that ``tells`` is asked how far it is."""
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.run = secrets.token_hex(6)
        self.label = os.environ.pop(NAME_VARIABLE, None)  # not for recipes to see
        self.name = f"{f'{name} ({self.label})' if self.label else name}, pid {os.getpid()}"
        self._line = line
        self._tells = tells
        self.deadline = math.inf

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let the cluster know of this caller, and take its messages and this process's signals.

        Raises:
            SessionError: where the cluster is known to be gone.
        """
        told = environment.caller() | {
            "name": self.name,
            "label": self.label,
            "pid": os.getpid(),
            "tells": self._tells,
        }
        self._line.open(self.run, told, self._take)
        with heard(lambda: self.events.put(("interrupt", None))):
            yield

    def key(self, name: str) -> str:
        """The key of a task of this caller."""
        return key_of(self.run, name)

    def submit(
        self,
        function: str,
        order: object,
        key: str,
        resources: dict[str, float] | None,
        priority: int = 0,
    ) -> None:
        """Have a function, ``module:name``, called with ``order`` where there are the resources."""
        self._line.send(
            {
                "op": "submit",
                "key": key,
                "call": wrap(function, order),
                "resources": resources,
                "priority": priority,
            }
        )

    def cancel(self, keys: Sequence[str]) -> None:
        """These tasks, which have not begun, are not wanted any more."""
        self._line.send({"op": "cancel", "keys": list(keys)})

    def received(self, total: int) -> None:
        """Let the command go on: ``total`` bytes of what it printed have been passed on."""
        self._line.send({"op": "received", "total": total})

    def tell(self, progress: dict[str, Any]) -> None:
        """Say how far this caller is, to somebody who looks."""
        self._line.send({"op": "told", "progress": progress})

    def interrupt(self, *, kill: bool, grace: float) -> None:
        """End this caller's commands on every worker, at once or within ``grace`` seconds."""
        wait = _MARGIN if kill else grace + _MARGIN
        self.deadline = min(self.deadline, time.monotonic() + wait)
        self._line.send({"op": "interrupt", "kill": kill})

    def _take(self, messages: list[dict[str, Any]]) -> None:
        """Called in another thread."""
        first = messages[0]
        event = first["event"]
        if event == "lost":
            self.events.put(("lost", (first["key"], first["reason"])))
        elif event == "begun":
            self.events.put(("begun", first["tasks"]))
        elif event == "ended":
            self.events.put(("end", first["reason"]))
        elif event == "cancel":
            self.events.put(("interrupt", None))
        else:
            self.events.put(("messages", messages))
