"""The line between a command here and its tasks on the cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from lightcone.cluster.keys import key_of
from lightcone.cluster.work import wrap
from lightcone.run import environment
from lightcone.run.detached import NAME_VARIABLE
from lightcone.session.line import Line

__all__ = ["Link"]

_PATIENCE = 10.0
_ASK_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Link:
    """What a run or a single command says to the cluster and hears from it.

    Everything that happens is an event in :attr:`events`, a name and a value, for one thread:

    - ``("messages", mappings)``: from tasks, in the order sent.
    - ``("lost", (key, reason))``: a task ended without having said so.
    - ``("end", reason)``: the session ended.
    - ``("interrupt", None)``: this process was asked to end, by SIGINT, SIGTERM, SIGHUP or
      somebody who cancelled it.
    """

    def __init__(self, line: Line, name: str, *, tells: bool = False) -> None:
        """The link of a caller called ``name``; one that ``tells`` is asked how far it is."""
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.run = secrets.token_hex(6)
        self.label = os.environ.pop(NAME_VARIABLE, None)  # not for recipes to see
        self.name = f"{f'{name} ({self.label})' if self.label else name}, pid {os.getpid()}"
        self._line = line
        self._tells = tells
        self._begun: SimpleQueue[list[str]] = SimpleQueue()

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
        with _asked_to_end(lambda: self.events.put(("interrupt", None))):
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

    def interrupt(self, *, kill: bool) -> list[str]:
        """End this caller's commands on every worker, politely or at once.

        Returns the tasks that have begun, word of which may still be on its way here.
        """
        while not self._begun.empty():
            self._begun.get()  # what came too late for the last time
        self._line.send({"op": "interrupt", "kill": kill})
        with contextlib.suppress(Empty):
            return self._begun.get(timeout=_PATIENCE)
        return []

    def _take(self, messages: list[dict[str, Any]]) -> None:
        """Called in another thread."""
        first = messages[0]
        event = first["event"]
        if event == "lost":
            self.events.put(("lost", (first["key"], first["reason"])))
        elif event == "begun":
            self._begun.put(first["tasks"])
        elif event == "ended":
            self._begun.put([])
            self.events.put(("end", first["reason"]))
        elif event == "cancel":
            self.events.put(("interrupt", None))
        else:
            self.events.put(("messages", messages))


@contextlib.contextmanager
def _asked_to_end(tell: Callable[[], None]) -> Iterator[None]:
    """Context in which ``tell`` is called, in a thread, for each signal that asks to end.

    A handler alone is run when the main thread goes on. One that has just begun to wait for an
    event, or another thread that got the signal, would leave it unheard until there is an event.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in _ASK_TO_END:
                    tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    wakened = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = [signal.signal(signum, lambda *_: None) for signum in _ASK_TO_END]
    try:
        yield
    finally:
        for signum, handler in zip(_ASK_TO_END, before, strict=True):
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakened)
        os.close(writer)
        thread.join()
