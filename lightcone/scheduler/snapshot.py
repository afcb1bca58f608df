"""Snapshots of a session for viewers, computed only while a viewer is connected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from lightcone.scheduler.runs import Runs
from lightcone.system.units import format_bytes
from lightcone.wire.node import describe_node
from lightcone.wire.protocol import LOST, is_lightcone_key, name_of, pack, run_of, topic_of, unpack

__all__ = ["Activity", "RunningCommand", "SnapshotBuilder"]

_FAILURE_LIMIT = 50


@dataclass(frozen=True)
class RunningCommand:
    """A running command.

    Attributes:
        message: the message that reported its start.
        started_at: when that came, by the clock of :func:`time.monotonic`.
    """

    message: Mapping[str, Any]
    started_at: float

    @property
    def log(self) -> str | None:
        """The path of its log, if it has one."""
        log = self.message.get("log")
        return None if log is None else os.fsdecode(log)


_NOT_STARTED = RunningCommand({}, 0.0)


class Activity(SchedulerPlugin):
    """Tracks running and failed commands by their messages, in memory.

    The cost is a few lookups for each command.

    Attributes:
        running: the running commands, by the engine's task and then by their key.
        failures: the last failures, as JSON.
    """

    name = "lightcone-activity"

    def __init__(self, scheduler: Scheduler, runs: Runs) -> None:
        self.running: dict[str, dict[str, RunningCommand]] = {}
        self.failures: deque[dict[str, Any]] = deque(maxlen=_FAILURE_LIMIT)
        self._scheduler = scheduler
        self._runs = runs
        self._tasks: dict[str, str] = {}
        self._failure_count = 0

    def log_event(self, topic: str, msg: Any) -> None:
        """Track starts and ends of commands; the engine calls this for every message."""
        if not isinstance(msg, bytes) or not is_lightcone_key(topic):
            return
        for message in unpack(msg):
            if message["event"] == "start" and message["task"] in self._scheduler.tasks:
                command = RunningCommand(message, time.monotonic())
                self.running.setdefault(message["task"], {})[message["key"]] = command
                self._tasks[message["key"]] = message["task"]
            elif message["event"] == "done":
                key = message["key"]
                command = self.running.get(self._tasks.pop(key, ""), {}).pop(key, _NOT_STARTED)
                if message.get("result") == "failed":
                    self._fail(key, str(message.get("reason")), command)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Track the end of tasks; the engine calls this on every transition."""
        if finish in ("processing", "waiting") or not is_lightcone_key(key):
            return
        commands = self.running.pop(key, {})
        for command_key in commands:
            self._tasks.pop(command_key, None)
        if finish == "erred":
            text = self._scheduler.tasks[key].exception_text or ""
            reason = LOST if "KilledWorker" in text else text
            for command_key, command in (commands or {key: _NOT_STARTED}).items():
                self._fail(command_key, reason, command)

    def _fail(self, key: str, reason: str, command: RunningCommand) -> None:
        self._failure_count += 1
        self.failures.append(
            {
                "id": f"failure-{self._failure_count}",
                "name": command.message.get("name") or name_of(key),
                "run": self._runs.caller_name(run_of(key)),
                "reason": reason,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "log": command.log,
            }
        )


_LIST_LIMIT = 300

# A worker that has been stopped never answers.
_REPORT_TIMEOUT = 1.0

_SESSION_FIELDS = ("name", "key", "root", "started", "idle", "idle_timeout_s", "leases", "version")

_RESOURCES = ("CPU", "MEMORY", "GPU")


