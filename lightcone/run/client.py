"""The client of a run: its tasks on the cluster, and their messages."""

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

_REPLY_MARGIN = 10.0
# Seconds in which the thread that reads the events has to take a repeated interrupt.
_HANDLING_TIMEOUT = 2.0


class RunClient:
    """The requests of a run or command, and the events of its tasks.

    Each event is a name and a value. One thread reads them, with :meth:`next`:

    - ``("messages", mappings)``: from tasks, in the order sent.
    - ``("lost", (key, reason))``: a task ended without a last message.
    - ``("interrupt", count)``: the commands have been asked to end, for the first time or again,
      by a call of :meth:`interrupt`, by SIGINT, SIGTERM or SIGHUP, or by a cancelled run.
    - ``("begun", keys)``: the reply to an interrupt, the tasks that have started; their messages
      may still be on their way here.
    - ``("end", reason)``: the session ended.

    A thread that is blocked, as by a full pipe, reads no events. The commands are asked to end all
    the same, and the process exits when a repeated signal is not handled in time either.

    Attributes:
        events: the events not read yet; the caller may add its own.
    """

    def __init__(
        self, transport: Transport, name: str, grace: float, *, reports_progress: bool = False
    ) -> None:
        """Create the client of a caller called ``name``.

        Args:
            transport: to the cluster.
            name: what the caller is, as in ``lc run``.
            grace: seconds that its commands get to end.
            reports_progress: whether the scheduler may ask it for its progress.
        """
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.run = secrets.token_hex(6)
        self.label = os.environ.pop(RUN_NAME_VARIABLE, None)  # not for recipes to see
        self.name = f"{f'{name} ({self.label})' if self.label else name}, pid {os.getpid()}"
        self._transport = transport
        self._grace = grace
        self._reports_progress = reports_progress
        self._deadline = math.inf  # for the commands that were asked to end
        self._interrupts = 0
        self._handled = 0.0  # of them; all, once no thread reads events any more
        self._condition = threading.Condition()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Register this caller with the cluster, and receive its messages and signals.

        Raises:
            SessionError: where the cluster is known to be gone.
        """
        description = describe_caller() | {
            "name": self.name,
            "label": self.label,
            "pid": os.getpid(),
            "reports_progress": self._reports_progress,
        }
        self._transport.open(self.run, description, self._receive)
        with termination_callback(self._on_signal):
            try:
                yield
            finally:
                self._mark_handled(math.inf)

    def next(self, timeout: float = math.inf) -> tuple[str, Any]:
        """Return the next event, waiting for at most ``timeout`` seconds.

        After an interrupt it waits no longer than the commands may take to end.

        Raises:
            Empty: where there is none by then.
        """
        remaining = min(timeout, self._deadline - time.monotonic())
        event, value = self.events.get(
            timeout=None if math.isinf(remaining) else max(remaining, 0.0)
        )
        if event == "interrupt":
            self._mark_handled(value)
        return event, value

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
        """Cancel tasks that have not started."""
        self._transport.send({"op": "cancel", "keys": list(keys)})

    def acknowledge(self, total: int) -> None:
        """Acknowledge ``total`` bytes of the command's output as passed on."""
        self._transport.send({"op": "received", "total": total})

    def report_progress(self, progress: dict[str, Any]) -> None:
        """Report the progress of this caller to the viewers of the session."""
        self._transport.send({"op": "progress", "progress": progress})

    def interrupt(self) -> None:
        """Interrupt this caller's commands; a second call kills them at once.

        The first asks them to end within the grace, on every worker. Any thread may call it.
        """
        with self._condition:
            self._interrupts += 1
            kill = self._interrupts > 1
            wait = _REPLY_MARGIN if kill else self._grace + _REPLY_MARGIN
            self._deadline = min(self._deadline, time.monotonic() + wait)
            self.events.put(("interrupt", self._interrupts))  # before the reply can come
            self._transport.send({"op": "interrupt", "kill": kill})

    def _on_signal(self) -> None:
        """Handle a signal; called in another thread."""
        self.interrupt()
        with self._condition:
            interrupts = self._interrupts
            if interrupts > 1 and not self._condition.wait_for(
                lambda: self._handled >= interrupts, _HANDLING_TIMEOUT
            ):
                os._exit(INTERRUPTED)  # and what was wanted ends with the connection

    def _mark_handled(self, count: float) -> None:
        with self._condition:
            self._handled = count
            self._condition.notify_all()

    def _receive(self, messages: list[dict[str, Any]]) -> None:
        """Receive messages; called in another thread."""
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
