"""Placement of commands on workers, by the resources that are free.

The engine goes by the time that its own threads are busy, and a command takes none: as it comes, a
second one may wait at a worker that is full, beside one that is empty. Recipes take hours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from distributed import Scheduler, Status
from distributed.scheduler import TaskState, WorkerState

__all__ = ["place_by_resources", "spread"]

_TOLERANCE = 1e-6


def place_by_resources(scheduler: Scheduler) -> None:
    """Make the scheduler send each task to the worker with most room."""
    default_objective = scheduler.worker_objective

    def objective(task: TaskState, worker: WorkerState) -> tuple[Any, ...]:
        return (_load(task, worker), *default_objective(task, worker))

    scheduler.worker_objective = objective  # type: ignore[method-assign, assignment]


def _load(task: TaskState, worker: WorkerState) -> float:
    """Return the worker's used fraction with the task, of its scarcest resource."""
    requested = task.resource_restrictions or {}
    loads = [
        (worker.used_resources.get(name, 0.0) + amount) / worker.resources[name]
        for name, amount in requested.items()
        if worker.resources.get(name)
    ]
    return max(loads, default=0.0)


def spread(scheduler: Scheduler) -> None:
    """Move waiting commands to workers with room; to be called periodically."""
    workers = [each for each in scheduler.workers.values() if each.status is Status.running]
    if len(workers) < 2:
        return
    stealing = scheduler.extensions["stealing"]
    free = {worker: _free(worker) for worker in workers}
    for victim in workers:
        if min(free[victim].values(), default=0.0) >= -_TOLERANCE:
            continue
        for task in reversed(list(victim.processing)):
            needs = task.resource_restrictions
            if not needs or task in victim.long_running or task in stealing.in_flight:
                continue
            if not any(free[victim].get(name, 0.0) < -_TOLERANCE for name in needs):
                continue
            thief = _with_room(task, needs, free)
            if thief is None:
                continue
            stealing.move_task_request(task, victim, thief)
            for name, amount in needs.items():
                free[thief][name] -= amount
                free[victim][name] = free[victim].get(name, 0.0) + amount


def _free(worker: WorkerState) -> dict[str, float]:
    """Return the worker's free resources, negative where more waits than fits."""
    requested: defaultdict[str, float] = defaultdict(float)
    for task in worker.processing:
        for name, amount in (task.resource_restrictions or {}).items():
            requested[name] += amount
    for name in worker.resources:
        worker.used_resources[name] = requested[name]  # the engine forgets it when a task is moved
    return {name: amount - requested[name] for name, amount in worker.resources.items()}


def _with_room(
    task: TaskState, needs: Mapping[str, float], free: Mapping[WorkerState, Mapping[str, float]]
) -> WorkerState | None:
    if task.worker_restrictions or task.host_restrictions:
        return None
    for worker, available in free.items():
        if all(available.get(name, 0.0) >= amount - _TOLERANCE for name, amount in needs.items()):
            return worker
    return None
