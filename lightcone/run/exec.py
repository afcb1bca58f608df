"""One command on the cluster, as if it had been run here."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from pathlib import Path
from queue import Empty
from typing import Any

from lightcone.analysis.output import Resources
from lightcone.cluster.commands import current_task
from lightcone.cluster.task import Cause, Task
from lightcone.context import Context
from lightcone.errors import INTERRUPTED, SessionError, UsageError
from lightcone.run import environment
from lightcone.run.link import Link
from lightcone.run.order import ExecOrder
from lightcone.run.share import Refused, fit
from lightcone.session.connection import Connection

__all__ = ["execute", "run_command"]

_AHEAD_OF_RECIPES = 100
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_MARGIN = 10.0
_WINDOW = 4 << 20
_NAME_LIMIT = 200
_logger = logging.getLogger("lightcone")


def execute(order: ExecOrder) -> None:
    """On a worker: run the command of ``order`` and tell its caller what it prints."""
    with current_task() as task:
        told: dict[str, Any]
        try:
            run = task.describe_run()
            _logger.info("%s: started %s", order.caller, shlex.join(order.argv))
            name = shlex.join(order.argv)[:_NAME_LIMIT]
            begun = {"event": "start", "key": task.key, "task": task.within, "name": name}
            task.emit(begun)
            with task.commands.devices(order.gpus) as gpus:
                ended = task.execute(
                    order.argv,
                    environment=environment.for_command(
                        run, order.cpus, gpus, None, task.commands.variables
                    ),
                    directory=Path(os.fsdecode(run["directory"])),
                    umask=int(run["umask"]),
                    grace=order.grace,
                    sink=_Sender(task).send,
                    merge=False,
                )
            told = {"code": ended.code, "unwanted": ended.cause is Cause.UNWANTED}
        except FileNotFoundError as error:
            told = {"code": _NOT_FOUND, "error": f"{error.strerror}: {error.filename}"}
        except OSError as error:
            told = {"code": _NOT_EXECUTABLE, "error": f"{error.strerror}: {error.filename}"}
        _logger.info("%s: exit code %s", order.caller, told["code"])
        task.emit({"event": "done", "key": task.key, **told})


class _Sender:
    """Sends what a command prints, no further ahead of its reader than a window.

    Nothing of it may be left out, and a command that prints faster than it is read would else fill
    the memory of the worker and the scheduler, which others use too.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.sent = 0
        self.asked = 0

    def send(self, name: str, data: bytes) -> None:
        """Send a piece of the stream ``name``."""
        message = {"event": "data", "key": self.task.key, "stream": name, "data": data}
        self.task.emit(message)
        self.sent += len(data)
        if self.sent - self.asked >= _WINDOW:
            self.asked = self.sent
            self.task.commands.drain(self.task.run, self.sent - _WINDOW // 2)


def run_command(
    context: Context, connection: Connection, argv: tuple[str, ...], asked: Resources
) -> int:
    """Run ``argv`` on the cluster, its output live, and return its exit code, 128 + N for signal N.

    An interrupt asks it to end and waits for that, a second one ends it; the exit code is then 130.

    Raises:
        UsageError: where no worker has what is asked for.
        SessionError: where the cluster is lost on the way.
    """
    given = fit(asked, connection.resources, clamp=False)
    if isinstance(given, Refused):
        raise UsageError(f"The command cannot run: {given.why}.")
    link = Link(connection, "lc exec")
    interrupts, started = 0, False
    received = confirmed = 0
    deadline: float | None = None
    with link.open():
        order = ExecOrder(link.name, argv, given.cpus, asked.gpus, context.settings.grace)
        future = link.submit(
            execute, order, link.key("exec"), given.resources, priority=_AHEAD_OF_RECIPES
        )
        while True:
            try:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                what, value = link.events.get(timeout=left)
            except Empty:
                return INTERRUPTED
            if what == "interrupt":
                interrupts += 1
                begun = link.interrupt(kill=interrupts > 1)
                if not (started or begun):
                    future.cancel()
                deadline = time.monotonic() + context.settings.grace + _MARGIN
            elif what == "lost" and interrupts:
                return INTERRUPTED
            elif what in ("end", "lost"):
                reason = value[1] if what == "lost" else value or "its session ended"
                raise SessionError(f"The cluster lost the command ({reason}): run it again.")
            for message in value if what == "messages" else ():
                if message["event"] == "start":
                    started = True
                elif message["event"] == "data":
                    stream = sys.stdout if message["stream"] == "out" else sys.stderr
                    stream.buffer.write(message["data"])
                    stream.buffer.flush()
                    received += len(message["data"])
                    if received - confirmed >= _WINDOW // 4:
                        confirmed = received
                        link.received(received)
                elif message["event"] == "done":
                    if message.get("error"):
                        print(f"lc: {message['error']}", file=sys.stderr)
                    code = int(message["code"])
                    if interrupts:
                        return INTERRUPTED
                    if message.get("unwanted"):
                        raise SessionError("The command was ended with its worker: run it again.")
                    return 128 - code if code < 0 else code
