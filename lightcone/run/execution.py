"""Running a recipe's command: in its caller's environment, in its container, into its log."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightcone.cluster.keeper_handle import KeeperHandle
from lightcone.cluster.process_table import MARK
from lightcone.cluster.task import Ended, Task
from lightcone.run import environment
from lightcone.run.container import Container
from lightcone.run.log import Log, environment_lines, heading
from lightcone.run.order import Order
from lightcone.run.stream import LineStream

__all__ = ["Execution"]

_TAIL = 20


class Execution:
    """The command of ``order``, run in ``task`` for a run that says ``run`` of itself.

    Raises:
        ContainerError: where it has a container that nothing here can run.
    """

    def __init__(self, task: Task, order: Order, run: Any) -> None:
        self.task = task
        self.order = order
        self.output = order.output
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
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[Ended, list[str]]:
        """Run it to its end; how it ended, and the last lines it printed.

        Args:
            umask: its file mode creation mask.
            gpus: the devices that are its own.
            hold: the descriptors that stay open for as long as anything of it runs.
            meanwhile: called, briefly, while it runs.
        """
        variables = self._environment(gpus)
        log = self.log = Log(self.output.log, umask, self._heading(variables))
        tail: deque[str] = deque(maxlen=_TAIL)

        def tell(lines: list[str]) -> None:
            self.task.emit({"event": "lines", "key": self.order.key, "lines": lines})

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
                grace=self.order.grace,
                sink=sink,
                time_limit=self.output.resources.time_limit,
                hold=held,
                meanwhile=meanwhile,
            )
        stream.finish()
        log.end(ended, self.usage(ended))
        return ended, list(tail)

    def usage(self, ended: Ended) -> dict[str, Any]:
        """What is recorded of it; nothing of a container that is no descendant of its program."""
        if self.task.keeper is not None:
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
        return environment.for_command(self.run, self.order.cpus, gpus, self.output.name, session)

    @contextlib.contextmanager
    def _launched(
        self, variables: dict[str, str], umask: int, hold: list[int]
    ) -> Iterator[tuple[list[str], list[int]]]:
        """The program that runs the recipe and what it holds; its container is gone afterwards."""
        if self.container is None:
            yield environment.shell(self.output.command, variables), hold
            return
        launch = self.container.launch(
            self.output, variables, umask, self.order.scratch, self.order.key
        )
        if launch.commands is None:
            yield launch.argv, hold
            return
        keeper = self.task.keeper = KeeperHandle(launch.commands, variables, self.order.grace)
        with keeper.holding(hold):
            # Held by the keeper alone: the runtime may leave programs of its own behind.
            yield launch.argv, []

    def _heading(self, variables: dict[str, str]) -> str:
        # What every command of the session finds alike is not worth a line of each log.
        before = {**environment.of_caller(self.run), **self.task.commands.variables}
        more = environment_lines(before, {**variables, MARK: self.task.group.mark})
        if self.container is not None:
            more.append(self.container.describe())
        return heading(self.output, self.order.cpus, str(self.run["name"]), more)
