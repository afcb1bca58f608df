"""Inside the engine's own programs: our settings and nothing else's."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import dask
from distributed.config import initialize_logging

from lightcone.cluster.command import SETTINGS_VARIABLE, STATE_VARIABLE

__all__ = ["fail", "instructions", "use_our_settings"]

_SPAWN_DEADLINE = 60.0


def use_our_settings() -> Path:
    """Drop every setting read so far, the user's files and variables included, for the session's.

    Returns the session's state directory.
    """
    dask.config.refresh(paths=[os.environ[SETTINGS_VARIABLE]], env={})
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
    initialize_logging(dask.config.config)
    return Path(os.environ[STATE_VARIABLE])


def instructions(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, waited for: a program may be up before it is written."""
    deadline = time.monotonic() + _SPAWN_DEADLINE
    while True:
        try:
            loaded: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
        else:
            return loaded
        time.sleep(0.005)


def fail(what: str) -> None:
    """End this program at once with a traceback in its log.

    The engine logs an exception in a preload and goes on without it, which would leave a program
    that looks alive and serves nobody.
    """
    logging.getLogger("lightcone").exception(what)
    logging.shutdown()
    os._exit(3)
