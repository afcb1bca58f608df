"""What happens in a session, for those who look: computed while somebody does, and not else."""

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

_FAILURES = 50


@dataclass(frozen=True)
class RunningCommand:
    """A command that runs.

    Attributes:
        message: the one by which its beginning was reported.
        at: when that was, by the clock of :func:`time.monotonic`.
    """

    message: Mapping[str, Any]
    at: float

    @property
    def log(self) -> str | None:
        """The path of its log, if it has one."""
        log = self.message.get("log")
        return None if log is None else os.fsdecode(log)


_NOT_BEGUN = RunningCommand({}, 0.0)


class Activity(SchedulerPlugin):
    """Follows commands from their own messages, in memory; the cost is a few lookups for each.

    Attributes:
        begun: those that run, by the engine's task and then by their key.
        failures: the last ones, as JSON.
    """

    name = "lightcone-activity"

    def __init__(self, scheduler: Scheduler, runs: Runs) -> None:
        self.begun: dict[str, dict[str, RunningCommand]] = {}
        self.failures: deque[dict[str, Any]] = deque(maxlen=_FAILURES)
        self._scheduler = scheduler
        self._runs = runs
        self._tasks: dict[str, str] = {}
        self._failed = 0

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by the engine for all messages; those of commands say when they begin and end."""
        if not isinstance(msg, bytes) or not is_lightcone_key(topic):
            return
        for message in unpack(msg):
            if message["event"] == "start" and message["task"] in self._scheduler.tasks:
                begun = RunningCommand(message, time.monotonic())
                self.begun.setdefault(message["task"], {})[message["key"]] = begun
                self._tasks[message["key"]] = message["task"]
            elif message["event"] == "done":
                key = message["key"]
                begun = self.begun.get(self._tasks.pop(key, ""), {}).pop(key, _NOT_BEGUN)
                if message.get("result") == "failed":
                    self._fail(key, str(message.get("reason")), begun)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Called by the engine for every change of a task's state."""
        if finish in ("processing", "waiting") or not is_lightcone_key(key):
            return
        parts = self.begun.pop(key, {})
        for part in parts:
            self._tasks.pop(part, None)
        if finish == "erred":
            text = self._scheduler.tasks[key].exception_text or ""
            reason = LOST if "KilledWorker" in text else text
            for part, begun in (parts or {key: _NOT_BEGUN}).items():
                self._fail(part, reason, begun)

    def _fail(self, key: str, reason: str, begun: RunningCommand) -> None:
        self._failed += 1
        self.failures.append(
            {
                "id": f"failure-{self._failed}",
                "name": begun.message.get("name") or name_of(key),
                "run": self._runs.caller(run_of(key)),
                "reason": reason,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "log": begun.log,
            }
        )


_LISTED = 300

# A worker that has been stopped never answers.
_PATIENCE = 1.0

_DESCRIBED = ("name", "key", "root", "started", "idle", "idle_timeout_s", "leases", "version")

_RESOURCES = ("CPU", "MEMORY", "GPU")


