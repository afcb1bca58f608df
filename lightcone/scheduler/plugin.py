"""Loaded into a session's scheduler: the owner lock, the control socket, the record, its end.

Imported by the engine's own scheduler program (``--preload``) before it listens on anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler, SchedulerPlugin, Status
from tornado.ioloop import PeriodicCallback

import lightcone
import lightcone.wire.protocol  # tasks name it, and its file may be gone when they come
from lightcone.engine.placement import place_by_resources, spread
from lightcone.engine.startup import abort_program, use_our_settings, wait_for_file
from lightcone.project.host import boot_id
from lightcone.scheduler.caller import serve_caller
from lightcone.scheduler.control_server import ControlServer
from lightcone.scheduler.idleness import Idleness, Leases
from lightcone.scheduler.runs import Runs
from lightcone.scheduler.self_heal import SelfHeal
from lightcone.scheduler.snapshot import SnapshotBuilder
from lightcone.slurm import jobs
from lightcone.system import guard
from lightcone.system.files import write_atomically
from lightcone.system.interpreter import raise_open_files_limit
from lightcone.system.locks import Lock
from lightcone.wire.node import describe_node
from lightcone.wire.protocol import PROTOCOL, PYTHON

__all__ = ["dask_setup", "dask_teardown"]

_OWNER_DEADLINE = 10.0
_BEGINNING = 5.0
# Seconds that the other workers are waited for once there is one.
_LATE = 15.0
# Seconds for asking why, while everything is ending.
_PATIENCE = 3.0
_CERTIFICATE = "distributed.comm.tls.ca-file"
# A worker that is closing takes nothing any more; one that has only just come will.
_CLOSING = (Status.closing, Status.closing_gracefully, Status.closed)
_logger = logging.getLogger("lightcone")
_state = use_our_settings()
raise_open_files_limit()
_told = wait_for_file(_state / "spawn.json", ("spawn.lock",))
_owner = Lock(_state / "owner.lock")
if not _owner.acquire(timeout=_OWNER_DEADLINE):
    raise SystemExit(f"Another scheduler holds {_owner.path}: this one is not needed.")


class _SessionPlugin(SchedulerPlugin):
    """Keeps the session's record and control socket, and ends the session when it is idle."""

    name = "lightcone-keeper"

    def __init__(self, scheduler: Scheduler, told: dict[str, Any]) -> None:
        self.scheduler = scheduler
        self.told = told
        self.runs = Runs()
        self.watch = SnapshotBuilder(scheduler, self.runs, self.describe)
        self.record = _state / "session.json"
        self.leases = Leases(told["idle_timeout_s"])
        self.control = ControlServer(
            Path(told["runtime_dir"]) / "control",
            self.describe,
            self.end,
            self.runs.cancel,
            self.leases,
            self.watch.look,
            self.serve,
        )
        self.idleness = Idleness(
            scheduler,
            self.is_called,
            self.leases,
            told["idle_timeout_s"],
            told["forgotten_timeout_s"],
            _BEGINNING,
        )
        self.remote: dict[str, str] = {}
        self.first_worker = math.inf
        self.callback = PeriodicCallback(self.look, self.idleness.interval * 1000)

    async def begin(self) -> None:
        self.scheduler.http_server.stop()  # it has no routes; it need not listen either
        await self.scheduler.listen("inproc://")
        # For the clients of callers, which are in this process; nobody else can reach it.
        self.within = self.scheduler.listeners[-1].contact_address
        self.scheduler.add_plugin(self.runs)
        await self.runs.start(self.scheduler)
        self.scheduler.add_plugin(self)
        self.scheduler.add_plugin(self.watch.activity)
        await self.control.start()
        if "listen" in self.told:
            place_by_resources(self.scheduler)
            certificate = Path(dask.config.get(_CERTIFICATE))
            self.remote = {"control": await self.control.listen(self.told["listen"], certificate)}
        self.publish()
        self.self_heal = SelfHeal(
            self.control,
            {_owner.path: False, _state / "members.lock": True},
            [_state / "spawn.json", _state / "engine.json", Path(dask.config.get(_CERTIFICATE))],
            self.publish,
            self.record,
            _state.parents[1] / "claims",
        )
        self.callback.start()

    def describe(self) -> dict[str, Any]:
        """What the session is, for those who ask on the control socket."""
        workers = [
            describe_node(worker)
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
            **self.remote,
            "workers": workers,
            "runs": [{"name": run["name"], "pid": run["pid"]} for run in self.runs.runs.values()],
            "leases": self.leases.names,
            "ready": self.is_ready(len(workers)),
            "idle": not self.idleness.in_use(),
        }

    def publish(self, **more: Any) -> None:
        record = {**self.describe(), **more}
        write_atomically(self.record, json.dumps(record, indent=1).encode(), durable=False)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a caller on a connection."""
        await serve_caller(self.within, reader, writer)

    def end(self) -> None:
        """End the session, as somebody has asked for it."""
        self.scheduler.loop.add_callback(self.scheduler.close, reason=self.control.reason)

    def is_ready(self, workers: int) -> bool:
        """Whether all workers are there that there should be, or have had time to come."""
        late = time.monotonic() > self.first_worker + _LATE
        return workers >= self.told["nodes"] or (late and workers > 0)

    def is_called(self) -> bool:
        """Whether there is a run or a command, or somebody who is about to make one."""
        return bool(self.runs.runs or self.control.users)

    async def look(self) -> None:
        await self.self_heal.look()
        spread(self.scheduler)
        if not self.idleness.in_use() or len(self.scheduler.workers) < self.told["nodes"]:
            self.control.changed()
        reason = self.idleness.look()
        if reason:
            self.callback.stop()
            self.control.reason = reason
            await self.scheduler.close(reason=reason)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.first_worker = min(self.first_worker, time.monotonic())
        self.control.changed()

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        self.control.changed()

    async def finish(self) -> None:
        self.callback.stop()
        self.control.reason = self.control.reason or _reason(self.told.get("job"))
        ended = {"reason": self.control.reason, "at": datetime.now(UTC).isoformat()}
        self.publish(ended=ended)
        await self.control.close()


def _reason(job: int | None) -> str:
    """Why the session ends, where nobody has told."""
    if job is not None and jobs.job_state(job, _PATIENCE).state.is_over:
        return "its allocation ended"
    with contextlib.suppress(OSError):
        log = (_state / "logs" / "worker.log").read_text(errors="replace")
        if guard.GAVE_UP in log:
            return "its worker died five times within a minute, see 'lc session logs worker'"
        # Said last by the guard of what started them.
        if job is not None and log.rstrip().rpartition("\n")[2].startswith("[guard] "):
            return "its workers on the nodes have ended, see 'lc session logs worker'"
    return "its terminal session was ended"


_keeper: _SessionPlugin | None = None


async def dask_setup(scheduler: Scheduler) -> None:
    """Called by the engine once the scheduler listens."""
    global _keeper
    try:
        _keeper = _SessionPlugin(scheduler, _told)
        await _keeper.begin()
    except Exception:
        abort_program("the session's scheduler could not be set up")


async def dask_teardown(scheduler: Scheduler) -> None:
    """Called by the engine when the scheduler closes, whatever made it."""
    if _keeper is not None:
        await _keeper.finish()
