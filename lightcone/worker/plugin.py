"""The worker's preload: the resources of its node, and the commands plugin.

Imported by the engine's own worker program (``--preload``) before it looks for its scheduler.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from pathlib import Path
from types import FrameType

import dask
from distributed import Status, Worker
from distributed.system import MEMORY_LIMIT

from lightcone.engine.command_lines import MEMORY_VARIABLE, client_variables
from lightcone.engine.startup import (
    abort_program,
    import_task_modules,
    use_our_settings,
    wait_for_file,
)
from lightcone.system.interpreter import raise_open_files_limit
from lightcone.system.locks import Lock
from lightcone.wire.node import visible_gpus
from lightcone.wire.protocol import PROTOCOL, PYTHON
from lightcone.worker.tasks import COMMANDS_PLUGIN, Commands

__all__ = ["dask_setup"]

_state = use_our_settings()
_instructions = wait_for_file(_state / "spawn.json", ("spawn.lock", "owner.lock"))
if (_instructions["protocol"], _instructions["python"]) != (PROTOCOL, PYTHON):
    # A worker that is restarted after an upgrade would not understand the scheduler.
    raise SystemExit("This session is of another version of lightcone, or of Python: end it.")
raise_open_files_limit()
import_task_modules()  # while the scheduler is coming up
# The engine's own wait for this file looks ten times a second.
_session_record = wait_for_file(_state / "session.json")
if "listen" in _instructions and Lock.is_free(_state / "owner.lock"):
    raise SystemExit(
        f"The file system of {_state} has no locks that work between hosts: set LIGHTCONE_SCRATCH "
        "to a directory on one that has."
    )


async def dask_setup(worker: Worker) -> None:
    """Set the worker up; the engine calls this before the worker registers."""
    try:
        worker.http_server.stop()  # it has no routes; it need not listen either
        memory_setting = os.environ.get(MEMORY_VARIABLE)
        memory = memory_setting or worker.memory_manager.memory_limit or MEMORY_LIMIT
        resources = {"CPU": float(worker.state.nthreads), "MEMORY": float(memory)}
        resources["GPU"] = float(len(visible_gpus()))
        worker.state.total_resources.update(resources)
        worker.state.available_resources.update(resources)
        key = Path(dask.config.get("distributed.comm.tls.ca-file"))
        variables = client_variables(_session_record["address"], key)
        commands = Commands(_instructions["grace_s"], variables=variables)
        await worker.plugin_add(commands, name=COMMANDS_PLUGIN)
        _close_in_order(worker)
        # To the guard: a worker that dies from now on is worth starting again.
        os.kill(os.getppid(), signal.SIGUSR1)
    except Exception:
        abort_program("the session's worker could not be set up")


def _close_in_order(worker: Worker) -> None:
    """Make SIGTERM close the worker, its commands first.

    The engine's own program would cancel everything, a close that is under way too, and then wait
    for that close for ever.
    """
    # The thread of a task that is no command cannot be ended, so no close waits for it.
    close_in_order = functools.partial(worker.close, executor_wait=False)
    worker.close = close_in_order  # type: ignore[method-assign]
    worker.stream_handlers["close"] = close_in_order
    loop = asyncio.get_running_loop()
    previous_handler = signal.getsignal(signal.SIGTERM)
    closing: list[asyncio.Task[str | None]] = []

    def close() -> None:
        closing.append(loop.create_task(worker.close(reason="asked to end")))

    def on_term(signum: int, frame: FrameType | None) -> None:
        if worker.status is not Status.init:
            loop.call_soon_threadsafe(close)
        elif callable(previous_handler):
            previous_handler(signum, frame)

    signal.signal(signal.SIGTERM, on_term)
