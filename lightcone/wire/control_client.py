"""Asking a living session on its control socket; see ``lightcone.scheduler.control_server``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightcone.project.context import Context
from lightcone.system.files import read_object
from lightcone.system.peer import enable_keepalive, peer_uid
from lightcone.wire.tls import key_file, tls_context

__all__ = [
    "Conversation",
    "Hold",
    "ask_session",
    "connect_session",
    "hold_session",
    "use_session",
    "watch_session",
]

_PATIENCE = 5.0
_TICK = 0.05


def ask_session(
    where: Context | Path, operation: str, timeout: float | None = 2.0, **more: Any
) -> dict[str, Any]:
    """The answer of a session, given by its context or its socket, to one request.

    The session of an allocation is asked over the network where it has no socket on this host.

    Raises:
        OSError: where nobody answers; TimeoutError after ``timeout`` seconds.
    """
    with connect_session(where, timeout) as conversation:
        return conversation.exchange({"op": operation, **more})


class Hold:
    """An open connection to a living session; it ends when the session does."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def wait_for_end(self, timeout: float | None = None) -> str | None:
        """Block until the session ends; its reason, "" where it gave none.

        Returns None when ``timeout`` seconds have passed first.
        """
        self._conversation.connection.settimeout(timeout)
        try:
            return str(self._conversation.read().get("ended", ""))
        except TimeoutError:
            return None
        except OSError:
            return ""


@contextlib.contextmanager
def hold_session(where: Context | Path) -> Iterator[Hold]:
    """Hold a connection to the session, which is no use of it.

    Raises:
        OSError: where nobody answers.
    """
    with connect_session(where, _PATIENCE) as conversation:
        conversation.exchange({"op": "hold"})
        yield Hold(conversation)


@contextlib.contextmanager
def watch_session(where: Context | Path, every: float = 1.0) -> Iterator[Iterator[dict[str, Any]]]:
    """What there is to see in a session, every so many seconds; at its end ``{"ended": reason}``.

    Looking is no use of the session. One that has been suspended shows nothing until it goes on.

    Raises:
        OSError: where nobody answers; of the iterator, where the session ends without a word.
    """
    with connect_session(where, _PATIENCE) as conversation:
        conversation.exchange({"op": "watch", "every_s": every})
        conversation.connection.settimeout(None)
        yield iter(conversation.read, None)


class Conversation:
    """JSON objects, one on a line, over a connection.

    Attributes:
        connection: the socket.
        received: what has come after the last line that was read.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            OSError: where there is none, or none that can be read.
        """
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        return self.read()

    def use(self, lease: str | None) -> None:
        """Have the connection count as a use of the session; errors as :meth:`exchange`."""
        self.exchange({"op": "call", "lease": lease})

    def read(self) -> dict[str, Any]:
        """The next object; errors as :meth:`exchange`."""
        while b"\n" not in self.received:
            more = self.connection.recv(65536)
            if not more:
                raise ConnectionResetError("the session ended the connection")
            self.received += more
        data, _, self.received = self.received.partition(b"\n")
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ConnectionError("the session's answer cannot be read") from error
        if not isinstance(answer, dict):
            raise ConnectionError("the session's answer cannot be read")
        return answer


@contextlib.contextmanager
def connect_session(where: Context | Path, timeout: float | None) -> Iterator[Conversation]:
    """A connection to a session, given by its context or its socket.

    Raises:
        OSError: where nobody answers.
    """
    with _connection(where, timeout) as connection:
        yield Conversation(connection)
        # Another thread may be blocked reading from it; closing alone would not wake that one.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def use_session(context: Context, lease: str | None) -> socket.socket:
    """A connection that is a use of the session, perhaps under a lease, until it is closed.

    It can be handed to other processes, and lasts until the last of them has closed it.

    Raises:
        OSError: where nobody answers.
    """
    connection = _connection(context, _PATIENCE)
    try:
        Conversation(connection).use(lease)
    except BaseException:
        connection.close()
        raise
    return connection


def _connection(where: Context | Path, timeout: float | None) -> socket.socket:
    path = where if isinstance(where, Path) else where.control_socket
    try:
        return _on_this_host(path, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        if isinstance(where, Path) or where.job is None:
            raise
        return _over_network(where, timeout)


def _on_this_host(path: Path, timeout: float | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(connection, path, timeout)
        # Whoever made the directory of the socket first may be another.
        if peer_uid(connection) != os.getuid():
            raise PermissionError(errno.EACCES, "another user answers on the socket", str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: Path, timeout: float | None) -> None:
    """Connect; while others that wait leave no room there, wait for some within ``timeout``."""
    connection.settimeout(timeout)
    begun = time.monotonic()
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            # Nothing tells when there is room. Who sets no timeout waits in the kernel.
            left = (timeout or 0.0) - (time.monotonic() - begun)
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "too many wait there", str(path)) from None
            time.sleep(min(_TICK, left))
            connection.settimeout(left)


def _over_network(context: Context, timeout: float | None) -> socket.socket:
    """A connection to a session that says in its record that it listens on another host."""
    try:
        record = read_object(context.record)
        host, _, text = record["control"].rpartition(":")
        host.encode("idna")
        port = int(text)
        if record.get("ended") is not None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "it has ended")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileNotFoundError(errno.ENOENT, "it names no address") from error
    key = tls_context(key_file(context.state), server=False)
    connection = socket.create_connection((host, port), timeout)
    enable_keepalive(connection)
    try:
        return key.wrap_socket(connection)
    except OSError:
        connection.close()
        raise
