"""The connected runs in the scheduler: their descriptions and their messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Status

from lightcone.wire.protocol import pack, topic_of

__all__ = ["RUNS_PLUGIN", "Runs"]

RUNS_PLUGIN = "lightcone-runs"
_FORGET_DELAY = 60.0


class Runs(SchedulerPlugin):
    """Keeps the description of each connected run, in memory alone.

    A run is dropped when its client is gone, so nothing of it outlives it. Workers ask for a run
    when they meet its first command: its environment crosses the network once a worker, not once a
    command, and is written nowhere.
    """

    name = RUNS_PLUGIN

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handlers of the runs' requests."""
        self.scheduler = scheduler
        self.changed = asyncio.Event()
        scheduler.handlers["lightcone_begin"] = self.begin
        scheduler.handlers["lightcone_run"] = self.describe
        scheduler.handlers["lightcone_interrupt"] = self.interrupt
        scheduler.handlers["lightcone_received"] = self.received
        scheduler.handlers["lightcone_drain"] = self.drain

    def __getstate__(self) -> dict[str, Any]:
        return {"runs": {}}

    async def begin(self, run: str, client: str, description: dict[str, Any]) -> None:
        """Register a run of a client; its commands need the ``description``.

        From then on every message to the run reaches the client.
        """
        # The client's own subscription comes by another way, perhaps later.
        self.scheduler.subscribe_topic(topic_of(run), client)
        topic = self._topics.get(topic_of(run))
        if topic is not None:
            topic.events = deque(maxlen=0)  # past messages are never read
        self.runs[run] = {**description, "client": client, "started": time.monotonic()}

    async def describe(self, run: str) -> dict[str, Any] | None:
        """Return the run's description, or None when it is gone."""
        return self.runs.get(run)

    def caller_name(self, run: str) -> str:
        """Return the name of a run's caller, "" once it is gone."""
        return str(self.runs.get(run, {}).get("name", ""))

    def cancel(self, name: str) -> bool:
        """Interrupt a run as Ctrl-C does; return False where there is none.

        ``name`` is the name that a run was given, or its id in a snapshot of the session.
        """
        matches = [
            run
            for run, description in self.runs.items()
            if name and name in (run, description.get("label"))
        ]
        for run in matches:
            self.scheduler.log_event(topic_of(run), pack([{"event": "cancel"}]))
        return bool(matches)

    async def received(self, run: str, total: int) -> None:
        """Record that the client has passed on ``total`` bytes of its command's output."""
        if run in self.runs:
            self.runs[run]["received"] = total
            self._notify()

    async def drain(self, run: str, total: int) -> None:
        """Wait until the run's client has passed on ``total`` bytes, or is gone."""
        while run in self.runs and self.runs[run].get("received", 0) < total:
            await self.changed.wait()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def interrupt(self, run: str, kill: bool) -> list[str]:
        """Terminate, or kill, the run's commands on every worker; return the started tasks."""
        message = {"op": "lightcone_interrupt", "run": run, "kill": kill}
        replies = await self.scheduler.broadcast(msg=message, on_error="ignore")
        return [key for keys in replies.values() for key in keys]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget the runs of a client that is gone, and their messages."""
        ended = [run for run, description in self.runs.items() if description["client"] == client]
        for run in ended:
            del self.runs[run]
            scheduler.unsubscribe_topic(topic_of(run), client)
        if scheduler.status is Status.running:  # or its workers end, too
            # Not by connections of their own, which would be in the way of an end that comes now.
            forget = [{"op": "lightcone_forget", "run": run} for run in ended]
            scheduler.send_all({}, dict.fromkeys(scheduler.workers, forget) if ended else {})
            # Commands that are being ended may still send messages.
            topics = [client, *map(topic_of, ended)]  # the engine's own messages have the first
            scheduler.loop.call_later(_FORGET_DELAY, self._forget, client, topics)
        self._notify()

    def _forget(self, client: str, topics: list[str]) -> None:
        """Drop a client's topics and subscriptions, which the engine would keep for ever."""
        if client in self.scheduler.clients:
            return  # it has connected again
        for topic in topics:
            self._topics.pop(topic, None)
        for topic in list(self._topics):
            self.scheduler.unsubscribe_topic(topic, client)

    @property
    def _topics(self) -> dict[str, Any]:
        # There is no public way to read past messages, nor to drop them.
        topics: dict[str, Any] = getattr(getattr(self.scheduler, "_broker", None), "_topics", {})
        return topics
