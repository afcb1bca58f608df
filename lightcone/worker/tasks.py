"""Tasks and their commands on a worker: how they run and end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dask.context import thread_state
from distributed import Worker, WorkerPlugin, get_worker, secede
from distributed.utils import sync

from lightcone.system.clock import SuspendAwareTimer
from lightcone.system.processes import CommandGroup, Usage
from lightcone.wire.node import visible_gpus
from lightcone.wire.protocol import is_lightcone_key, pack, run_of, topic_of
from lightcone.worker.container_handle import ContainerHandle
from lightcone.worker.meter import Meter

__all__ = ["COMMANDS_PLUGIN", "Cause", "Commands", "CompletedCommand", "Task", "current_task"]


class Cause(StrEnum):
    """Why a command ended."""

    ITSELF = "itself"
    CANCELLED = "cancelled"
    TIME_LIMIT = "time limit"


@dataclass(frozen=True)
class CompletedCommand:
    """How a command ended.

    Attributes:
        code: its exit code, ``-N`` for signal N.
        cause: why it ended.
        seconds: from its start to its end.
        usage: what it used.
    """

    code: int
    cause: Cause
    seconds: float
    usage: Usage


class Task:
    """A task of lightcone's on this worker, from its start to its end.

    Attributes:
        key: its name; the engine does not know that of a subtask.
        engine_key: the engine's name of the task that it is, or is a subtask of.
        run: the run that requested it.
    """

    def __init__(self, commands: Commands, key: str, engine_key: str | None = None) -> None:
        self.commands = commands
        self.key = key
        self.engine_key = engine_key or key
        self.run = run_of(key)
        self.group = CommandGroup(key)
        self.cause = Cause.ITSELF
        self.started = False
        self.container: ContainerHandle | None = None
        self._subtasks: list[Task] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def subtask(self, key: str) -> Iterator[Task]:
        """Add a subtask with its own process group; it ends with this task."""
        subtask = Task(self.commands, key, self.key)
        with self._lock:
            self._subtasks.append(subtask)
            cancelled = self.cancelled
        if cancelled:
            subtask.end(Cause.CANCELLED, 0.0)
        try:
            yield subtask
        finally:
            with self._lock:
                self._subtasks.remove(subtask)

    def subtasks(self) -> list[Task]:
        """Return the running subtasks."""
        with self._lock:
            return list(self._subtasks)

    def describe_run(self) -> Mapping[str, Any]:
        """Return the description of the task's run, requested from the scheduler once."""
        return self.commands.describe_run(self.run)

    @property
    def cancelled(self) -> bool:
        """Whether the task has been cancelled."""
        return self.cause is Cause.CANCELLED

    def emit(self, message: Mapping[str, Any]) -> None:
        """Send a message to the run's driver, in order with this worker's others."""
        self.commands.emit(topic_of(self.run), message)

    def execute(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        umask: int,
        grace: float,
        sink: Callable[[str, bytes], None],
        time_limit: float | None = None,
        hold: Sequence[int] = (),
        merge: bool = True,
        while_running: Callable[[], None] | None = None,
    ) -> CompletedCommand:
        """Run a command to its end; see :meth:`CommandGroup.start` for the arguments.

        ``time_limit`` is in seconds that this process was awake; past it the command is ended.
        ``while_running`` is called, briefly, while the command runs: its end is not seen before.

        Raises:
            OSError: where the program cannot be run.
        """
        started_at = time.monotonic()
        timer = None
        if time_limit is not None:
            # First: where no thread can be started any more, no command is left running.
            timer = SuspendAwareTimer(time_limit, self.end, Cause.TIME_LIMIT, grace)
            timer.start()
        try:
            if not self.group.start(
                argv,
                environment=environment,
                directory=directory,
                umask=umask,
                hold=hold,
                merge=merge,
            ):
                return CompletedCommand(-signal.SIGTERM, self.cause, 0.0, Usage())
            if self.container is not None:
                self.container.started(self.group.pid)
            code = self.group.wait(sink, grace, while_running)
        finally:
            if timer is not None:
                timer.cancel()
        return CompletedCommand(code, self.cause, time.monotonic() - started_at, self.group.usage)

    def end(self, cause: Cause, grace: float) -> None:
        """Send TERM to the command, and KILL after ``grace`` seconds (0: at once)."""
        with self._lock:
            if self.cause is Cause.ITSELF:
                self.cause = cause
        for subtask in self.subtasks():
            subtask.end(cause, grace)
        if grace <= 0:
            self.group.end(signal.SIGKILL)
            return
        if self.container is None:
            self.group.end(signal.SIGTERM)
        else:
            self.group.prevent_start()
            self.container.terminate()
        timer = threading.Timer(grace, self.group.end, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()


COMMANDS_PLUGIN = "lightcone-commands"

# Seconds; no viewer needs a line sooner, and a second of instant recipes has hundreds of them.
_SEND_INTERVAL = 0.05

_EXECUTING = ("executing", "long-running")


class Commands(WorkerPlugin):
    """Tracks lightcone's tasks on a worker, and ends cancelled ones."""

    name = COMMANDS_PLUGIN

    def __init__(
        self,
        grace: float = 10.0,
        bounded_by_threads: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a worker for commands.

        Args:
            grace: seconds between asking a command to end and killing it.
            bounded_by_threads: whether each command takes a thread of the worker, which is what
                bounds them where the worker declares no resources.
            variables: by which a command's own programs find the session.
        """
        self.grace = grace
        self.bounded_by_threads = bounded_by_threads
        self.variables = dict(variables or {})

    def setup(self, worker: Worker) -> None:
        """Set the plugin up; the engine calls this once per worker."""
        self.worker = worker
        self.tasks: dict[str, Task] = {}
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._interrupted: set[str] = set()
        self._free_gpus = visible_gpus()
        self._meter = Meter()
        self._outbox: list[tuple[str, dict[str, Any]]] = []
        self._outbox_lock = threading.Lock()
        self._next_sending = 0.0
        worker.handlers["lightcone_interrupt"] = self.interrupt
        worker.stream_handlers["lightcone_forget"] = self.forget
        worker.handlers["lightcone_usage"] = self.usage

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Track a task; the engine calls this, in its event loop, on every transition."""
        if not is_lightcone_key(key):
            return
        if finish == "executing":
            # Before the task's thread runs, so that a cancellation from now on reaches it.
            self.tasks[key] = Task(self, key)
        elif start in _EXECUTING and finish not in (*_EXECUTING, "memory"):
            task = self.tasks.get(key)
            if task is not None:
                task.end(Cause.CANCELLED, self.grace)
                if not task.started:
                    del self.tasks[key]

    async def interrupt(self, run: str, kill: bool) -> list[str]:
        """Terminate, or kill, a run's commands; return the tasks that have started.

        No command of the run starts here from now on.
        """
        self._interrupted.add(run)
        started = []
        for task in list(self.tasks.values()):
            if task.started and task.run == run:
                task.end(Cause.CANCELLED, 0.0 if kill else self.grace)
                started.append(task.key)
        return started

    def forget(self, run: str) -> None:
        """Forget a run that is gone, with its environment."""
        self._runs.pop(run, None)
        self._interrupted.discard(run)

    async def usage(self) -> dict[str, Any]:
        """Measure what the commands use; see :class:`Meter`."""
        # What a container uses is not seen here, as it is no descendant of its command.
        tasks = [each for task in list(self.tasks.values()) for each in (task, *task.subtasks())]
        pids = {each.key: each.group.pid for each in tasks if each.group.pid and not each.container}
        return await asyncio.to_thread(self._meter.read, pids)

    async def teardown(self, worker: Worker) -> None:
        """End every command, as the worker closes: TERM before KILL."""
        for task in list(self.tasks.values()):
            task.end(Cause.CANCELLED, self.grace)
        deadline = time.monotonic() + self.grace + 2.0
        while any(task.started for task in self.tasks.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self._send()

    def describe_run(self, run: str) -> Mapping[str, Any]:
        """Return a run's description, from memory or from the scheduler."""
        description = self._runs.get(run)
        if description is None:
            description = sync(self.worker.loop, self.worker.scheduler.lightcone_run, run=run)
            if description is None:
                raise RuntimeError(f"the run {run} is gone")
            self._runs[run] = description
        return description

    def emit(self, topic: str, message: Mapping[str, Any]) -> None:
        """Queue a message, to send it together with the next ones."""
        with self._outbox_lock:
            self._outbox.append((topic, dict(message)))
            if len(self._outbox) > 1:
                return
        self.worker.loop.add_callback(self._send_soon)

    def _send_soon(self) -> None:
        self.worker.loop.call_at(self._next_sending, self._send)

    def _send(self) -> None:
        self._next_sending = self.worker.loop.time() + _SEND_INTERVAL
        with self._outbox_lock:
            outbox, self._outbox = self._outbox, []
        for topic in dict.fromkeys(topic for topic, _ in outbox):
            self.worker.log_event(topic, pack(message for to, message in outbox if to == topic))

    def drain(self, run: str, total: int) -> None:
        """Wait until the run's client has passed on ``total`` bytes, or is gone.

        Raises:
            OSError: where the scheduler is gone.
        """
        sync(self.worker.loop, self.worker.scheduler.lightcone_drain, run=run, total=total)

    def begin(self, key: str) -> Task:
        """Start the calling thread's task, leaving the thread pool where possible."""
        task = self.tasks[key]
        task.started = True
        if task.run in self._interrupted:
            task.end(Cause.CANCELLED, self.grace)
        if not self.bounded_by_threads:
            # Its resources stay held: commands are bounded by what they ask for.
            secede()
        return task

    @contextlib.contextmanager
    def devices(self, count: int) -> Iterator[list[str]]:
        """Reserve devices for one command; the engine ensures that there are enough."""
        # Removing from a list and adding to it are each atomic.
        taken = [self._free_gpus.pop(0) for _ in range(min(count, len(self._free_gpus)))]
        try:
            yield taken
        finally:
            self._free_gpus += taken

    def finish(self, task: Task) -> None:
        """Drop a task whose thread is done, and send its last messages."""
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
