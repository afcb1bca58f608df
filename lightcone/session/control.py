"""Asking a living session on its control socket; see ``lightcone.cluster.control``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Hold", "ask", "hold"]


def ask(path: Path, operation: str, timeout: float | None = 2.0, **more: Any) -> dict[str, Any]:
    """The session's answer to one request.

    Raises:
        OSError: where nobody answers; TimeoutError after ``timeout`` seconds.
    """
    with _connect(path, timeout) as connection:
        return _exchange(connection, {"op": operation, **more})


class Hold:
    """An open connection to a living session; it ends when the session does."""

    def __init__(self, connection: socket.socket, description: dict[str, Any]) -> None:
        self.description = description
        self._connection = connection

    def wait_for_end(self, timeout: float | None = None) -> str | None:
        """Block until the session ends; its reason, "" where it gave none.

        Returns None when ``timeout`` seconds have passed first.
        """
        self._connection.settimeout(timeout)
        try:
            return str(_read(self._connection).get("ended", ""))
        except TimeoutError:
            return None
        except OSError:
            return ""


@contextlib.contextmanager
def hold(path: Path, *, use: bool) -> Iterator[Hold]:
    """Hold a connection to the session, as one who uses it if ``use``.

    Raises:
        OSError: where nobody answers.
    """
    with _connect(path, 5.0) as connection:
        yield Hold(connection, _exchange(connection, {"op": "hold", "use": use}))


@contextlib.contextmanager
def _connect(path: Path, timeout: float | None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        if _peer(connection) != os.getuid():
            raise PermissionError(errno.EACCES, "another user answers on the socket", str(path))
        yield connection
        # Another thread may be blocked reading from it; closing alone would not wake that one.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _peer(connection: socket.socket) -> int:
    """The user at the other end: whoever made the directory of a socket first may be another."""
    if sys.platform == "darwin":
        # struct xucred, for SOL_LOCAL and LOCAL_PEERCRED, of <sys/un.h> and <sys/ucred.h>.
        return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", credentials)[1])


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    return _read(connection)


def _read(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        # No further than this line: what follows is another answer.
        seen = connection.recv(65536, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError("the session ended the connection")
        data += connection.recv(seen.find(b"\n") + 1 or len(seen))
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise ConnectionError("the session's answer cannot be read") from error
    if not isinstance(answer, dict):
        raise ConnectionError("the session's answer cannot be read")
    return answer