class SnapshotBuilder:
    """Knows what runs, what waits and why, and what failed last.

    A look asks the workers what their commands use, and the runs what they have still to do.

    Args:
        scheduler: the session's.
        runs: those that are connected.
        describe: what the session says of itself.
    """

    def __init__(
        self, scheduler: Scheduler, runs: Runs, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self.scheduler = scheduler
        self._runs = runs
        self._describe = describe
        self.activity = Activity(scheduler, runs)
        self._used: dict[str, dict[str, Any]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, asyncio.Event] = {}
        scheduler.handlers["lightcone_progress"] = self.on_progress

    async def on_progress(self, run: str, progress: dict[str, Any]) -> None:
        """A run says how far it is and what it has still to do."""
        self._progress[run] = progress
        if run in self._heard:
            self._heard.pop(run).set()

    async def look(self) -> dict[str, Any]:
        """What there is to see now, as JSON; see docs/cli.md."""
        await self._ask()
        now = time.monotonic()
        tasks = [ts for ts in self.scheduler.tasks.values() if is_lightcone_key(ts.key)]
        running = [ts for ts in tasks if _is_running(ts)]
        waiting = [ts for ts in tasks if not _is_running(ts) and ts.state not in _OVER]
        held = _held(running)
        parts = [
            (ts, part)
            for ts in running
            for part in self.activity.begun.get(
                str(ts.key), {str(ts.key): RunningCommand({}, now)}
            ).items()
        ]
        told = self._describe()
        listed = [self._waiting(ts, held) for ts in waiting[:_LISTED]]
        more = len(waiting)
        for run, progress in self._progress.items():
            more += int(progress["waiting_count"])
            listed += [
                {"id": f"{run}-{name}", "name": name, "run": self._runs.caller(run), "why": why}
                | {"run_id": run}
                for name, why in progress["waiting"]
            ]
        return {
            **{key: told[key] for key in _DESCRIBED},
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "workers": [self._worker(ws, held) for ws in self.scheduler.workers.values()],
            "running": [self._running(ts, *part, now) for ts, part in parts[:_LISTED]],
            "running_count": len(parts),
            "waiting": listed[:_LISTED],
            "waiting_count": more,
            "failures": list(reversed(self.activity.failures)),
            "runs": [self._caller(run, now) for run in self._runs.runs],
            "other_tasks": sum(
                not is_lightcone_key(ts.key) and ts.state not in _OVER
                for ts in self.scheduler.tasks.values()
            ),
        }

    async def _ask(self) -> None:
        """Have the workers and the runs say how they are; who is late is waited for no longer."""
        workers = dict.fromkeys(self.scheduler.workers, self._ask_worker)
        runs = {run for run, told in self._runs.runs.items() if told.get("reports_progress")}
        self._used = {each: self._used[each] for each in workers if each in self._used}
        self._progress = {run: self._progress[run] for run in runs if run in self._progress}
        everybody = workers | dict.fromkeys(runs, self._ask_run)
        for gone in self._asking.keys() - everybody:
            self._asking.pop(gone).cancel()
        for each, ask in everybody.items():
            if each not in self._asking or self._asking[each].done():
                self._asking[each] = asyncio.create_task(ask(each))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=_PATIENCE)

    async def _ask_run(self, run: str) -> None:
        heard = self._heard[run] = asyncio.Event()
        self.scheduler.log_event(topic_of(run), pack([{"event": "progress_wanted"}]))
        await heard.wait()

    async def _ask_worker(self, address: str) -> None:
        with contextlib.suppress(Exception):  # it may be going, in any way
            self._used[address] = await self.scheduler.rpc(address).lightcone_usage()

    def _worker(self, ws: Any, held: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        used = self._used.get(ws.address, {})
        mine = held.get(ws.address, {})
        return {
            **describe_node(ws),
            "cpus_used": used.get("cpus"),
            "memory_used": used.get("memory"),
            "cpus_taken": mine.get("CPU", 0.0),
            "memory_taken": int(mine.get("MEMORY", 0)),
            "gpus_taken": int(mine.get("GPU", 0)),
            "running": sum(is_lightcone_key(ts.key) for ts in ws.long_running),
        }

    def _running(self, ts: Any, key: str, begun: RunningCommand, now: float) -> dict[str, Any]:
        told = begun.message
        asked, worker = ts.resource_restrictions or {}, ts.processing_on
        used = self._used.get(worker.address, {}).get("commands", {}).get(key, (None, None))
        return {
            "id": key,
            "name": told.get("name") or name_of(key),
            "run": self._runs.caller(run_of(ts.key)),
            "run_id": run_of(ts.key),
            "host": str(worker.name),
            "seconds": round(now - begun.at, 1),
            "cpus": asked.get("CPU", 1.0),
            "memory": int(asked.get("MEMORY", 0)),
            "gpus": int(asked.get("GPU", 0)),
            "cpus_used": used[0],
            "memory_used": used[1],
            "log": begun.log,
        }

    def _waiting(self, ts: Any, held: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        workers = [ts.processing_on] if ts.processing_on else list(self.scheduler.workers.values())
        lacks = [_lacking(ts.resource_restrictions or {}, ws, held) for ws in workers]
        why = min(lacks, key=len, default=["a worker, of which there is none"])
        return {
            "id": ts.key,
            "name": name_of(ts.key),
            "run": self._runs.caller(run_of(ts.key)),
            "run_id": run_of(ts.key),
            "why": f"for {' and '.join(why)}" if why else "about to begin",
        }

    def _caller(self, run: str, now: float) -> dict[str, Any]:
        told = self._runs.runs[run]
        progress = self._progress.get(run, {})
        return {
            "id": run,
            "name": told["name"],
            "label": told.get("label"),
            "pid": told["pid"],
            "seconds": round(now - told["begun"], 1),
            "total": progress.get("total"),
            "counts": progress.get("counts"),
        }


_OVER = ("memory", "erred", "released", "forgotten")


def _is_running(ts: Any) -> bool:
    # A command secedes as it begins; before that it waits on its worker for what it asks for.
    return ts.processing_on is not None and ts in ts.processing_on.long_running


def _held(running: Iterable[Any]) -> dict[str, dict[str, float]]:
    """What the commands that run hold of each worker."""
    held: dict[str, dict[str, float]] = {}
    for ts in running:
        mine = held.setdefault(ts.processing_on.address, dict.fromkeys(_RESOURCES, 0.0))
        for resource, amount in (ts.resource_restrictions or {}).items():
            mine[resource] = mine.get(resource, 0.0) + amount
    return held


def _lacking(
    asked: Mapping[str, float], ws: Any, held: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """What is not free on a worker of what is asked for, in words."""
    words = []
    mine = held.get(ws.address, {})
    for resource, amount in asked.items():
        free = max(ws.resources.get(resource, 0.0) - mine.get(resource, 0.0), 0.0)
        if amount <= free:
            continue
        if resource == "MEMORY":
            words.append(f"{format_bytes(amount)} of memory, {format_bytes(free)} free")
        else:
            words.append(f"{amount:g} {resource.lower()}{'s' * (amount != 1)}, {free:g} free")
    return words
