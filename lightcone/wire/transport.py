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
# Seconds. The session has just answered: it is there, and may have much to do, or have been asleep.
_PATIENCE = 20.0
# By name, as the module ssl takes as long to import as ten of ours, and most lines do without it.
_LATER = ("BlockingIOError", "SSLWantReadError", "SSLWantWriteError")
Receive = Callable[[list[dict[str, Any]]], None]


class Transport(Protocol):
    """What a caller says to the cluster, and hears from it."""

    def open(self, run: str, description: Mapping[str, Any], take: Receive) -> None:
        """Begin as the caller ``run``, who says ``description`` of himself.

        From now on ``take`` is called with what comes, in a thread of the line's.

        Raises:
            SessionError: where the cluster is known to be gone.
        """

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something; returns at once, also where nobody hears it any more."""


@contextlib.contextmanager
def session_transport(context: Context, lease: str | None) -> Iterator[Transport]:
    """A line to the session of ``context``, as a use of it, perhaps under a lease.

    It needs nothing but the control socket, and counts as gone when it is closed.

    Raises:
        OSError: where nobody answers.
    """
    with connect_session(context, _PATIENCE) as conversation:
        conversation.use(lease)
        transport = _SessionTransport(conversation.connection, conversation.received)
        try:
            yield transport
        finally:
            transport.close()


class _SessionTransport:
    """A line over a connection, which one thread reads from and writes to."""

    def __init__(self, connection: socket.socket, received: bytes) -> None:
        self._connection = connection
        self._received = bytearray(received)
        self._unsent: deque[bytes] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._wakened, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def open(self, run: str, description: Mapping[str, Any], take: Receive) -> None:
        self._take = take
        self._connection.setblocking(False)
        self.send({"op": "begin", "run": run, "description": description})
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        self._unsent.append(frame(pack([message])))
        self._wake()

    def close(self) -> None:
        """Leave: whatever is not done by then is not wanted any more."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._waker)
        os.close(self._wakened)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been told often enough
            os.write(self._waker, b"\0")

    def _run(self) -> None:
        try:
            reason = self._pass_on()
        except OSError:
            reason = ""
        except Exception as error:  # whatever it is, nothing more will be heard
            reason = f"what it says cannot be read: {type(error).__name__}: {error}"
        if not self._closing:
            self._take([{"event": "ended", "reason": reason}])

    def _pass_on(self) -> str:
        """Pass everything on until the session ends; its reason."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakened, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while not self._closing:
                for messages in self._read():
                    if messages[-1]["event"] == "ended":
                        return str(messages[-1]["reason"])
                    self._take(messages)
                wanted = selectors.EVENT_READ
                if not self._write():
                    wanted |= selectors.EVENT_WRITE
                selector.modify(self._connection, wanted)
                for key, _ in selector.select():
                    if key.fd == self._wakened:
                        os.read(self._wakened, _CHUNK)
        return ""

    def _read(self) -> Iterator[list[dict[str, Any]]]:
        """What has come, whole pieces only.

        Raises:
            OSError: where nothing will come any more.
        """
        gone: OSError | None = None
        try:
            # Until there is nothing: what has been decrypted already wakes nobody.
            while more := self._connection.recv(_CHUNK):
                self._received += more
            gone = ConnectionResetError("the session ended the connection")
        except OSError as error:
            # What it had said before is still to be heard.
            gone = None if _is_later(error) else error
        begin, there = 0, len(self._received)
        while there >= begin + HEADER_SIZE:
            first = begin + HEADER_SIZE
            end = first + frame_length(self._received[begin:first])
            if there < end:
                break
            yield unpack(bytes(self._received[first:end]))
            begin = end
        del self._received[:begin]
        if gone is not None:
            raise gone

    def _write(self) -> bool:
        """Write what is to be sent; whether all of it could be."""
        while self._unsent:
            piece = self._unsent.popleft()
            try:
                sent = self._connection.send(piece)
            except OSError as error:
                if not _is_later(error):
                    self._unsent.clear()  # nobody hears it; what is read next says so
                    return True
                sent = 0
            if sent < len(piece):
                self._unsent.appendleft(piece[sent:])
                return False
        return True


def _is_later(error: OSError) -> bool:
    return type(error).__name__ in _LATER
