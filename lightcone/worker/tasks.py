"""The worker's part in a run: the commands that run here, and how they are ended."""

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

__all__ = ["COMMANDS_PLUGIN", "Cause", "Commands", "Ended", "Task", "current_task"]


class Cause(StrEnum):
    """Why a command ended."""

    ITSELF = "itself"
    UNWANTED = "unwanted"
    TIME_LIMIT = "time limit"


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, ``-N`` for signal N.
        cause: whose doing it was.
        seconds: from its start to its end.
        usage: what it used.
    """

    code: int
    cause: Cause
    seconds: float
    usage: Usage


class Task:
    """A task of ours on this worker: from the moment the engine begins it until it is over.

    Attributes:
        key: its name; that of a part is not known to the engine.
        within: the engine's name of the task that it is, or is a part of.
        run: the run that wants it.
    """

    def __init__(self, commands: Commands, key: str, within: str | None = None) -> None:
        self.commands = commands
        self.key = key
        self.within = within or key
        self.run = run_of(key)
        self.group = CommandGroup(key)
        self.cause = Cause.ITSELF
        self.started = False
        self.container: ContainerHandle | None = None
        self._parts: list[Task] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def part(self, key: str) -> Iterator[Task]:
        """One of several commands of this task, with a group of its own; ended with the task."""
        part = Task(self.commands, key, self.key)
        with self._lock:
            self._parts.append(part)
            unwanted = self.unwanted
        if unwanted:
            part.end(Cause.UNWANTED, 0.0)
        try:
            yield part
        finally:
            with self._lock:
                self._parts.remove(part)

    def parts(self) -> list[Task]:
        """The parts of it that run."""
        with self._lock:
            return list(self._parts)

    def describe_run(self) -> Mapping[str, Any]:
        """What the run that wants this task has said of itself; asked of the scheduler once."""
        return self.commands.describe_run(self.run)

    @property
    def unwanted(self) -> bool:
        """Whether nobody wants this task any more."""
        return self.cause is Cause.UNWANTED

    def emit(self, message: Mapping[str, Any]) -> None:
        """Send a message to the run's driver, in order with everything else sent from here."""
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
    ) -> Ended:
        """Run a command to its end; see :meth:`CommandGroup.start` for the arguments.

        ``time_limit`` is in seconds that this process was awake; past it the command is ended.
        ``while_running`` is called, briefly, while the command runs: its end is not seen before.

        Raises:
            OSError: where the program cannot be run.
        """
        begun = time.monotonic()
        timer = None
        if time_limit is not None:
            # First: where no thread can be started any more, no command is left that nobody ends.
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
                return Ended(-signal.SIGTERM, self.cause, 0.0, Usage())
            if self.container is not None:
                self.container.started(self.group.pid)
            code = self.group.wait(sink, grace, while_running)
        finally:
            if timer is not None:
                timer.cancel()
        return Ended(code, self.cause, time.monotonic() - begun, self.group.usage)

    def end(self, cause: Cause, grace: float) -> None:
        """Ask the command to end, and end it after ``grace`` seconds (0: at once)."""
        with self._lock:
            if self.cause is Cause.ITSELF:
                self.cause = cause
        for part in self.parts():
            part.end(cause, grace)
        if grace <= 0:
            self.group.end(signal.SIGKILL)
            return
        if self.container is None:
            self.group.end(signal.SIGTERM)
        else:
            self.group.prevent_start()
            self.container.ask()
        timer = threading.Timer(grace, self.group.end, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()


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
        self._free_gpus = visible_gpus()
        self._meter = Meter()
        self._outbox: list[tuple[str, dict[str, Any]]] = []
        self._outbox_lock = threading.Lock()
        self._next_sending = 0.0
        worker.handlers["lightcone_interrupt"] = self.interrupt
        worker.stream_handlers["lightcone_forget"] = self.forget
        worker.handlers["lightcone_usage"] = self.usage

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Called by the engine, in its event loop, for every change of a task's state."""
        if not is_lightcone_key(key):
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
        shown = {
            each.key: each.group.pid for each in tasks if each.group.pid and not each.container
        }
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
