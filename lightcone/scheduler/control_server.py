"""The server of a session's control socket, and its protocol.

A Unix socket on which the client sends one JSON object on a line and gets one back. The
session of an allocation listens on a TCP port too, for callers on its other hosts: the same over
TLS 1.3, where each side has to show that it has the session's key.
In every version of the protocol ``describe`` is answered, with ``key``, ``protocol``, ``python``,
``version``, ``name``, ``idle`` and ``runs`` (each with a ``name``), and ``reason`` is accepted.

- ``{"op": "describe"}``: the session's description, at once.
- ``{"op": "ready"}``: the same, as soon as a worker is there.
- ``{"op": "idle"}``: the same, as soon as nothing uses the session.
- ``{"op": "hold"}``: the same, at once; the connection then stays open, and gets
  ``{"ended": reason}`` when the session ends in good order.
- ``{"op": "call"}``: the same, and a use of the session for as long as the connection is open; with
  ``"lease": name`` under that lease. What follows the description are the framed messages of
  ``lightcone.scheduler.caller``, in both directions.
- ``{"op": "lease", "lease": name}``, ``{"op": "release", "lease": name}``: the lease is taken, or
  given up; the description.
- ``{"op": "cancel", "run": name}``: the run with that name, or with that id in a snapshot, is
  interrupted; ``cancelled`` is whether there is one.
- ``{"op": "watch", "every_s": seconds}``: the description; then, at such intervals and until the
  session ends or the caller leaves, a snapshot (``scheduler.snapshot``). No use.
- ``{"op": "reason", "reason": text}``: why the session is about to be ended; the description.
- ``{"op": "end", "reason": text}``: the same, and the session ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from lightcone.scheduler.idleness import Leases
from lightcone.system.peer import enable_keepalive, peer_uid
from lightcone.wire.protocol import frame, pack
from lightcone.wire.tls import tls_context

__all__ = ["ControlServer"]

_LINE_LIMIT = 65536
_LEASE_LIMIT = 200
_INTERVAL_BOUNDS = (0.1, 60.0)
_CLOSE_TIMEOUT = 1.0
# The connections that may wait to be accepted; a Unix socket refuses one more at once.
_BACKLOG = 4096


class ControlServer:
    """Serves a session's control socket, in the event loop of its scheduler."""

    def __init__(
        self,
        path: Path,
        describe: Callable[[], dict[str, Any]],
        end: Callable[[], None],
        cancel: Callable[[str], bool],
        leases: Leases,
        snapshot: Callable[[], Awaitable[dict[str, Any]]],
        serve_caller: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        self.path = path
        self.reason = ""
        self._waiting = 0
        self._describe = describe
        self._end = end
        self._cancel = cancel
        self._leases = leases
        self._snapshot = snapshot
        self._serve_caller = serve_caller
        self._callers: set[asyncio.Task[Any]] = set()
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._remote: asyncio.Server | None = None
        self._inode = 0
        # The connections that get a message when the session ends, and its format.
        self._end_listeners: dict[asyncio.StreamWriter, Callable[[str], bytes]] = {}

    @property
    def users(self) -> int:
        """The number of callers that use the session, or wait to."""
        return self._waiting + len(self._callers)

    async def start(self) -> None:
        """Listen, replacing a dead session's socket; the process must hold the owner lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self.path), limit=_LINE_LIMIT, backlog=_BACKLOG
            )
        finally:
            os.umask(mask)
        self._inode = self.path.stat().st_ino

    async def listen(self, host: str, certificate: Path) -> str:
        """Listen on a TCP port of ``host`` too, with TLS, and return ``host:port``."""
        context = tls_context(certificate, server=True)
        self._remote = await asyncio.start_server(
            self._serve, host, 0, limit=_LINE_LIMIT, ssl=context, backlog=_BACKLOG
        )
        return f"{host}:{self._remote.sockets[0].getsockname()[1]}"

    async def restore(self) -> None:
        """Listen again if the socket was removed, as by a cleaner of /tmp."""
        try:
            if self.path.stat().st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        if self._server is not None:
            self._server.close()
        await self.start()

    def changed(self) -> None:
        """Wake the requests that wait, because workers or uses have changed."""
        self._change.set()
        self._change = asyncio.Event()

    async def close(self) -> None:
        """Send the reason to every open connection, and stop listening."""
        if self._server is None:
            return
        self._server.close()
        if self._remote is not None:
            self._remote.close()
        for writer, end_message in list(self._end_listeners.items()):
            with contextlib.suppress(OSError):
                writer.write(end_message(self.reason))
                writer.close()
        if self._callers:
            # A suspended caller does not leave by itself, and is served by a client.
            for task in self._callers:
                task.cancel()
            await asyncio.wait(self._callers, timeout=_CLOSE_TIMEOUT)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.LimitOverrunError):
                if _is_same_user(writer):
                    await self._handle(reader, writer)
        except asyncio.CancelledError:
            pass  # the loop is being closed; a stream's callback would log this as an error
        finally:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        operation = request.get("op") if isinstance(request, dict) else None
        if operation in ("ready", "idle"):
            await self._wait_until(operation, reader)
        elif operation in ("reason", "end"):
            self.reason = str(request.get("reason", ""))
        lease = request.get("lease") if isinstance(request, dict) else None
        lease = lease if isinstance(lease, str) and len(lease) <= _LEASE_LIMIT else ""
        if lease and operation == "lease":
            self._leases.take(lease)
        elif operation == "release":
            self._leases.release(lease)
            self.changed()
        reply = self._describe()
        if operation == "cancel":
            reply["cancelled"] = self._cancel(str(request.get("run", "")))
        writer.write(_line(reply))
        await writer.drain()
        if operation == "end":
            self._end()
        if operation == "watch":
            await self._send_snapshots(reader, writer, request.get("every_s"))
        if operation == "hold":
            with self._notified_of_end(writer, _end_line):
                await reader.read()
        if operation == "call":
            with self._notified_of_end(writer, _end_message), self._using(lease):
                await self._serve_caller(reader, writer)

    @contextlib.contextmanager
    def _notified_of_end(
        self, writer: asyncio.StreamWriter, end_message: Callable[[str], bytes]
    ) -> Iterator[None]:
        self._end_listeners[writer] = end_message
        try:
            yield
        finally:
            del self._end_listeners[writer]

    @contextlib.contextmanager
    def _using(self, lease: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        if lease:
            self._leases.begin_use(lease)
        try:
            yield
        finally:
            self._callers.discard(task)
            if lease:
                self._leases.end_use(lease)
            self.changed()

    async def _send_snapshots(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, interval: object
    ) -> None:
        """Send snapshots until the viewer disconnects."""
        least, most = _INTERVAL_BOUNDS
        seconds = min(max(interval, least), most) if isinstance(interval, int | float) else 1.0
        disconnected = asyncio.ensure_future(reader.read(1))
        with self._notified_of_end(writer, _end_line):
            try:
                while not disconnected.done():
                    writer.write(_line(await self._snapshot()))
                    await writer.drain()  # a viewer that does not read is sent nothing meanwhile
                    await asyncio.wait({disconnected}, timeout=seconds)
            finally:
                disconnected.cancel()

    async def _wait_until(self, state: str, reader: asyncio.StreamReader) -> None:
        """Wait until ``state`` is true in the description, or the caller disconnects."""
        is_use = state == "ready"  # a caller that waits for that is about to use the session
        self._waiting += is_use
        disconnected = asyncio.ensure_future(reader.read(1))
        try:
            while not self._describe()[state] and not disconnected.done():
                change = asyncio.ensure_future(self._change.wait())
                await asyncio.wait({change, disconnected}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            disconnected.cancel()
            self._waiting -= is_use


def _is_same_user(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer is this user, which on the network TLS has verified."""
    connection = writer.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        return peer_uid(connection) == os.getuid()
    enable_keepalive(connection)
    return True


def _end_line(reason: str) -> bytes:
    return _line({"ended": reason})


def _end_message(reason: str) -> bytes:
    return frame(pack([{"event": "ended", "reason": reason}]))


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
