"""The scheduler's preload: owner lock, control socket, session record, end of the session.

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
_STARTUP_ALLOWANCE = 5.0
# Seconds to wait for the other workers once there is one.
_WORKERS_TIMEOUT = 15.0
# Seconds for asking why, while everything is ending.
_JOB_STATE_TIMEOUT = 3.0
_CERTIFICATE = "distributed.comm.tls.ca-file"
# A worker that is closing takes nothing any more; one that has only just come will.
_CLOSING = (Status.closing, Status.closing_gracefully, Status.closed)
_logger = logging.getLogger("lightcone")
_state = use_our_settings()
raise_open_files_limit()
_instructions = wait_for_file(_state / "spawn.json", ("spawn.lock",))
_owner = Lock(_state / "owner.lock")
if not _owner.acquire(timeout=_OWNER_DEADLINE):
    raise SystemExit(f"Another scheduler holds {_owner.path}: this one is not needed.")


class _SessionPlugin(SchedulerPlugin):
    """Serves the session's control socket, writes its record, ends it when idle."""

    name = "lightcone-session"

    def __init__(self, scheduler: Scheduler, instructions: dict[str, Any]) -> None:
        self.scheduler = scheduler
        self.instructions = instructions
        self.runs = Runs()
        self.snapshots = SnapshotBuilder(scheduler, self.runs, self.describe)
        self.record = _state / "session.json"
        self.leases = Leases(instructions["idle_timeout_s"])
        self.control = ControlServer(
            Path(instructions["runtime_dir"]) / "control",
            self.describe,
            self.end,
            self.runs.cancel,
            self.leases,
            self.snapshots.build,
            self.serve,
        )
        self.idleness = Idleness(
            scheduler,
            self.has_callers,
            self.leases,
            instructions["idle_timeout_s"],
            instructions["forgotten_timeout_s"],
            _STARTUP_ALLOWANCE,
        )
        self.remote: dict[str, str] = {}
        self.first_worker = math.inf
        self.callback = PeriodicCallback(self.check, self.idleness.interval * 1000)

    async def set_up(self) -> None:
        self.scheduler.http_server.stop()  # it has no routes; it need not listen either
        await self.scheduler.listen("inproc://")
        # For the clients of callers, which are in this process; no other process can reach it.
        self.inproc_address = self.scheduler.listeners[-1].contact_address
        self.scheduler.add_plugin(self.runs)
        await self.runs.start(self.scheduler)
        self.scheduler.add_plugin(self)
        self.scheduler.add_plugin(self.snapshots.activity)
        await self.control.start()
        if "listen" in self.instructions:
            place_by_resources(self.scheduler)
            certificate = Path(dask.config.get(_CERTIFICATE))
            self.remote = {
                "control": await self.control.listen(self.instructions["listen"], certificate)
            }
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
        """Describe the session, as the control socket and the record do."""
        workers = [
            describe_node(worker)
            for worker in self.scheduler.workers.values()
            if worker.status not in _CLOSING
        ]
        return {
            **self.instructions,
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
        await serve_caller(self.inproc_address, reader, writer)

    def end(self) -> None:
        """End the session at a caller's request."""
        self.scheduler.loop.add_callback(self.scheduler.close, reason=self.control.reason)

    def is_ready(self, workers: int) -> bool:
        """Return whether all expected workers have registered, or have had time to."""
        timed_out = time.monotonic() > self.first_worker + _WORKERS_TIMEOUT
        return workers >= self.instructions["nodes"] or (timed_out and workers > 0)

    def has_callers(self) -> bool:
        """Return whether a caller is connected or about to connect."""
        return bool(self.runs.runs or self.control.users)

    async def check(self) -> None:
        await self.self_heal.check()
        spread(self.scheduler)
        if not self.idleness.in_use() or len(self.scheduler.workers) < self.instructions["nodes"]:
            self.control.changed()
        reason = self.idleness.check()
        if reason:
            self.callback.stop()
            self.control.reason = reason
            await self.scheduler.close(reason=reason)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.first_worker = min(self.first_worker, time.monotonic())
        self.control.changed()

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        self.control.changed()

    async def tear_down(self) -> None:
        self.callback.stop()
        self.control.reason = self.control.reason or _find_reason(self.instructions.get("job"))
        ended = {"reason": self.control.reason, "at": datetime.now(UTC).isoformat()}
        self.publish(ended=ended)
        await self.control.close()


def _find_reason(job: int | None) -> str:
    """Find why the session ends, where no caller gave a reason."""
    if job is not None and jobs.job_state(job, _JOB_STATE_TIMEOUT).state.is_over:
        return "its allocation ended"
    with contextlib.suppress(OSError):
        log = (_state / "logs" / "worker.log").read_text(errors="replace")
        if guard.GAVE_UP in log:
            return "its worker died five times within a minute, see 'lc session logs worker'"
        # The last line is from the guard of the program that started them.
        if job is not None and log.rstrip().rpartition("\n")[2].startswith("[guard] "):
            return "its workers on the nodes have ended, see 'lc session logs worker'"
    return "its terminal session was ended"


_plugin: _SessionPlugin | None = None


async def dask_setup(scheduler: Scheduler) -> None:
    """Set the session up; the engine calls this once the scheduler listens."""
    global _plugin
    try:
        _plugin = _SessionPlugin(scheduler, _instructions)
        await _plugin.set_up()
    except Exception:
        abort_program("the session's scheduler could not be set up")


async def dask_teardown(scheduler: Scheduler) -> None:
    """Record the session's end; the engine calls this when the scheduler closes."""
    if _plugin is not None:
        await _plugin.tear_down()
