"""Loaded into a session's worker: what this node offers, and how commands run here.

Imported by the engine's own worker program (``--preload``) before it looks for its scheduler.
"""

from __future__ import annotations

import os
import signal

from dask.system import CPU_COUNT
from distributed import Worker
from distributed.system import MEMORY_LIMIT

from lightcone.cluster.commands import COMMANDS_PLUGIN, Commands
from lightcone.cluster.engine import fail, instructions, use_our_settings
from lightcone.cluster.node import gpu_count

__all__ = ["dask_setup"]

_state = use_our_settings()
_told = instructions(_state / "spawn.json")
# The engine's own wait for this file looks ten times a second.
instructions(_state / "session.json")


async def dask_setup(worker: Worker) -> None:
    """Called by the engine before the worker registers with its scheduler."""
    try:
        worker.http_server.stop()  # it has no routes; it need not listen either
        offered = {"CPU": float(CPU_COUNT), "MEMORY": float(MEMORY_LIMIT)}
        offered["GPU"] = float(gpu_count())
        worker.state.total_resources.update(offered)
        worker.state.available_resources.update(offered)
        await worker.plugin_add(Commands(_told["grace_s"]), name=COMMANDS_PLUGIN)
        # To the guard: a worker that dies from now on is worth starting again.
        os.kill(os.getppid(), signal.SIGUSR1)
    except Exception:  # noqa: BLE001 (whatever it is, the worker cannot serve)
        fail("the session's worker could not be set up")

