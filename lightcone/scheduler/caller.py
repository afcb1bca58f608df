"""A caller as the engine knows it: a client of his own, and what he asks of it in messages.

The caller of a session is somewhere else: he speaks on its control socket, and imports nothing of
the engine; his client is in the scheduler's process. With a cluster of one's own it is in his.

To the cluster, each with an ``op``:

- ``begin``: ``run``, his id, and ``description``, what his commands have to know of him.
- ``submit``: the task ``key`` is to make ``call`` (``lightcone.wire.protocol``) on a worker with
  ``resources``, at a ``priority``.
- ``cancel``: the tasks ``keys``, which have not begun, are not wanted any more.
- ``interrupt``: his commands are to end, politely or, if ``kill``, at once.
- ``received``: he has passed on ``total`` bytes of what a command printed.
- ``progress``: how far he is, ``progress``, as he was asked.

To the caller, each with an ``event``: what his tasks say (``lightcone.run``), and

- ``lost``: the task ``key`` has ended without having said so, and why: ``reason``.
- ``begun``: the answer to ``interrupt``, the ``tasks`` that had begun.
- ``progress_wanted``: a viewer wants to know how far the caller is; ``cancel``: it is to end.
- ``ended``: the session has ended, or the connection to the cluster, for a ``reason``; the last
  message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client, Future

from lightcone.wire.protocol import (
    HEADER_SIZE,
    LOST,
    frame,
    frame_length,
    pack,
    run_call,
    topic_of,
    unpack,
)

__all__ = ["Caller", "serve_caller"]

# A run that has been stopped reads nothing, while its recipes print on.
_UNREAD_LIMIT = 64 << 20
_logger = logging.getLogger("lightcone")


class Caller:
    """Does what one caller asks for, and passes on what he is to hear.

    Methods are called in the event loop of ``client``, as ``send`` is.

    Args:
        client: the engine's; when it is closed, everything that the caller wanted ends.
        send: gets messages for the caller, packed.
    """

    def __init__(self, client: Client, send: Callable[[bytes], None]) -> None:
        self._client = client
        self._loop: Any = client.loop
        self._send = send
        # What was wanted on a connection ends with it, so it is not made again.
        client._reconnect = self._lose  # type: ignore[method-assign]
        self._run = ""
        self._futures: dict[str, Future[None]] = {}
        self._interrupts: set[asyncio.Task[None]] = set()

    async def handle(self, message: Mapping[str, Any]) -> None:
        """Do what a message asks for."""
        operation = message["op"]
        if operation == "begin":
            await self.begin(message["run"], message["description"])
        elif operation == "submit":
            self._submit(message["key"], message["call"], message["resources"], message["priority"])
        elif operation == "cancel":
            await self._cancel(message["keys"])
        elif operation == "interrupt":
            # A second, less polite one must not have to wait for the workers' answers.
            task = asyncio.create_task(self._interrupt(bool(message["kill"])))
            self._interrupts.add(task)
            task.add_done_callback(self._interrupts.discard)
        elif operation == "received":
            await self._ask("received", total=message["total"])
        elif operation == "progress":
            await self._ask("progress", progress=message["progress"])

    async def begin(self, run: str, description: Mapping[str, Any]) -> None:
        """The caller is there, and what he has to say of himself.

        Raises:
            OSError: where the scheduler is gone.
        """
        self._run = run
        # Before the scheduler knows of the run, and so of somebody to say something to.
        self._client.subscribe_topic(topic_of(run), lambda event: self._send(event[1]))
        await self._ask("begin", client=self._client.id, description=dict(description))

    async def _ask(self, operation: str, **more: Any) -> Any:
        """Call a handler of the scheduler, most often one of ``Runs``."""
        scheduler: Any = self._client.scheduler
        return await getattr(scheduler, f"lightcone_{operation}")(run=self._run, **more)

    def _submit(
        self, key: str, call: bytes, resources: dict[str, float] | None, priority: int
    ) -> None:
        future: Future[None] = self._client.submit(
            run_call,
            call,
            key=key,
            pure=False,
            retries=0,
            resources=resources,
            priority=priority,
        )
        self._futures[key] = future
        # Called in a thread.
        future.add_done_callback(lambda ended: self._loop.add_callback(self._end, key, ended))

    async def _cancel(self, keys: Sequence[str]) -> None:
        await self._client.cancel([self._futures[key] for key in keys if key in self._futures])

    async def _interrupt(self, kill: bool) -> None:
        begun: list[str] = []
        try:
            begun = list(await self._ask("interrupt", kill=kill))
        except Exception:
            _logger.debug("nobody could be asked to end", exc_info=True)  # all have ended, then
        self._send(pack([{"event": "begun", "tasks": begun}]))

    async def _end(self, key: str, future: Future[None]) -> None:
        self._futures.pop(key, None)  # the engine forgets what nobody holds
        if future.status == "finished":
            return
        reason = LOST
        if future.status == "error":
            error = await future.exception()
            if error is not None and type(error).__name__ != "KilledWorker":
                reason = f"{type(error).__name__}: {error}"
        self._send(pack([{"event": "lost", "key": key, "reason": reason}]))

    async def _lose(self) -> None:
        self._send(pack([{"event": "ended", "reason": "the connection to it was lost"}]))


async def serve_caller(
    address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve a caller on a connection, until he leaves, with a client of the scheduler's process.

    Args:
        address: where the scheduler listens for such clients.
        reader: what he sends: framed messages.
        writer: takes what he is to hear. While much of it waits for him, what would only be shown
            to him is left out.
    """

    def send(packed: bytes) -> None:
        if not writer.is_closing():
            behind = writer.transport.get_write_buffer_size() > _UNREAD_LIMIT
            heard = _without_lines(packed) if behind else packed
            if heard:
                writer.write(frame(heard))

    client = await Client(address, asynchronous=True, set_as_default=False)
    try:
        caller = Caller(client, send)
        while True:
            piece = await reader.readexactly(frame_length(await reader.readexactly(HEADER_SIZE)))
            for message in unpack(piece):
                await caller.handle(message)
    except (asyncio.IncompleteReadError, OSError):
        pass  # he has left
    except Exception:
        _logger.exception("a caller could not be served")
    finally:
        await client.close()


def _without_lines(packed: bytes) -> bytes:
    """Messages without what recipes print, which is in their logs too; b"" where none is left."""
    messages = unpack(packed)
    kept = [message for message in messages if message["event"] != "lines"]
    return pack(kept) if kept else b""
