"""The peer of a connection: its user, and probes that it is alive."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

__all__ = ["GONE_AFTER", "enable_keepalive", "peer_uid"]

GONE_AFTER = 30
"""Seconds without a reply after which a host counts as gone."""

_PROBES = 5


def peer_uid(connection: Any) -> int:
    """Return the kernel's user id for the peer of a Unix socket.

    Raises:
        OSError: where the peer is gone.
    """
    if sys.platform == "darwin":
        # struct xucred, for SOL_LOCAL and LOCAL_PEERCRED, of <sys/un.h> and <sys/ucred.h>.
        return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", credentials)[1])


def enable_keepalive(connection: Any) -> None:
    """Let the kernel end a connection whose remote host has vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = GONE_AFTER // _PROBES
    options = {
        # The first two are the same, by the names of Linux and of macOS.
        "TCP_KEEPIDLE": interval,
        "TCP_KEEPALIVE": interval,
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": _PROBES - 1,
        # Else what was sent and is not acknowledged puts the probes off for a quarter of an hour.
        "TCP_USER_TIMEOUT": GONE_AFTER * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
