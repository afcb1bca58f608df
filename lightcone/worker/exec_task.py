"""Runs one command of ``lc exec`` on a worker."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Any

from lightcone.wire.requests import WINDOW, ExecRequest
from lightcone.worker.environment import build_environment
from lightcone.worker.tasks import Cause, Task, current_task

__all__ = ["execute"]

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_NAME_LIMIT = 200
_logger = logging.getLogger("lightcone")


def execute(request: ExecRequest) -> None:
    """Run a command, and send its output and exit code to the caller."""
    with current_task() as task:
        report: dict[str, Any]
        try:
            run = task.describe_run()
            _logger.info("%s: started %s", request.caller, shlex.join(request.argv))
            name = shlex.join(request.argv)[:_NAME_LIMIT]
            start = {"event": "start", "key": task.key, "task": task.engine_key, "name": name}
            task.emit(start)
            with task.commands.devices(request.gpus) as gpus:
                completed = task.execute(
                    request.argv,
                    environment=build_environment(
                        run, request.cpus, gpus, None, task.commands.variables
                    ),
                    directory=Path(os.fsdecode(run["directory"])),
                    umask=int(run["umask"]),
                    grace=request.grace,
                    sink=_Sender(task).send,
                    merge=False,
                )
            report = {"code": completed.code, "unwanted": completed.cause is Cause.CANCELLED}
        except FileNotFoundError as error:
            report = {"code": _NOT_FOUND, "error": f"{error.strerror}: {error.filename}"}
        except OSError as error:
            report = {"code": _NOT_EXECUTABLE, "error": f"{error.strerror}: {error.filename}"}
        _logger.info("%s: exit code %s", request.caller, report["code"])
        task.emit({"event": "done", "key": task.key, **report})


class _Sender:
    """Sends a command's output, no further ahead of its reader than a window.

    Nothing of it may be left out, and a command that prints faster than it is read would else fill
    the memory of the worker and the scheduler, which other runs use too.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.sent = 0
        self.drained = 0

    def send(self, name: str, data: bytes) -> None:
        """Send a piece of the stream ``name``."""
        message = {"event": "data", "key": self.task.key, "stream": name, "data": data}
        self.task.emit(message)
        self.sent += len(data)
        if self.sent - self.drained >= WINDOW:
            self.drained = self.sent
            self.task.commands.drain(self.task.run, self.sent - WINDOW // 2)
