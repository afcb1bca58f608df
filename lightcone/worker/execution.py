"""Runs a recipe's command: in its caller's environment, its container, into its log."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightcone.system.processes import MARK
from lightcone.wire.requests import MakeRequest
from lightcone.worker.container_handle import ContainerHandle
from lightcone.worker.containers.container import Container
from lightcone.worker.environment import (
    build_environment,
    caller_environment,
    one_argument,
    shell_arguments,
)
from lightcone.worker.log import Log, environment_lines, heading
from lightcone.worker.observation import Observation, find_tracer, why_not_observed
from lightcone.worker.tasks import CompletedCommand, Task

__all__ = ["Execution", "LineStream"]

_MAX_LINE = 4096

# A recipe that prints faster fills its log; the terminal, and the scheduler between, are spared.
_BYTES_PER_SECOND = 200_000.0


class LineStream:
    """Splits bytes into lines and forwards them, at a limited rate.

    Args:
        on_lines: called with the whole lines of each piece.
        tail: gets every line, forwarded or not.
    """

    def __init__(self, on_lines: Callable[[list[str]], None], tail: deque[str]) -> None:
        self._on_lines = on_lines
        self._tail = tail
        self._rest = b""
        self._budget = _BYTES_PER_SECOND
        self._last = time.monotonic()
        self._hidden = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the output."""
        pieces = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = pieces.pop()
        if len(self._rest) > _MAX_LINE:
            pieces.append(self._rest)
            self._rest = b""
        self._forward([_text(piece) for piece in pieces], len(data))

    def finish(self) -> None:
        """End the output; its unfinished last line is forwarded too."""
        rest, self._rest = self._rest, b""
        self._budget = _BYTES_PER_SECOND
        self._forward([_text(rest)] if rest else [], len(rest))

    def _forward(self, lines: list[str], size: int) -> None:
        self._tail.extend(lines)
        now = time.monotonic()
        refill = (now - self._last) * _BYTES_PER_SECOND
        self._budget, self._last = min(self._budget + refill, _BYTES_PER_SECOND), now
        if size > self._budget:
            self._hidden += len(lines)
            return
        self._budget -= size
        if self._hidden:
            lines = [f"[{self._hidden} lines not shown: they are in the log]", *lines]
            self._hidden = 0
        if lines:
            self._on_lines(lines)


def _text(line: bytes) -> str:
    # The part after the last carriage return, which progress bars use to overwrite a line.
    visible = line.rstrip(b"\r").rpartition(b"\r")[2]
    return visible[:_MAX_LINE].decode("utf-8", "replace")


# A claim that is taken removes unfinished files of this form.
_COMMAND_FILE = ".command.new"
_TAIL = 20


class Execution:
    """The execution of the command of ``request`` in ``task``.

    Args:
        task: the task that the command is part of.
        request: the request to make the output.
        run: the description of the run.

    Attributes:
        remarks: lines for the heading of the log.

    Raises:
        ContainerError: where it has a container that no runtime here can run.
    """

    def __init__(self, task: Task, request: MakeRequest, run: Any) -> None:
        self.task = task
        self.request = request
        self.output = request.output
        self.run = run
        self.log: Log | None = None
        self.remarks: Sequence[str] = ()
        self.container: Container | None = None
        self.observation: Observation | None = None
        if self.output.container is not None:
            self.container = Container.choose(self.output, self._environment(()))

    def execute(
        self,
        umask: int,
        gpus: Sequence[str],
        hold: list[int],
        while_running: Callable[[], None] | None = None,
    ) -> tuple[CompletedCommand, list[str]]:
        """Run the command; return how it ended and its last lines.

        Args:
            umask: its file mode creation mask.
            gpus: the devices that are its own.
            hold: the descriptors that stay open for as long as any of its processes runs.
            while_running: called, briefly, while it runs.
        """
        variables = self._environment(gpus)
        log = self.log = Log(self.output.log, umask, self._heading(variables))
        tail: deque[str] = deque(maxlen=_TAIL)

        def on_lines(lines: list[str]) -> None:
            self.task.emit({"event": "lines", "key": self.request.key, "lines": lines})

        stream = LineStream(on_lines, tail)

        def sink(_: str, data: bytes) -> None:
            log.write(data)
            stream.feed(data)

        with self._launched(variables, umask, hold) as (argv, held):
            completed = self.task.execute(
                self._observed(argv, variables),
                environment=variables,
                directory=self.output.root,
                umask=umask,
                grace=self.request.grace,
                sink=sink,
                time_limit=self.output.resources.time_limit,
                hold=held,
                while_running=while_running,
            )
        if self.observation is not None:
            self.observation.finish()
        stream.finish()
        log.end(completed, self.usage(completed))
        return completed, list(tail)

    def usage(self, completed: CompletedCommand) -> dict[str, Any]:
        """Return the usage to record; empty for a container of podman or docker."""
        if self.task.container is not None:
            return {}
        return {
            "cpu_seconds": round(completed.usage.cpu_seconds, 3),
            "peak_memory": completed.usage.peak_memory,
        }

    def add(self, line: str) -> None:
        """Append a line to the log, if there is one yet."""
        if self.log is not None:
            self.log.add(line)

    def close(self) -> None:
        """Close the log, and end the observation."""
        if self.observation is not None:
            self.observation.finish()
        if self.log is not None:
            self.log.close()

    def _environment(self, gpus: Sequence[str]) -> dict[str, str]:
        session = self.task.commands.variables
        return build_environment(self.run, self.request.cpus, gpus, self.output.name, session)

    def _observed(self, argv: list[str], variables: dict[str, str]) -> list[str]:
        """Return ``argv`` so that it is observed, if that is requested and possible."""
        # The program in a container is no descendant of the command, or runs as another user.
        if not self.request.observe or self.container is not None:
            return argv
        path = variables.get("PATH")
        reason = why_not_observed(path)
        tracer = find_tracer(path)
        if reason or tracer is None:
            text = f"recipes are not observed on {socket.gethostname()}, because {reason}"
            self.task.emit({"event": "unobserved", "key": self.request.key, "text": text})
            self.add(text)
            return argv
        self.observation = Observation(tracer, self.output.root)
        return self.observation.arguments(argv)

    @contextlib.contextmanager
    def _launched(
        self, variables: dict[str, str], umask: int, hold: list[int]
    ) -> Iterator[tuple[list[str], list[int]]]:
        """Yield the command line and descriptors; end the container on exit."""
        file = self.output.state_dir / _COMMAND_FILE
        if self.container is None:
            with one_argument(self.output.shell_command, file) as command:
                yield shell_arguments(command, variables), hold
            return
        # Not every shell of an image can read a file by itself.
        with one_argument(self.output.shell_command, file, "cat") as command:
            launch = self.container.launch(
                self.output, command, variables, umask, self.request.scratch, self.request.key
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
        # Variables that every command of the session has are not worth a line of each log.
        before = {**caller_environment(self.run), **self.task.commands.variables}
        more = environment_lines(before, {**variables, MARK: self.task.group.mark})
        if self.container is not None:
            more.append(self.container.describe())
        more += self.remarks
        return heading(self.output, self.request.cpus, str(self.run["name"]), more)
