"""The engine's side of a caller: its client and its messages.

The caller of a session is in another process: it uses the control socket, and imports nothing of
the engine; its client is in the scheduler's process. With a cluster of one's own the client is in
the caller's process.

To the cluster, each with an ``op``:

- ``begin``: ``run``, the caller's id, and ``description``, which its commands need.
- ``submit``: the task ``key`` is to make ``call`` (``lightcone.wire.protocol``) on a worker with
  ``resources``, at a ``priority``.
- ``cancel``: the tasks ``keys``, which have not begun, are cancelled.
- ``interrupt``: the caller's commands are to end, by TERM or, if ``kill``, by KILL.
- ``received``: the caller has passed on ``total`` bytes of a command's output.
- ``progress``: the reply to ``progress_wanted``, the caller's ``progress``.

To the caller, each with an ``event``: the messages of its tasks (``lightcone.run``), and

- ``lost``: the task ``key`` has ended without a report, and why: ``reason``.
- ``begun``: the reply to ``interrupt``, the ``tasks`` that had begun.
- ``progress_wanted``: a viewer requests the caller's progress; ``cancel``: the caller is to end.
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
    """Carries out one caller's requests, and sends it the messages of its tasks.

    Methods are called in the event loop of ``client``, as ``send`` is.

    Args:
        client: the engine's; when it is closed, everything that the caller requested ends.
        send: sends packed messages to the caller.
    """

    def __init__(self, client: Client, send: Callable[[bytes], None]) -> None:
        self._client = client
        self._loop: Any = client.loop
        self._send = send
        # Requests end with the connection they came on, so the client must not reconnect.
        client._reconnect = self._report_loss  # type: ignore[method-assign]
        self._run = ""
        self._futures: dict[str, Future[None]] = {}
        self._interrupts: set[asyncio.Task[None]] = set()

    async def handle(self, message: Mapping[str, Any]) -> None:
        """Carry out the request in a message."""
        operation = message["op"]
        if operation == "begin":
            await self.begin(message["run"], message["description"])
        elif operation == "submit":
            self._submit(message["key"], message["call"], message["resources"], message["priority"])
        elif operation == "cancel":
            await self._cancel(message["keys"])
        elif operation == "interrupt":
            # A second one, which kills, must not have to wait for the workers' replies.
            task = asyncio.create_task(self._interrupt(bool(message["kill"])))
            self._interrupts.add(task)
            task.add_done_callback(self._interrupts.discard)
        elif operation == "received":
            await self._call("received", total=message["total"])
        elif operation == "progress":
            await self._call("progress", progress=message["progress"])

    async def begin(self, run: str, description: Mapping[str, Any]) -> None:
        """Register the caller with its description.

        Raises:
            OSError: where the scheduler is gone.
        """
        self._run = run
        # Before the scheduler knows of the run, as from then on there may be messages for it.
        self._client.subscribe_topic(topic_of(run), lambda event: self._send(event[1]))
        await self._call("begin", client=self._client.id, description=dict(description))

    async def _call(self, operation: str, **more: Any) -> Any:
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
        future.add_done_callback(lambda done: self._loop.add_callback(self._report_end, key, done))

    async def _cancel(self, keys: Sequence[str]) -> None:
        await self._client.cancel([self._futures[key] for key in keys if key in self._futures])

    async def _interrupt(self, kill: bool) -> None:
        started: list[str] = []
        try:
            started = list(await self._call("interrupt", kill=kill))
        except Exception:
            _logger.debug("nobody could be asked to end", exc_info=True)  # all have ended, then
        self._send(pack([{"event": "begun", "tasks": started}]))

    async def _report_end(self, key: str, future: Future[None]) -> None:
        self._futures.pop(key, None)  # the engine forgets a task without futures
        if future.status == "finished":
            return
        reason = LOST
        if future.status == "error":
            error = await future.exception()
            if error is not None and type(error).__name__ != "KilledWorker":
                reason = f"{type(error).__name__}: {error}"
        self._send(pack([{"event": "lost", "key": key, "reason": reason}]))

    async def _report_loss(self) -> None:
        self._send(pack([{"event": "ended", "reason": "the connection to it was lost"}]))


async def serve_caller(
    address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve a caller on a connection until it leaves.

    Args:
        address: where the scheduler listens for clients in its own process.
        reader: the framed messages of the caller.
        writer: takes the messages to the caller. While many of them are unread, messages that are
            only for display are left out.
    """

    def send(packed: bytes) -> None:
        if not writer.is_closing():
            behind = writer.transport.get_write_buffer_size() > _UNREAD_LIMIT
            kept = _without_lines(packed) if behind else packed
            if kept:
                writer.write(frame(kept))

    client = await Client(address, asynchronous=True, set_as_default=False)
    try:
        caller = Caller(client, send)
        while True:
            piece = await reader.readexactly(frame_length(await reader.readexactly(HEADER_SIZE)))
            for message in unpack(piece):
                await caller.handle(message)
    except (asyncio.IncompleteReadError, OSError):
        pass  # the caller has left
    except Exception:
        _logger.exception("a caller could not be served")
    finally:
        await client.close()


def _without_lines(packed: bytes) -> bytes:
    """Drop recipes' output, which their logs have too; b"" where nothing remains."""
    messages = unpack(packed)
    kept = [message for message in messages if message["event"] != "lines"]
    return pack(kept) if kept else b""
