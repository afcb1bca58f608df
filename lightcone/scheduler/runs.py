"""The scheduler's part in a run: who wants what done, as whom."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Status

from lightcone.wire.protocol import pack, topic_of

__all__ = ["RUNS_PLUGIN", "Runs"]

RUNS_PLUGIN = "lightcone-runs"
_LAST_WORDS = 60.0


class Runs(SchedulerPlugin):
    """Keeps, in memory alone, what each connected run has said of itself.

    A run is dropped when its client is gone, so nothing of it outlives it. Workers ask for a run
    when they meet its first command: its environment crosses the network once a worker, not once a
    command, and is written nowhere.
    """

    name = RUNS_PLUGIN

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Serve the runs' requests from now on."""
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
        """A client begins a run; ``description`` is what its commands need to know.

        From then on whatever is said to the run reaches the client.
        """
        # Its own word for that comes by another way, perhaps later.
        self.scheduler.subscribe_topic(topic_of(run), client)
        topic = self._topics.get(topic_of(run))
        if topic is not None:
            topic.events = deque(maxlen=0)  # nobody asks for what has been said
        self.runs[run] = {**description, "client": client, "begun": time.monotonic()}

    async def describe(self, run: str) -> dict[str, Any] | None:
        """What the run has said of itself, or None when it is gone."""
        return self.runs.get(run)

    def caller(self, run: str) -> str:
        """The name of who began the run; "" where it is gone."""
        return str(self.runs.get(run, {}).get("name", ""))

    def cancel(self, name: str) -> bool:
        """Have the caller of that run do what Ctrl-C does; False where there is none.

        ``name`` is that of a run that was given one, or the id that a look at the session shows.
        """
        found = [
            run for run, told in self.runs.items() if name and name in (run, told.get("label"))
        ]
        for run in found:
            self.scheduler.log_event(topic_of(run), pack([{"event": "cancel"}]))
        return bool(found)

    async def received(self, run: str, total: int) -> None:
        """The run's client has passed on ``total`` bytes of what its command printed."""
        if run in self.runs:
            self.runs[run]["received"] = total
            self._change()

    async def drain(self, run: str, total: int) -> None:
        """Return once the run's client has passed on ``total`` bytes, or is gone."""
        while run in self.runs and self.runs[run].get("received", 0) < total:
            await self.changed.wait()

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def interrupt(self, run: str, kill: bool) -> list[str]:
        """End the run's commands on every worker, politely or at once; the tasks that had begun."""
        message = {"op": "lightcone_interrupt", "run": run, "kill": kill}
        answers = await self.scheduler.broadcast(msg=message, on_error="ignore")
        return [key for keys in answers.values() for key in keys]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget the runs of a client that is gone, and what their tasks have sent."""
        gone = [run for run, told in self.runs.items() if told["client"] == client]
        for run in gone:
            del self.runs[run]
            scheduler.unsubscribe_topic(topic_of(run), client)
        if scheduler.status is Status.running:  # or its workers end, too
            # Not by connections of their own, which would be in the way of an end that comes now.
            forget = [{"op": "lightcone_forget", "run": run} for run in gone]
            scheduler.send_all({}, dict.fromkeys(scheduler.workers, forget) if gone else {})
            # What is being ended may still send something.
            topics = [client, *map(topic_of, gone)]  # the engine's own messages have the first
            scheduler.loop.call_later(_LAST_WORDS, self._forget, client, topics)
        self._change()

    def _forget(self, client: str, topics: list[str]) -> None:
        """Drop what the engine keeps for ever: a client's topics, and its part in all others."""
        if client in self.scheduler.clients:
            return  # it has connected again
        for topic in topics:
            self._topics.pop(topic, None)
        for topic in list(self._topics):
            self.scheduler.unsubscribe_topic(topic, client)

    @property
    def _topics(self) -> dict[str, Any]:
        # There is no public way to what has been said, nor to drop it.
        topics: dict[str, Any] = getattr(getattr(self.scheduler, "_broker", None), "_topics", {})
        return topics
