"""On a worker: running one command as it is, for a caller who sees what it prints."""

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
    """Run the command of ``request`` and tell its caller what it prints."""
    with current_task() as task:
        told: dict[str, Any]
        try:
            run = task.describe_run()
            _logger.info("%s: started %s", request.caller, shlex.join(request.argv))
            name = shlex.join(request.argv)[:_NAME_LIMIT]
            begun = {"event": "start", "key": task.key, "task": task.within, "name": name}
            task.emit(begun)
            with task.commands.devices(request.gpus) as gpus:
                ended = task.execute(
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
            told = {"code": ended.code, "unwanted": ended.cause is Cause.UNWANTED}
        except FileNotFoundError as error:
            told = {"code": _NOT_FOUND, "error": f"{error.strerror}: {error.filename}"}
        except OSError as error:
            told = {"code": _NOT_EXECUTABLE, "error": f"{error.strerror}: {error.filename}"}
        _logger.info("%s: exit code %s", request.caller, told["code"])
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
        if self.sent - self.asked >= WINDOW:
            self.asked = self.sent
            self.task.commands.drain(self.task.run, self.sent - WINDOW // 2)
