"""Who is at the other end of a Unix socket, as the kernel tells it."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Protocol

__all__ = ["peer"]


class _Socket(Protocol):
    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def peer(connection: _Socket) -> int:
    """The id of the user at the other end.

    Raises:
        OSError: where there is nobody any more.
    """
    if sys.platform == "darwin":
        # struct xucred, for SOL_LOCAL and LOCAL_PEERCRED, of <sys/un.h> and <sys/ucred.h>.
        return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", credentials)[1])
