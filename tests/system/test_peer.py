"""The other end of a connection."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from lightcone.system.peer import GONE_AFTER, enable_keepalive, peer_uid


def test_peer_of_a_unix_socket_is_this_user() -> None:
    ours, other = socket.socketpair(socket.AF_UNIX)
    with ours, other:
        assert peer_uid(ours) == os.getuid()


@pytest.mark.skipif(sys.platform != "linux", reason="the options of Linux")
def test_host_that_is_gone_is_noticed_within_half_a_minute() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        enable_keepalive(connection)
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        idle, every, probes = (
            connection.getsockopt(socket.IPPROTO_TCP, option) for option in options
        )
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert idle + every * probes == GONE_AFTER
        unacknowledged = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert unacknowledged == GONE_AFTER * 1000
