"""What happens in a session, for those who look: computed while somebody does, and not else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from distributed import Scheduler

from lightcone.cluster.activity import Activity, Begun
from lightcone.cluster.keys import is_ours, name_of, run_of, topic_of
from lightcone.cluster.messages import pack
from lightcone.cluster.node import told_by
from lightcone.cluster.runs import Runs
from lightcone.units import format_bytes

__all__ = ["Watch"]

_LISTED = 300
# A worker that has been stopped never answers.
_PATIENCE = 1.0
_DESCRIBED = ("name", "key", "root", "started", "idle", "idle_timeout_s", "leases", "version")
_RESOURCES = ("CPU", "MEMORY", "GPU")


class Watch:
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
        scheduler.handlers["lightcone_told"] = self.told

    async def told(self, run: str, progress: dict[str, Any]) -> None:
        """A run says how far it is and what it has still to do."""
        self._progress[run] = progress
        if run in self._heard:
            self._heard.pop(run).set()

    async def look(self) -> dict[str, Any]:
        """What there is to see now, as JSON; see docs/cli.md."""
        await self._ask()
        now = time.monotonic()
        tasks = [ts for ts in self.scheduler.tasks.values() if is_ours(ts.key)]
        running = [ts for ts in tasks if _is_running(ts)]
        waiting = [ts for ts in tasks if not _is_running(ts) and ts.state not in _OVER]
        held = _held(running)
        parts = [
            (ts, part)
            for ts in running
            for part in self.activity.begun.get(str(ts.key), {str(ts.key): Begun({}, now)}).items()
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
                not is_ours(ts.key) and ts.state not in _OVER
                for ts in self.scheduler.tasks.values()
            ),
        }

    async def _ask(self) -> None:
        """Have the workers and the runs say how they are; who is late is waited for no longer."""
        workers = dict.fromkeys(self.scheduler.workers, self._ask_worker)
        runs = {run for run, told in self._runs.runs.items() if told.get("tells")}
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
        self.scheduler.log_event(topic_of(run), pack([{"event": "asked"}]))
        await heard.wait()

    async def _ask_worker(self, address: str) -> None:
        with contextlib.suppress(Exception):  # it may be going, in any way
            self._used[address] = await self.scheduler.rpc(address).lightcone_usage()

    def _worker(self, ws: Any, held: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        used = self._used.get(ws.address, {})
        mine = held.get(ws.address, {})
        return {
            **told_by(ws),
            "cpus_used": used.get("cpus"),
            "memory_used": used.get("memory"),
            "cpus_taken": mine.get("CPU", 0.0),
            "memory_taken": int(mine.get("MEMORY", 0)),
            "gpus_taken": int(mine.get("GPU", 0)),
            "running": sum(is_ours(ts.key) for ts in ws.long_running),
        }

    def _running(self, ts: Any, key: str, begun: Begun, now: float) -> dict[str, Any]:
        told = begun.told
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
