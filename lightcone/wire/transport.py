"""A caller's transport to the cluster; its messages are those of ``lightcone.scheduler.caller``."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from lightcone.project.context import Context
from lightcone.wire.control_client import connect_session
from lightcone.wire.protocol import HEADER_SIZE, frame, frame_length, pack, unpack

__all__ = ["Receive", "Transport", "session_transport"]

_CHUNK = 1 << 16
# Seconds. The session has just answered: it is alive, and may be busy, or have been suspended.
_CONNECT_TIMEOUT = 20.0
# By name, as the module ssl takes as long to import as ten of ours, and few transports need it.
_WOULD_BLOCK = ("BlockingIOError", "SSLWantReadError", "SSLWantWriteError")
Receive = Callable[[list[dict[str, Any]]], None]


class Transport(Protocol):
    """The exchange of messages between a caller and the cluster."""

    def open(self, run: str, description: Mapping[str, Any], take: Receive) -> None:
        """Register the caller ``run`` with its ``description``.

        From now on ``take`` is called with the messages that arrive, in a thread of the transport.

        Raises:
            SessionError: where the cluster is known to be gone.
        """

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; returns at once, also where the cluster is gone."""


@contextlib.contextmanager
def session_transport(context: Context, lease: str | None) -> Iterator[Transport]:
    """Open a transport to the session of ``context``.

    It is a use of the session, under ``lease`` if that is given. It needs the control socket alone,
    and the caller counts as gone when it is closed.

    Raises:
        OSError: where no session answers.
    """
    with connect_session(context, _CONNECT_TIMEOUT) as control:
        control.use(lease)
        transport = _SessionTransport(control.connection, control.received)
        try:
            yield transport
        finally:
            transport.close()


class _SessionTransport:
    """A transport over a connection, which one thread reads and writes."""

    def __init__(self, connection: socket.socket, received: bytes) -> None:
        self._connection = connection
        self._received = bytearray(received)
        self._unsent: deque[bytes] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)

    def open(self, run: str, description: Mapping[str, Any], take: Receive) -> None:
        self._take = take
        self._connection.setblocking(False)
        self.send({"op": "begin", "run": run, "description": description})
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        self._unsent.append(frame(pack([message])))
        self._wake()

    def close(self) -> None:
        """Close the connection, which cancels all unfinished work of the caller."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._wake_writer)
        os.close(self._wake_reader)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # enough wake-ups are pending
            os.write(self._wake_writer, b"\0")

    def _run(self) -> None:
        try:
            reason = self._deliver()
        except OSError:
            reason = ""
        except Exception as error:  # whatever it is, no further message can be read
            reason = f"what it says cannot be read: {type(error).__name__}: {error}"
        if not self._closing:
            self._take([{"event": "ended", "reason": reason}])

    def _deliver(self) -> str:
        """Deliver messages until the session ends, and return its reason."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while not self._closing:
                for messages in self._read():
                    if messages[-1]["event"] == "ended":
                        return str(messages[-1]["reason"])
                    self._take(messages)
                events = selectors.EVENT_READ
                if not self._write():
                    events |= selectors.EVENT_WRITE
                selector.modify(self._connection, events)
                for key, _ in selector.select():
                    if key.fd == self._wake_reader:
                        os.read(self._wake_reader, _CHUNK)
        return ""

    def _read(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the messages of each whole frame that has arrived.

        Raises:
            OSError: where the connection has ended.
        """
        failure: OSError | None = None
        try:
            # Until it is empty: bytes that are decrypted already do not wake the selector.
            while more := self._connection.recv(_CHUNK):
                self._received += more
            failure = ConnectionResetError("the session ended the connection")
        except OSError as error:
            # Messages that came before are still to be delivered.
            failure = None if _would_block(error) else error
        start, available = 0, len(self._received)
        while available >= start + HEADER_SIZE:
            body = start + HEADER_SIZE
            end = body + frame_length(self._received[start:body])
            if available < end:
                break
            yield unpack(bytes(self._received[body:end]))
            start = end
        del self._received[:start]
        if failure is not None:
            raise failure

    def _write(self) -> bool:
        """Write the unsent messages; return whether all of them could be written."""
        while self._unsent:
            piece = self._unsent.popleft()
            try:
                sent = self._connection.send(piece)
            except OSError as error:
                if not _would_block(error):
                    self._unsent.clear()  # the session is gone; the next read reports it
                    return True
                sent = 0
            if sent < len(piece):
                self._unsent.appendleft(piece[sent:])
                return False
        return True


def _would_block(error: OSError) -> bool:
    return type(error).__name__ in _WOULD_BLOCK
