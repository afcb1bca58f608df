"""Startup of the engine's own programs: settings, clock, imports, fatal errors."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
from distributed.config import initialize_logging
from tornado.ioloop import IOLoop

from lightcone.engine.command_lines import SETTINGS_VARIABLE, STATE_VARIABLE
from lightcone.system.locks import Lock

__all__ = [
    "abort_program",
    "import_task_modules",
    "use_our_settings",
    "wait_for_file",
]

_SPAWN_DEADLINE = 60.0
_LOCK_CHECK_INTERVAL = 0.25
# Named, not imported: what is here knows nothing of what it is used for.
_TASK_MODULES = (
    "lightcone.state.readers",
    "lightcone.wire.protocol",
    "lightcone.worker.batch",
    "lightcone.worker.exec_task",
)
_EPOCH = time.time() - time.monotonic()


def use_our_settings() -> Path:
    """Replace every engine setting, the user's included, by the session's.

    The clock becomes a steady one, too.

    Returns the session's state directory.
    """
    _use_steady_clock()
    _avoid_uname_process()
    dask.config.refresh(paths=[os.environ[SETTINGS_VARIABLE]], env={})
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
    initialize_logging(dask.config.config)
    return Path(os.environ[STATE_VARIABLE])


def _use_steady_clock() -> None:
    """Make the engine in this process use a monotonic clock.

    As it comes it waits until a time of day. When the clock is put back by a day, nothing that it
    does at intervals is done for a day, and what it was about to send may wait as long.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "distributed" and getattr(module, "time", None) is time.time:
            module.time = _steady_time  # type: ignore[attr-defined]
    IOLoop.time = lambda self: _steady_time()  # type: ignore[method-assign]


def _avoid_uname_process() -> None:
    """Keep the engine from starting ``uname`` to describe this machine."""
    vars(platform.uname()).setdefault("processor", "")  # else it is asked of 'uname -p'


def _steady_time() -> float:
    return time.monotonic() + _EPOCH


def import_task_modules() -> None:
    """Import the modules that our tasks need, before the tasks come.

    When they come, the package's files may be those of another version, or gone.
    """
    for name in _TASK_MODULES:
        importlib.import_module(name)


def wait_for_file(path: Path, locks: Sequence[str] = ()) -> dict[str, Any]:
    """Wait for a file, and return the JSON object in it.

    A program may be up before the file is written. The wait ends once no process holds any of the
    ``locks`` beside the file, if there are any.
    """
    deadline = time.monotonic() + _SPAWN_DEADLINE
    next_check = time.monotonic() + _LOCK_CHECK_INTERVAL
    while True:
        try:
            loaded: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
        else:
            return loaded
        if locks and time.monotonic() > next_check:
            next_check = time.monotonic() + _LOCK_CHECK_INTERVAL
            if all(Lock.is_free(path.with_name(name)) for name in locks):
                raise SystemExit("Whoever was starting this session has left.")
        time.sleep(0.005)


def abort_program(message: str) -> None:
    """End this program at once with a traceback in its log.

    The engine logs an exception in a preload and goes on without it, which would leave a program
    that looks alive and serves nobody.
    """
    logging.getLogger("lightcone").exception(message)
    logging.shutdown()
    os._exit(3)
