"""The control socket: what a living session says of itself, and how it is asked.

A Unix socket on which the client sends one JSON object on a line and gets one back. The
session of an allocation listens on a TCP port too, for callers on its other hosts: the same over
TLS 1.3, where each side has to show that it has the session's key.
In every version of the protocol ``describe`` is answered, with ``key``, ``protocol``, ``python``,
``version``, ``name``, ``idle`` and ``runs`` (each with a ``name``), and ``reason`` is heard.

- ``{"op": "describe"}``: what the session is, at once.
- ``{"op": "ready"}``: the same, as soon as a worker is there.
- ``{"op": "idle"}``: the same, as soon as nothing uses the session.
- ``{"op": "hold"}``: the same, at once; the connection then stays open, and gets
  ``{"ended": reason}`` when the session ends in good order.
- ``{"op": "call"}``: the same, and a use of the session for as long as the connection is open; with
  ``"lease": name`` under that lease. What follows the description are the framed messages of
  ``lightcone.scheduler.caller``, in both directions.
- ``{"op": "lease", "lease": name}``, ``{"op": "release", "lease": name}``: the lease is taken, or
  given up; the description.
- ``{"op": "cancel", "run": name}``: the run of that name, or of the id that ``watch`` shows, is
  asked to end; ``cancelled`` tells whether there is one.
- ``{"op": "watch", "every_s": seconds}``: the description; then, at such intervals and until the
  session ends or the caller leaves, what there is to see (``scheduler.snapshot``). No use.
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
_INTERVALS = (0.1, 60.0)
_PATIENCE = 1.0
# How many may wait to be accepted; on a Unix socket one more is turned away at once.
_BACKLOG = 4096


class ControlServer:
    """Answers on a session's control socket, in the event loop of its scheduler."""

    def __init__(
        self,
        path: Path,
        describe: Callable[[], dict[str, Any]],
        end: Callable[[], None],
        cancel: Callable[[str], bool],
        leases: Leases,
        look: Callable[[], Awaitable[dict[str, Any]]],
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        self.path = path
        self.reason = ""
        self._waiting = 0
        self._describe = describe
        self._end = end
        self._cancel = cancel
        self._leases = leases
        self._look = look
        self._serve_caller = serve
        self._callers: set[asyncio.Task[Any]] = set()
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._remote: asyncio.Server | None = None
        self._inode = 0
        # Those to be told of the end, and in which form.
        self._holders: dict[asyncio.StreamWriter, Callable[[str], bytes]] = {}

    @property
    def users(self) -> int:
        """How many use the session, or wait for it to do so."""
        return self._waiting + len(self._callers)

    async def start(self) -> None:
        """Listen; whoever calls this holds the owner lock, so a socket there is a dead one's."""
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
        """Listen on a port of ``host`` too, for those who have the key; its ``host:port``."""
        context = tls_context(certificate, server=True)
        self._remote = await asyncio.start_server(
            self._serve, host, 0, limit=_LINE_LIMIT, ssl=context, backlog=_BACKLOG
        )
        return f"{host}:{self._remote.sockets[0].getsockname()[1]}"

    async def restore(self) -> None:
        """Listen again where the socket has been removed, as a cleaner of /tmp does."""
        try:
            if self.path.stat().st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        if self._server is not None:
            self._server.close()
        await self.start()

    def changed(self) -> None:
        """Let those who wait look again: workers or uses have changed."""
        self._change.set()
        self._change = asyncio.Event()

    async def close(self) -> None:
        """Tell those who hold a connection why it ends, and stop listening."""
        if self._server is None:
            return
        self._server.close()
        if self._remote is not None:
            self._remote.close()
        for writer, last_word in list(self._holders.items()):
            with contextlib.suppress(OSError):
                writer.write(last_word(self.reason))
                writer.close()
        if self._callers:
            # One that is suspended does not leave by himself, and is served by a client.
            for task in self._callers:
                task.cancel()
            await asyncio.wait(self._callers, timeout=_PATIENCE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.LimitOverrunError):
                if _is_own(writer):
                    await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the loop is being closed; a stream's callback would log this as an error
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        answer = self._describe()
        if operation == "cancel":
            answer["cancelled"] = self._cancel(str(request.get("run", "")))
        writer.write(_line(answer))
        await writer.drain()
        if operation == "end":
            self._end()
        if operation == "watch":
            await self._show(reader, writer, request.get("every_s"))
        if operation == "hold":
            with self._told_of_end(writer, _last_line):
                await reader.read()
        if operation == "call":
            with self._told_of_end(writer, _last_message), self._using(lease):
                await self._serve_caller(reader, writer)

    @contextlib.contextmanager
    def _told_of_end(
        self, writer: asyncio.StreamWriter, last_word: Callable[[str], bytes]
    ) -> Iterator[None]:
        self._holders[writer] = last_word
        try:
            yield
        finally:
            del self._holders[writer]

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

    async def _show(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, every: object
    ) -> None:
        """Send what there is to see until the one who looks has left."""
        least, most = _INTERVALS
        seconds = min(max(every, least), most) if isinstance(every, int | float) else 1.0
        gone = asyncio.ensure_future(reader.read(1))
        with self._told_of_end(writer, _last_line):
            try:
                while not gone.done():
                    writer.write(_line(await self._look()))
                    await writer.drain()  # one who looks away for a while is sent nothing meanwhile
                    await asyncio.wait({gone}, timeout=seconds)
            finally:
                gone.cancel()

    async def _wait_until(self, state: str, reader: asyncio.StreamReader) -> None:
        """Wait until the description says ``state``, or the one who asked has left."""
        use = state == "ready"  # whoever waits for that is about to use it
        self._waiting += use
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not self._describe()[state] and not gone.done():
                change = asyncio.ensure_future(self._change.wait())
                await asyncio.wait({change, gone}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            gone.cancel()
            self._waiting -= use


def _is_own(writer: asyncio.StreamWriter) -> bool:
    """Whether this user asks: on the network, one who has the key."""
    connection = writer.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        return peer_uid(connection) == os.getuid()
    enable_keepalive(connection)
    return True


def _last_line(reason: str) -> bytes:
    return _line({"ended": reason})


def _last_message(reason: str) -> bytes:
    return frame(pack([{"event": "ended", "reason": reason}]))


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
