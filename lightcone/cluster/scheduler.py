"""Loaded into a session's scheduler: the owner lock, the control socket, idleness, the record.

Imported by the engine's own scheduler program (``--preload``) before it listens on anything.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Status
from tornado.ioloop import PeriodicCallback

import lightcone
from lightcone.cluster.control import PROTOCOL, PYTHON, ControlServer
from lightcone.cluster.engine import fail, instructions, use_our_settings
from lightcone.cluster.runs import Runs
from lightcone.context import boot_id
from lightcone.files import Lock, write_atomically
from lightcone.units import format_seconds

__all__ = ["dask_setup", "dask_teardown"]

_OWNER_DEADLINE = 10.0
# A worker that is closing takes nothing any more; one that has only just come will.
_CLOSING = (Status.closing, Status.closing_gracefully, Status.closed)
_logger = logging.getLogger("lightcone")
_state = use_our_settings()
_owner = Lock(_state / "owner.lock")
if not _owner.acquire(timeout=_OWNER_DEADLINE):
    raise SystemExit(f"Another scheduler holds {_owner.path}: this one is not needed.")


class _Keeper(SchedulerPlugin):
    """Keeps the session's record and control socket, and ends the session when it is idle."""

    name = "lightcone-keeper"

    def __init__(self, scheduler: Scheduler, told: dict[str, Any]) -> None:
        self.scheduler = scheduler
        self.told = told
        self.runs = Runs()
        self.record = _state / "session.json"
        self.control = ControlServer(Path(told["runtime_dir"]) / "control", self.describe)
        self.idle_for = 0.0
        self.interval = min(1.0, told["idle_timeout_s"] / 4)
        self.last_look = time.monotonic()
        self.callback = PeriodicCallback(self.look, self.interval * 1000)

    async def begin(self) -> None:
        self.scheduler.http_server.stop()  # it has no routes; it need not listen either
        self.scheduler.add_plugin(self.runs)
        await self.runs.start(self.scheduler)
        self.scheduler.add_plugin(self)
        await self.control.start()
        self.publish()
        self.callback.start()

    def describe(self) -> dict[str, Any]:
        """What the session is, for those who ask on the control socket."""
        workers = [
            {
                "host": str(worker.name),
                "cpus": worker.resources.get("CPU", worker.nthreads),
                "memory": int(worker.resources.get("MEMORY", worker.memory_limit)),
                "gpus": int(worker.resources.get("GPU", 0)),
            }
            for worker in self.scheduler.workers.values()
            if worker.status not in _CLOSING
        ]
        return {
            **self.told,
            "protocol": PROTOCOL,
            "python": PYTHON,
            "version": lightcone.__version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot_id": boot_id(),
            "address": self.scheduler.address,
            "workers": workers,
            "runs": [{"name": run["name"], "pid": run["pid"]} for run in self.runs.runs.values()],
            "ready": bool(workers),
            "idle": not self.in_use(),
        }

    def publish(self, **more: Any) -> None:
        record = {**self.describe(), **more}
        write_atomically(self.record, json.dumps(record, indent=1).encode())

    def in_use(self) -> bool:
        """Whether anybody has a task, a result, a run or a command here."""
        return bool(self.scheduler.tasks or self.runs.runs or self.control.users)

    async def look(self) -> None:
        now = time.monotonic()
        # Time in which this process did not run, suspended or stopped, was not idle time.
        passed = min(now - self.last_look, 2 * self.interval)
        self.last_look = now
        if self.in_use():
            self.idle_for = 0.0
            return
        if self.idle_for == 0.0:
            self.control.changed()
        self.idle_for += passed
        limit = self.told["idle_timeout_s"]
        if self.idle_for >= limit:
            self.callback.stop()
            self.control.reason = f"idle for {format_seconds(limit)}"
            await self.scheduler.close(reason=self.control.reason)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.control.changed()

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        self.control.changed()

    async def finish(self) -> None:
        self.callback.stop()
        self.control.reason = self.control.reason or "its terminal session was ended"
        ended = {"reason": self.control.reason, "at": datetime.now(UTC).isoformat()}
        self.publish(ended=ended)
        await self.control.close()


_keeper: _Keeper | None = None


async def dask_setup(scheduler: Scheduler) -> None:
    """Called by the engine once the scheduler listens."""
    global _keeper
    try:
        _keeper = _Keeper(scheduler, instructions(_state / "spawn.json"))
        await _keeper.begin()
    except Exception:
        fail("the session's scheduler could not be set up")


async def dask_teardown(scheduler: Scheduler) -> None:
    """Called by the engine when the scheduler closes, whatever made it."""
    if _keeper is not None:
        await _keeper.finish()
