"""Client of a session's control socket; see ``lightcone.scheduler.control_server``."""

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
    "ControlConnection",
    "Hold",
    "ask_session",
    "connect_session",
    "hold_session",
    "use_session",
    "watch_session",
]

_CONNECT_TIMEOUT = 5.0
_POLL_INTERVAL = 0.05


def ask_session(
    where: Context | Path, operation: str, timeout: float | None = 2.0, **more: Any
) -> dict[str, Any]:
    """Send one request to a session and return its reply.

    The session is given by its context or its socket. The session of an allocation is asked over
    the network where it has no socket on this host.

    Raises:
        OSError: where no session answers; TimeoutError after ``timeout`` seconds.
    """
    with connect_session(where, timeout) as control:
        return control.exchange({"op": operation, **more})


class Hold:
    """An open connection to a session, which ends when the session does."""

    def __init__(self, control: ControlConnection) -> None:
        self._control = control

    def wait_for_end(self, timeout: float | None = None) -> str | None:
        """Wait until the session ends, and return its reason or "".

        Returns None when ``timeout`` seconds have passed first.
        """
        self._control.connection.settimeout(timeout)
        try:
            return str(self._control.read().get("ended", ""))
        except TimeoutError:
            return None
        except OSError:
            return ""


@contextlib.contextmanager
def hold_session(where: Context | Path) -> Iterator[Hold]:
    """Hold a connection to the session that does not count as a use.

    Raises:
        OSError: where no session answers.
    """
    with connect_session(where, _CONNECT_TIMEOUT) as control:
        control.exchange({"op": "hold"})
        yield Hold(control)


@contextlib.contextmanager
def watch_session(where: Context | Path, every: float = 1.0) -> Iterator[Iterator[dict[str, Any]]]:
    """Receive a session's snapshots, one every ``every`` seconds, until it ends.

    The last object is ``{"ended": reason}``. Watching is no use of the session. A session that has
    been suspended sends nothing until it goes on.

    Raises:
        OSError: where no session answers; of the iterator, where the session ends without a reason.
    """
    with connect_session(where, _CONNECT_TIMEOUT) as control:
        control.exchange({"op": "watch", "every_s": every})
        control.connection.settimeout(None)
        yield iter(control.read, None)


class ControlConnection:
    """JSON objects, one on a line, over a connection.

    Attributes:
        connection: the socket.
        received: the bytes that came after the last line that was read.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the reply.

        Raises:
            OSError: where there is no reply, or the reply cannot be read.
        """
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        return self.read()

    def use(self, lease: str | None) -> None:
        """Make the connection count as a use of the session; errors as :meth:`exchange`."""
        self.exchange({"op": "call", "lease": lease})

    def read(self) -> dict[str, Any]:
        """Read the next object; errors as :meth:`exchange`."""
        while b"\n" not in self.received:
            more = self.connection.recv(65536)
            if not more:
                raise ConnectionResetError("the session ended the connection")
            self.received += more
        data, _, self.received = self.received.partition(b"\n")
        try:
            reply = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ConnectionError("the session's answer cannot be read") from error
        if not isinstance(reply, dict):
            raise ConnectionError("the session's answer cannot be read")
        return reply


@contextlib.contextmanager
def connect_session(where: Context | Path, timeout: float | None) -> Iterator[ControlConnection]:
    """Connect to a session, given by its context or its socket.

    Raises:
        OSError: where no session answers.
    """
    with _connection(where, timeout) as connection:
        yield ControlConnection(connection)
        # Another thread may be blocked reading from it; closing alone would not wake that one.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def use_session(context: Context, lease: str | None) -> socket.socket:
    """Open a connection that counts as a use of the session until closed.

    The use is under ``lease`` if that is given. The connection can be handed to other processes,
    and lasts until the last of them has closed it.

    Raises:
        OSError: where no session answers.
    """
    connection = _connection(context, _CONNECT_TIMEOUT)
    try:
        ControlConnection(connection).use(lease)
    except BaseException:
        connection.close()
        raise
    return connection


def _connection(where: Context | Path, timeout: float | None) -> socket.socket:
    path = where if isinstance(where, Path) else where.control_socket
    try:
        return _connect_locally(path, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        if isinstance(where, Path) or where.job is None:
            raise
        return _over_network(where, timeout)


def _connect_locally(path: Path, timeout: float | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(connection, path, timeout)
        # Another user may have created the directory of the socket first.
        if peer_uid(connection) != os.getuid():
            raise PermissionError(errno.EACCES, "another user answers on the socket", str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: Path, timeout: float | None) -> None:
    """Connect, retrying within ``timeout`` while the socket's backlog is full."""
    connection.settimeout(timeout)
    started = time.monotonic()
    while True:
        try:
            return connection.connect(str(path))
        except BlockingIOError:
            # The kernel does not report when there is room. Without a timeout it waits itself.
            remaining = (timeout or 0.0) - (time.monotonic() - started)
            if remaining <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "too many wait there", str(path)) from None
            time.sleep(min(_POLL_INTERVAL, remaining))
            connection.settimeout(remaining)


def _over_network(context: Context, timeout: float | None) -> socket.socket:
    """Connect to the address in the record of a session on another host."""
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
