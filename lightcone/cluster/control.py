"""The control socket: what a living session says of itself, and how it is asked.

Protocol 1: a Unix socket on which the client sends one JSON object on a line and gets one back.
In every version of the protocol ``describe`` is answered, with ``protocol`` and ``python``.

- ``{"op": "describe"}``: what the session is, at once.
- ``{"op": "ready"}``: the same, as soon as a worker is there.
- ``{"op": "idle"}``: the same, as soon as nothing uses the session.
- ``{"op": "hold", "use": bool}``: the same, at once; the connection then stays open, counts as a
  use if ``use``, and gets ``{"ended": reason}`` when the session ends in good order.
- ``{"op": "reason", "reason": text}``: why the session is about to be ended; the description.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["PROTOCOL", "PYTHON", "ControlServer"]

PROTOCOL = 1
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_LINE_LIMIT = 65536


class ControlServer:
    """Answers on a session's control socket, in the event loop of its scheduler."""

    def __init__(self, path: Path, describe: Callable[[], dict[str, Any]]) -> None:
        self.path = path
        self.reason = ""
        self.users = 0
        self._describe = describe
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._holders: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; whoever calls this holds the owner lock, so a socket there is a dead one's."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self.path), limit=_LINE_LIMIT
            )
        finally:
            os.umask(mask)

    def changed(self) -> None:
        """Let those who wait look again: workers or uses have changed."""
        self._change.set()
        self._change = asyncio.Event()

    async def close(self) -> None:
        """Tell those who hold a connection why it ends, and stop listening."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._holders):
            with contextlib.suppress(OSError):
                writer.write(_line({"ended": self.reason}))
                writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.LimitOverrunError):
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
        elif operation == "reason":
            self.reason = str(request.get("reason", ""))
        writer.write(_line(self._describe()))
        await writer.drain()
        if operation == "hold":
            use = bool(request.get("use"))
            self.users += use
            self._holders.add(writer)
            try:
                await reader.read()
            finally:
                self._holders.discard(writer)
                self.users -= use
                self.changed()

    async def _wait_until(self, state: str, reader: asyncio.StreamReader) -> None:
        """Wait until the description says ``state``, or the one who asked has left."""
        use = state == "ready"  # whoever waits for that is about to use it
        self.users += use
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not self._describe()[state] and not gone.done():
                change = asyncio.ensure_future(self._change.wait())
                await asyncio.wait({change, gone}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            gone.cancel()
            self.users -= use


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
