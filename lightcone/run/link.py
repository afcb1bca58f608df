"""The line between a command here and its tasks on the cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from distributed import Future

from lightcone.cluster.keys import key_of, topic_of
from lightcone.cluster.messages import unpack
from lightcone.cluster.work import perform, wrap
from lightcone.errors import SessionError
from lightcone.run import environment
from lightcone.run.detached import NAME_VARIABLE
from lightcone.session.connection import Connection

__all__ = ["LOST", "Link"]

LOST = "its worker was lost"
"""Why a task ended without having said so, where nobody is to blame for it that is known."""

_CALL_TIMEOUT = 10.0


class Link:
    """What a run or a single command says to the cluster and hears from it.

    Everything that happens is an event in :attr:`events`, a name and a value, for one thread:

    - ``("messages", mappings)``: from tasks, in the order sent.
    - ``("lost", (key, reason))``: a task ended without having said so.
    - ``("end", reason)``: the session ended.
    - ``("interrupt", None)``: this process was asked to end, by SIGINT, SIGTERM, SIGHUP or
      somebody who cancelled it.
    """

    def __init__(self, connection: Connection, name: str, *, tells: bool = False) -> None:
        """The line of a caller called ``name``; one that ``tells`` is asked how far it is."""
        self.client = connection.client
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.run = secrets.token_hex(6)
        self.label = os.environ.pop(NAME_VARIABLE, None)  # not for recipes to see
        self.name = f"{f'{name} ({self.label})' if self.label else name}, pid {os.getpid()}"
        self._hold = connection.hold
        self._tells = tells

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let the cluster know of this caller, and take its messages and this process's signals.

        Raises:
            SessionError: where the cluster is gone.
        """
        told = environment.caller() | {
            "name": self.name,
            "label": self.label,
            "pid": os.getpid(),
            "tells": self._tells,
        }
        try:
            self._call("lightcone_begin", run=self.run, client=self.client.id, description=told)
        except OSError as error:
            raise SessionError(
                "The cluster was lost as it was about to be used: run again."
            ) from error
        self.client.subscribe_topic(topic_of(self.run), self._on_event)
        if self._hold is not None:
            threading.Thread(target=self._watch_session, daemon=True).start()
        asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [
            signal.signal(signum, lambda *_: self.events.put(("interrupt", None)))
            for signum in asked
        ]
        try:
            yield
        finally:
            for signum, handler in zip(asked, before, strict=True):
                signal.signal(signum, handler)

    def key(self, name: str) -> str:
        """The key of a task of this caller."""
        return key_of(self.run, name)

    def submit(
        self,
        function: Callable[[Any], None],
        order: object,
        key: str,
        resources: dict[str, float] | None,
        priority: int = 0,
    ) -> Future[None]:
        """Have ``function(order)`` run on a worker that has the resources."""
        future: Future[None] = self.client.submit(
            perform,
            wrap(function, order),
            key=key,
            pure=False,
            retries=0,
            resources=resources,
            priority=priority,
        )
        future.add_done_callback(lambda ended: self._on_future(key, ended))
        return future

    def received(self, total: int) -> None:
        """Let the command go on: ``total`` bytes of what it printed have been passed on."""
        with contextlib.suppress(OSError, TimeoutError):
            self._call("lightcone_received", run=self.run, total=total)

    def tell(self, progress: dict[str, Any]) -> None:
        """Say how far this caller is, to somebody who looks."""
        with contextlib.suppress(OSError, TimeoutError):
            self._call("lightcone_told", run=self.run, progress=progress)

    def interrupt(self, *, kill: bool) -> list[str]:
        """End this caller's commands on every worker, politely or at once.

        Returns the tasks that have begun, word of which may still be on its way here.
        """
        # A cluster that is gone has ended them already.
        with contextlib.suppress(OSError, TimeoutError):
            return list(self._call("lightcone_interrupt", run=self.run, kill=kill))
        return []

    def _call(self, operation: str, **arguments: Any) -> Any:
        call = getattr(self.client.scheduler, operation)
        return self.client.sync(call, callback_timeout=_CALL_TIMEOUT, **arguments)

    def _on_event(self, event: tuple[float, Any]) -> None:
        messages = unpack(event[1])
        for message in messages:
            if message["event"] == "cancel":
                self.events.put(("interrupt", None))
                return
        self.events.put(("messages", messages))

    def _on_future(self, key: str, future: Future[None]) -> None:
        if future.status == "finished":
            return
        reason = LOST
        # One that was cancelled has no error, and asking for it may outlast the client.
        if future.status == "error":
            with contextlib.suppress(Exception):
                error = future.exception(timeout=1)
                if error is not None and type(error).__name__ != "KilledWorker":
                    reason = f"{type(error).__name__}: {error}"
        self.events.put(("lost", (key, reason)))

    def _watch_session(self) -> None:
        assert self._hold is not None
        self.events.put(("end", self._hold.wait_for_end()))
