"""A task of a worker: its command, how that is ended, and how it ended."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightcone.cluster.awake import AwakeTimer
from lightcone.cluster.keeper_handle import KeeperHandle
from lightcone.cluster.keys import run_of, topic_of
from lightcone.cluster.processes import CommandGroup, Usage

if TYPE_CHECKING:
    from lightcone.cluster.commands import Commands

__all__ = ["Cause", "Ended", "Task"]


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
        self.keeper: KeeperHandle | None = None
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
        meanwhile: Callable[[], None] | None = None,
    ) -> Ended:
        """Run a command to its end; see :meth:`CommandGroup.start` for the arguments.

        ``time_limit`` is in seconds that this process was awake; past it the command is ended.
        ``meanwhile`` is called, briefly, while the command runs: its end is not seen before.

        Raises:
            OSError: where the program cannot be run.
        """
        begun = time.monotonic()
        timer = None
        if time_limit is not None:
            # First: where no thread can be started any more, no command is left that nobody ends.
            timer = AwakeTimer(time_limit, self.end, Cause.TIME_LIMIT, grace)
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
            if self.keeper is not None:
                self.keeper.started(self.group.pid)
            code = self.group.wait(sink, grace, meanwhile)
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
        if self.keeper is None:
            self.group.end(signal.SIGTERM)
        else:
            self.group.refuse()
            self.keeper.ask()
        timer = threading.Timer(grace, self.group.end, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()
