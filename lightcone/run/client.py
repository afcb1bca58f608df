"""The line between a command here and its tasks on the cluster."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from lightcone.errors import INTERRUPTED
from lightcone.project.variables import RUN_NAME_VARIABLE
from lightcone.system.signals import termination_callback
from lightcone.wire.protocol import key_of, pack_call
from lightcone.wire.transport import Transport
from lightcone.worker.environment import describe_caller

__all__ = ["RunClient"]

_MARGIN = 10.0
# Seconds in which the thread that reads the events has to take a repeated interrupt.
_PATIENCE = 2.0


class RunClient:
    """What a run or a single command says to the cluster and hears from it.

    Everything that happens is an event, a name and a value, for one thread, which takes it with
    :meth:`next`:

    - ``("messages", mappings)``: from tasks, in the order sent.
    - ``("lost", (key, reason))``: a task ended without having said so.
    - ``("interrupt", times)``: the commands have been asked to end, for the first time or again:
      as :meth:`interrupt` was called, or as this process was asked to end, by SIGINT, SIGTERM,
      SIGHUP or somebody who cancelled it.
    - ``("begun", keys)``: the answer to that, the tasks that have begun; word of which may still be
      on its way here.
    - ``("end", reason)``: the session ended.

    That thread may be kept from its events, as by a pipe that nobody reads. The commands are asked
    to end all the same, and when a signal that was not the first is not taken in time either, the
    process leaves.

    Attributes:
        events: what has not been taken; anything may be added.
    """

    def __init__(
        self, transport: Transport, name: str, grace: float, *, reports_progress: bool = False
    ) -> None:
        """The link of a caller called ``name``, whose commands are given ``grace`` seconds to end.

        One that ``reports_progress`` is asked how far it is.
        """
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.run = secrets.token_hex(6)
        self.label = os.environ.pop(RUN_NAME_VARIABLE, None)  # not for recipes to see
        self.name = f"{f'{name} ({self.label})' if self.label else name}, pid {os.getpid()}"
        self._transport = transport
        self._grace = grace
        self._reports_progress = reports_progress
        self._deadline = math.inf  # when what was asked to end is not waited for any longer
        self._interrupts = 0
        self._taken = 0.0  # of them; all, once nobody takes any more
        self._turn = threading.Condition()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let the cluster know of this caller, and take its messages and this process's signals.

        Raises:
            SessionError: where the cluster is known to be gone.
        """
        told = describe_caller() | {
            "name": self.name,
            "label": self.label,
            "pid": os.getpid(),
            "reports_progress": self._reports_progress,
        }
        self._transport.open(self.run, told, self._take)
        with termination_callback(self._hear):
            try:
                yield
            finally:
                self._take_interrupts(math.inf)

    def next(self, timeout: float = math.inf) -> tuple[str, Any]:
        """The next event; waits for it no longer than ``timeout`` seconds, nor past an interrupt's.

        Raises:
            Empty: where there is none by then.
        """
        left = min(timeout, self._deadline - time.monotonic())
        what, value = self.events.get(timeout=None if math.isinf(left) else max(left, 0.0))
        if what == "interrupt":
            self._take_interrupts(value)
        return what, value

    def key(self, name: str) -> str:
        """The key of a task of this caller."""
        return key_of(self.run, name)

    def submit(
        self,
        function: str,
        request: object,
        key: str,
        resources: dict[str, float] | None,
        priority: int = 0,
    ) -> None:
        """Call a function, ``module:name``, with ``request`` where the resources are."""
        self._transport.send(
            {
                "op": "submit",
                "key": key,
                "call": pack_call(function, request),
                "resources": resources,
                "priority": priority,
            }
        )

    def cancel(self, keys: Sequence[str]) -> None:
        """These tasks, which have not begun, are not wanted any more."""
        self._transport.send({"op": "cancel", "keys": list(keys)})

    def received(self, total: int) -> None:
        """Let the command go on: ``total`` bytes of what it printed have been passed on."""
        self._transport.send({"op": "received", "total": total})

    def report_progress(self, progress: dict[str, Any]) -> None:
        """Say how far this caller is, to somebody who looks."""
        self._transport.send({"op": "progress", "progress": progress})

    def interrupt(self) -> None:
        """End this caller's commands on every worker: within the grace, or at once if it is again.

        For any thread.
        """
        with self._turn:
            self._interrupts += 1
            kill = self._interrupts > 1
            wait = _MARGIN if kill else self._grace + _MARGIN
            self._deadline = min(self._deadline, time.monotonic() + wait)
            self.events.put(("interrupt", self._interrupts))  # before the answer can come
            self._transport.send({"op": "interrupt", "kill": kill})

    def _hear(self) -> None:
        """Called in another thread, for a signal."""
        self.interrupt()
        with self._turn:
            asked = self._interrupts
            if asked > 1 and not self._turn.wait_for(lambda: self._taken >= asked, _PATIENCE):
                os._exit(INTERRUPTED)  # and what was wanted ends with the connection

    def _take_interrupts(self, times: float) -> None:
        with self._turn:
            self._taken = times
            self._turn.notify_all()

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
            self.interrupt()
        else:
            self.events.put(("messages", messages))
