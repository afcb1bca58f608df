"""The worker's part in a run: the commands that run here, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dask.context import thread_state
from distributed import Worker, WorkerPlugin, get_worker, secede
from distributed.utils import sync

from lightcone.cluster.keys import is_ours
from lightcone.cluster.messages import pack
from lightcone.cluster.meter import Meter
from lightcone.cluster.node import gpus
from lightcone.cluster.task import Cause, Task

__all__ = ["COMMANDS_PLUGIN", "Commands", "current_task"]

COMMANDS_PLUGIN = "lightcone-commands"
# Seconds; nobody sees a line sooner, and a second of instant recipes has hundreds of them.
_GATHERED = 0.05
_EXECUTING = ("executing", "long-running")


class Commands(WorkerPlugin):
    """Follows the engine's word on every task of ours, and ends what is no longer wanted."""

    name = COMMANDS_PLUGIN

    def __init__(
        self,
        grace: float = 10.0,
        bounded_by_threads: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a worker for commands.

        Args:
            grace: seconds between asking a command to end and ending it.
            bounded_by_threads: whether each command takes a thread of the worker, which is what
                bounds them where the worker declares no resources.
            variables: by which a command's own programs find the session.
        """
        self.grace = grace
        self.bounded_by_threads = bounded_by_threads
        self.variables = dict(variables or {})

    def setup(self, worker: Worker) -> None:
        """Called by the engine when the plugin joins a worker."""
        self.worker = worker
        self.tasks: dict[str, Task] = {}
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._interrupted: set[str] = set()
        self._free_gpus = gpus()
        self._meter = Meter()
        self._outbox: list[tuple[str, dict[str, Any]]] = []
        self._outbox_lock = threading.Lock()
        self._next_sending = 0.0
        worker.handlers["lightcone_interrupt"] = self.interrupt
        worker.stream_handlers["lightcone_forget"] = self.forget
        worker.handlers["lightcone_usage"] = self.usage

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Called by the engine, in its event loop, for every change of a task's state."""
        if not is_ours(key):
            return
        if finish == "executing":
            # Before the task's thread runs: what is unwanted from now on is known to it.
            self.tasks[key] = Task(self, key)
        elif start in _EXECUTING and finish not in (*_EXECUTING, "memory"):
            task = self.tasks.get(key)
            if task is not None:
                task.end(Cause.UNWANTED, self.grace)
                if not task.started:
                    del self.tasks[key]

    async def interrupt(self, run: str, kill: bool) -> list[str]:
        """The run's driver wants its commands to end: politely, or at once.

        None of them begins here from now on. Returns the tasks that have begun.
        """
        self._interrupted.add(run)
        begun = []
        for task in list(self.tasks.values()):
            if task.started and task.run == run:
                task.end(Cause.UNWANTED, 0.0 if kill else self.grace)
                begun.append(task.key)
        return begun

    def forget(self, run: str) -> None:
        """The run is gone: its environment is kept no longer than it is of use."""
        self._runs.pop(run, None)
        self._interrupted.discard(run)

    async def usage(self) -> dict[str, Any]:
        """Somebody looks: what the commands use; see :class:`Meter`."""
        # What a container uses is not seen here, as it is no descendant of its command.
        tasks = [each for task in list(self.tasks.values()) for each in (task, *task.parts())]
        shown = {each.key: each.group.pid for each in tasks if each.group.pid and not each.keeper}
        return await asyncio.to_thread(self._meter.read, shown)

    async def teardown(self, worker: Worker) -> None:
        """Called by the engine when the worker closes: end every command, TERM before KILL."""
        for task in list(self.tasks.values()):
            task.end(Cause.UNWANTED, self.grace)
        deadline = time.monotonic() + self.grace + 2.0
        while any(task.started for task in self.tasks.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self._send()

    def describe_run(self, run: str) -> Mapping[str, Any]:
        """What a run has said of itself."""
        told = self._runs.get(run)
        if told is None:
            told = sync(self.worker.loop, self.worker.scheduler.lightcone_run, run=run)
            if told is None:
                raise RuntimeError(f"the run {run} is gone")
            self._runs[run] = told
        return told

    def emit(self, topic: str, message: Mapping[str, Any]) -> None:
        """Send a message with all those that follow it closely: each sending costs as much."""
        with self._outbox_lock:
            self._outbox.append((topic, dict(message)))
            if len(self._outbox) > 1:
                return
        self.worker.loop.add_callback(self._send_soon)

    def _send_soon(self) -> None:
        self.worker.loop.call_at(self._next_sending, self._send)

    def _send(self) -> None:
        self._next_sending = self.worker.loop.time() + _GATHERED
        with self._outbox_lock:
            outbox, self._outbox = self._outbox, []
        for topic in dict.fromkeys(topic for topic, _ in outbox):
            self.worker.log_event(topic, pack(message for to, message in outbox if to == topic))

    def drain(self, run: str, total: int) -> None:
        """Wait until the run's client has passed on ``total`` bytes of output, or is gone.

        Raises:
            OSError: where the scheduler is gone.
        """
        sync(self.worker.loop, self.worker.scheduler.lightcone_drain, run=run, total=total)

    def begin(self, key: str) -> Task:
        """The task whose thread calls this; where it can, it leaves the thread pool."""
        task = self.tasks[key]
        task.started = True
        if task.run in self._interrupted:
            task.end(Cause.UNWANTED, self.grace)
        if not self.bounded_by_threads:
            # Its resources stay held: commands are bounded by what they ask for.
            secede()
        return task

    @contextlib.contextmanager
    def devices(self, count: int) -> Iterator[list[str]]:
        """Devices for one command alone; the engine has seen to it that there are enough."""
        # Removing from a list and adding to it are each atomic.
        taken = [self._free_gpus.pop(0) for _ in range(min(count, len(self._free_gpus)))]
        try:
            yield taken
        finally:
            self._free_gpus += taken

    def finish(self, task: Task) -> None:
        """The task's thread is done, and its last word is not kept waiting."""
        self.worker.loop.add_callback(self._send)
        if self.tasks.get(task.key) is task:
            del self.tasks[task.key]


class current_task:
    """Context manager giving the :class:`Task` in whose thread it is entered."""

    def __enter__(self) -> Task:
        worker = get_worker()
        commands = worker.plugins.get(COMMANDS_PLUGIN)
        if not isinstance(commands, Commands):
            raise RuntimeError("this worker has not been prepared for commands")
        self.task = commands.begin(str(thread_state.key))
        return self.task

    def __exit__(self, *_: object) -> None:
        self.task.commands.finish(self.task)
