"""Running a recipe's command: in its caller's environment, in its container, into its log."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightcone.system.processes import MARK
from lightcone.wire.requests import MakeRequest
from lightcone.worker.container_handle import ContainerHandle
from lightcone.worker.containers.container import Container
from lightcone.worker.environment import build_environment, caller_environment, shell_arguments
from lightcone.worker.log import Log, environment_lines, heading
from lightcone.worker.tasks import Ended, Task

__all__ = ["Execution", "LineStream"]

_LONGEST = 4096

# A recipe that prints faster fills its log; the terminal, and the scheduler between, are spared.
_BYTES_PER_SECOND = 200_000.0


class LineStream:
    """Cuts bytes into lines and passes them on, keeping the last ones.

    Args:
        tell: gets the whole lines of each piece.
        tail: gets every line, shown or not.
    """

    def __init__(self, tell: Callable[[list[str]], None], tail: deque[str]) -> None:
        self._tell = tell
        self._tail = tail
        self._rest = b""
        self._budget = _BYTES_PER_SECOND
        self._last = time.monotonic()
        self._hidden = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the output."""
        pieces = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = pieces.pop()
        if len(self._rest) > _LONGEST:
            pieces.append(self._rest)
            self._rest = b""
        self._pass_on([_text(piece) for piece in pieces], len(data))

    def finish(self) -> None:
        """The output has ended; what is left is a line too."""
        rest, self._rest = self._rest, b""
        self._budget = _BYTES_PER_SECOND
        self._pass_on([_text(rest)] if rest else [], len(rest))

    def _pass_on(self, lines: list[str], size: int) -> None:
        self._tail.extend(lines)
        now = time.monotonic()
        earned = (now - self._last) * _BYTES_PER_SECOND
        self._budget, self._last = min(self._budget + earned, _BYTES_PER_SECOND), now
        if size > self._budget:
            self._hidden += len(lines)
            return
        self._budget -= size
        if self._hidden:
            lines = [f"[{self._hidden} lines not shown: they are in the log]", *lines]
            self._hidden = 0
        if lines:
            self._tell(lines)


def _text(line: bytes) -> str:
    # Of a line that was drawn over, as progress bars do, what was to be seen last.
    drawn = line.rstrip(b"\r").rpartition(b"\r")[2]
    return drawn[:_LONGEST].decode("utf-8", "replace")


_TAIL = 20


class Execution:
    """The command of ``request``, run in ``task`` for a run that says ``run`` of itself.

    Raises:
        ContainerError: where it has a container that nothing here can run.
    """

    def __init__(self, task: Task, request: MakeRequest, run: Any) -> None:
        self.task = task
        self.request = request
        self.output = request.output
        self.run = run
        self.log: Log | None = None
        self.container: Container | None = None
        if self.output.container is not None:
            self.container = Container.choose(self.output, self._environment(()))

    def execute(
        self,
        umask: int,
        gpus: Sequence[str],
        hold: list[int],
        while_running: Callable[[], None] | None = None,
    ) -> tuple[Ended, list[str]]:
        """Run it to its end; how it ended, and the last lines it printed.

        Args:
            umask: its file mode creation mask.
            gpus: the devices that are its own.
            hold: the descriptors that stay open for as long as anything of it runs.
            while_running: called, briefly, while it runs.
        """
        variables = self._environment(gpus)
        log = self.log = Log(self.output.log, umask, self._heading(variables))
        tail: deque[str] = deque(maxlen=_TAIL)

        def tell(lines: list[str]) -> None:
            self.task.emit({"event": "lines", "key": self.request.key, "lines": lines})

        stream = LineStream(tell, tail)

        def sink(_: str, data: bytes) -> None:
            log.write(data)
            stream.feed(data)

        with self._launched(variables, umask, hold) as (argv, held):
            ended = self.task.execute(
                argv,
                environment=variables,
                directory=self.output.root,
                umask=umask,
                grace=self.request.grace,
                sink=sink,
                time_limit=self.output.resources.time_limit,
                hold=held,
                while_running=while_running,
            )
        stream.finish()
        log.end(ended, self.usage(ended))
        return ended, list(tail)

    def usage(self, ended: Ended) -> dict[str, Any]:
        """What is recorded of it; nothing of a container that is no descendant of its program."""
        if self.task.container is not None:
            return {}
        return {
            "cpu_seconds": round(ended.usage.cpu_seconds, 3),
            "peak_memory": ended.usage.peak_memory,
        }

    def add(self, line: str) -> None:
        """Add a line to its log, if it has come to have one."""
        if self.log is not None:
            self.log.add(line)

    def close(self) -> None:
        """Nothing more is added."""
        if self.log is not None:
            self.log.close()

    def _environment(self, gpus: Sequence[str]) -> dict[str, str]:
        session = self.task.commands.variables
        return build_environment(self.run, self.request.cpus, gpus, self.output.name, session)

    @contextlib.contextmanager
    def _launched(
        self, variables: dict[str, str], umask: int, hold: list[int]
    ) -> Iterator[tuple[list[str], list[int]]]:
        """The program that runs the recipe and what it holds; its container is gone afterwards."""
        if self.container is None:
            yield shell_arguments(self.output.command, variables), hold
            return
        launch = self.container.launch(
            self.output, variables, umask, self.request.scratch, self.request.key
        )
        if launch.commands is None:
            yield launch.argv, hold
            return
        handle = self.task.container = ContainerHandle(
            launch.commands, variables, self.request.grace
        )
        with handle.holding(hold):
            # Held by the supervisor alone: the runtime may leave programs of its own behind.
            yield launch.argv, []

    def _heading(self, variables: dict[str, str]) -> str:
        # What every command of the session finds alike is not worth a line of each log.
        before = {**caller_environment(self.run), **self.task.commands.variables}
        more = environment_lines(before, {**variables, MARK: self.task.group.mark})
        if self.container is not None:
            more.append(self.container.describe())
        return heading(self.output, self.request.cpus, str(self.run["name"]), more)
