"""Loaded into a session's worker: what this node offers, and how commands run here.

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

from lightcone.cluster.command import MEMORY_VARIABLE, client_variables
from lightcone.cluster.commands import COMMANDS_PLUGIN, Commands
from lightcone.cluster.engine import fail, import_work, instructions, use_our_settings
from lightcone.cluster.node import gpus
from lightcone.cluster.open_files import raise_limit
from lightcone.cluster.protocol import PROTOCOL, PYTHON
from lightcone.locks import Lock

__all__ = ["dask_setup"]

_state = use_our_settings()
_told = instructions(_state / "spawn.json", ("spawn.lock", "owner.lock"))
if (_told["protocol"], _told["python"]) != (PROTOCOL, PYTHON):
    # One that is started again after an upgrade: it would not understand the scheduler.
    raise SystemExit("This session is of another version of lightcone, or of Python: end it.")
raise_limit()
import_work()  # while the scheduler is coming up
# The engine's own wait for this file looks ten times a second.
_record = instructions(_state / "session.json")
if "listen" in _told and Lock.is_free(_state / "owner.lock"):
    raise SystemExit(
        f"The file system of {_state} has no locks that work between hosts: set LIGHTCONE_SCRATCH "
        "to a directory on one that has."
    )


async def dask_setup(worker: Worker) -> None:
    """Called by the engine before the worker registers with its scheduler."""
    try:
        worker.http_server.stop()  # it has no routes; it need not listen either
        granted = os.environ.get(MEMORY_VARIABLE)
        memory = granted or worker.memory_manager.memory_limit or MEMORY_LIMIT
        offered = {"CPU": float(worker.state.nthreads), "MEMORY": float(memory)}
        offered["GPU"] = float(len(gpus()))
        worker.state.total_resources.update(offered)
        worker.state.available_resources.update(offered)
        key = Path(dask.config.get("distributed.comm.tls.ca-file"))
        variables = client_variables(_record["address"], key)
        commands = Commands(_told["grace_s"], variables=variables)
        await worker.plugin_add(commands, name=COMMANDS_PLUGIN)
        _close_in_order(worker)
        # To the guard: a worker that dies from now on is worth starting again.
        os.kill(os.getppid(), signal.SIGUSR1)
    except Exception:
        fail("the session's worker could not be set up")


def _close_in_order(worker: Worker) -> None:
    """Have SIGTERM close the worker, its commands first.

    The engine's own program would cancel everything, a close that is under way too, and then wait
    for that one for ever.
    """
    # The thread of a task that is no command cannot be ended, whoever asks the worker to close.
    in_order = functools.partial(worker.close, executor_wait=False)
    worker.close = in_order  # type: ignore[method-assign]
    worker.stream_handlers["close"] = in_order
    loop = asyncio.get_running_loop()
    before_registered = signal.getsignal(signal.SIGTERM)
    closing: list[asyncio.Task[str | None]] = []

    def close() -> None:
        closing.append(loop.create_task(worker.close(reason="asked to end")))

    def on_term(signum: int, frame: FrameType | None) -> None:
        if worker.status is not Status.init:
            loop.call_soon_threadsafe(close)
        elif callable(before_registered):
            before_registered(signum, frame)

    signal.signal(signal.SIGTERM, on_term)