class SnapshotBuilder:
    """Builds snapshots of running and waiting work and of recent failures.

    For a snapshot it requests from the workers their commands' usage, and from the runs their
    progress.

    Args:
        scheduler: the session's.
        runs: the connected runs.
        describe: returns the session's description.
    """

    def __init__(
        self, scheduler: Scheduler, runs: Runs, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self.scheduler = scheduler
        self._runs = runs
        self._describe = describe
        self.activity = Activity(scheduler, runs)
        self._usage: dict[str, dict[str, Any]] = {}
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._progress_arrived: dict[str, asyncio.Event] = {}
        scheduler.handlers["lightcone_progress"] = self.on_progress

    async def on_progress(self, run: str, progress: dict[str, Any]) -> None:
        """Record a run's progress and the outputs that it has still to make."""
        self._progress[run] = progress
        if run in self._progress_arrived:
            self._progress_arrived.pop(run).set()

    async def build(self) -> dict[str, Any]:
        """Build the current snapshot, as JSON; see docs/cli.md."""
        await self._collect()
        now = time.monotonic()
        tasks = [ts for ts in self.scheduler.tasks.values() if is_lightcone_key(ts.key)]
        running = [ts for ts in tasks if _is_running(ts)]
        waiting = [ts for ts in tasks if not _is_running(ts) and ts.state not in _FINAL_STATES]
        taken = _taken_resources(running)
        commands = [
            (ts, command)
            for ts in running
            for command in self.activity.running.get(
                str(ts.key), {str(ts.key): RunningCommand({}, now)}
            ).items()
        ]
        session = self._describe()
        listed = [self._waiting(ts, taken) for ts in waiting[:_LIST_LIMIT]]
        waiting_count = len(waiting)
        for run, progress in self._progress.items():
            waiting_count += int(progress["waiting_count"])
            listed += [
                {
                    "id": f"{run}-{name}",
                    "name": name,
                    "run": self._runs.caller_name(run),
                    "why": why,
                }
                | {"run_id": run}
                for name, why in progress["waiting"]
            ]
        return {
            **{key: session[key] for key in _SESSION_FIELDS},
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "workers": [self._worker(ws, taken) for ws in self.scheduler.workers.values()],
            "running": [self._running(ts, *command, now) for ts, command in commands[:_LIST_LIMIT]],
            "running_count": len(commands),
            "waiting": listed[:_LIST_LIMIT],
            "waiting_count": waiting_count,
            "failures": list(reversed(self.activity.failures)),
            "runs": [self._run(run, now) for run in self._runs.runs],
            "other_tasks": sum(
                not is_lightcone_key(ts.key) and ts.state not in _FINAL_STATES
                for ts in self.scheduler.tasks.values()
            ),
        }

    async def _collect(self) -> None:
        """Request usage from workers and progress from runs, up to a timeout."""
        workers = dict.fromkeys(self.scheduler.workers, self._request_usage)
        runs = {
            run
            for run, description in self._runs.runs.items()
            if description.get("reports_progress")
        }
        self._usage = {each: self._usage[each] for each in workers if each in self._usage}
        self._progress = {run: self._progress[run] for run in runs if run in self._progress}
        requests = workers | dict.fromkeys(runs, self._request_progress)
        for stale_key in self._pending.keys() - requests:
            self._pending.pop(stale_key).cancel()
        for each, request in requests.items():
            if each not in self._pending or self._pending[each].done():
                self._pending[each] = asyncio.create_task(request(each))
        if self._pending:
            await asyncio.wait(self._pending.values(), timeout=_REPORT_TIMEOUT)

    async def _request_progress(self, run: str) -> None:
        arrived = self._progress_arrived[run] = asyncio.Event()
        self.scheduler.log_event(topic_of(run), pack([{"event": "progress_wanted"}]))
        await arrived.wait()

    async def _request_usage(self, address: str) -> None:
        with contextlib.suppress(Exception):  # it may be going, in any way
            self._usage[address] = await self.scheduler.rpc(address).lightcone_usage()

    def _worker(self, ws: Any, taken: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        used = self._usage.get(ws.address, {})
        on_worker = taken.get(ws.address, {})
        return {
            **describe_node(ws),
            "cpus_used": used.get("cpus"),
            "memory_used": used.get("memory"),
            "cpus_taken": on_worker.get("CPU", 0.0),
            "memory_taken": int(on_worker.get("MEMORY", 0)),
            "gpus_taken": int(on_worker.get("GPU", 0)),
            "running": sum(is_lightcone_key(ts.key) for ts in ws.long_running),
        }

    def _running(self, ts: Any, key: str, command: RunningCommand, now: float) -> dict[str, Any]:
        message = command.message
        requested, worker = ts.resource_restrictions or {}, ts.processing_on
        used = self._usage.get(worker.address, {}).get("commands", {}).get(key, (None, None))
        return {
            "id": key,
            "name": message.get("name") or name_of(key),
            "run": self._runs.caller_name(run_of(ts.key)),
            "run_id": run_of(ts.key),
            "host": str(worker.name),
            "seconds": round(now - command.started_at, 1),
            "cpus": requested.get("CPU", 1.0),
            "memory": int(requested.get("MEMORY", 0)),
            "gpus": int(requested.get("GPU", 0)),
            "cpus_used": used[0],
            "memory_used": used[1],
            "log": command.log,
        }

    def _waiting(self, ts: Any, taken: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        workers = [ts.processing_on] if ts.processing_on else list(self.scheduler.workers.values())
        missing = [_missing_resources(ts.resource_restrictions or {}, ws, taken) for ws in workers]
        why = min(missing, key=len, default=["a worker, of which there is none"])
        return {
            "id": ts.key,
            "name": name_of(ts.key),
            "run": self._runs.caller_name(run_of(ts.key)),
            "run_id": run_of(ts.key),
            "why": f"for {' and '.join(why)}" if why else "about to begin",
        }

    def _run(self, run: str, now: float) -> dict[str, Any]:
        description = self._runs.runs[run]
        progress = self._progress.get(run, {})
        return {
            "id": run,
            "name": description["name"],
            "label": description.get("label"),
            "pid": description["pid"],
            "seconds": round(now - description["started"], 1),
            "total": progress.get("total"),
            "counts": progress.get("counts"),
        }


_FINAL_STATES = ("memory", "erred", "released", "forgotten")


def _is_running(ts: Any) -> bool:
    # A command secedes as it begins; before that it waits on its worker for what it asks for.
    return ts.processing_on is not None and ts in ts.processing_on.long_running


def _taken_resources(running: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Sum the resources of each worker that running commands hold."""
    taken: dict[str, dict[str, float]] = {}
    for ts in running:
        on_worker = taken.setdefault(ts.processing_on.address, dict.fromkeys(_RESOURCES, 0.0))
        for resource, amount in (ts.resource_restrictions or {}).items():
            on_worker[resource] = on_worker.get(resource, 0.0) + amount
    return taken


def _missing_resources(
    requested: Mapping[str, float], ws: Any, taken: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """List, as text, the requested resources that are not free on a worker."""
    missing = []
    on_worker = taken.get(ws.address, {})
    for resource, amount in requested.items():
        free = max(ws.resources.get(resource, 0.0) - on_worker.get(resource, 0.0), 0.0)
        if amount <= free:
            continue
        if resource == "MEMORY":
            missing.append(f"{format_bytes(amount)} of memory, {format_bytes(free)} free")
        else:
            missing.append(f"{amount:g} {resource.lower()}{'s' * (amount != 1)}, {free:g} free")
    return missing
