"""A run's dispatch: the graph of its outputs, and its requests on the cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lightcone.run.client import RunClient
from lightcone.spec.output import Key, Output
from lightcone.state.manifest import Manifest, read_manifest
from lightcone.wire.requests import MakeRequest

__all__ = ["Dispatch", "Graph", "LostRequest", "describe_waiting"]


class Graph:
    """The outputs of a run and their dependencies.

    Attributes:
        outputs: every output, in dependency order.
        pending: the outputs that are not decided yet.
        ready: the outputs of which all inputs are good, in the order in which they became ready.
        versions: the data version of each good output.
        identities: the identity of each good output.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = {output.key: output for output in outputs}
        self.pending: set[Key] = set(self.outputs)
        self.versions: dict[Key, str] = {}
        self.identities: dict[Key, str] = {}
        self._producers = {
            output.key: {
                source.id: (output.universe, source.producer)
                for source in output.inputs
                if source.producer is not None
            }
            for output in outputs
        }
        self._consumers: dict[Key, list[Key]] = {}
        for key, needed in self._producers.items():
            for producer in dict.fromkeys(needed.values()):
                self._consumers.setdefault(producer, []).append(key)
        self.ready = deque(key for key in self.outputs if not self._producers[key])

    def producers(self, output: Output) -> Iterable[tuple[str, Output]]:
        """The inputs of ``output`` that other outputs produce: id and producer."""
        for name, key in self._producers[output.key].items():
            yield name, self.outputs[key]

    def mark_good(self, output: Output, version: str, identity: str) -> None:
        """Mark the output good; consumers without other inputs to wait for become ready."""
        self.versions[output.key] = version
        self.identities[output.key] = identity
        self.pending.discard(output.key)
        for consumer in self._consumers.get(output.key, ()):
            if self.versions.keys() >= set(self._producers[consumer].values()):
                self.ready.append(consumer)

    def mark_failed(self, output: Output) -> list[Output]:
        """Mark the output failed; returns the consumers that it blocks."""
        self.pending.discard(output.key)
        blocked = []
        waiting = deque(self._consumers.get(output.key, ()))
        while waiting:
            key = waiting.popleft()
            if key in self.pending:
                self.pending.discard(key)
                blocked.append(self.outputs[key])
                waiting.extend(self._consumers.get(key, ()))
        return blocked

    def remade_inputs(self, output: Output) -> list[Output]:
        """The inputs of ``output``, and theirs, whose records are no longer as the run knows them.

        In topological order, and without those that are being remade now.
        """
        remade: set[Key] = set()
        waiting = [output]
        while waiting:
            for _, producer in self.producers(waiting.pop()):
                key = producer.key
                if key in remade:
                    continue
                manifest = read_manifest(producer.state_dir)
                if manifest is not None and (
                    manifest.disturbed
                    or (manifest.data.version, manifest.identity)
                    != (self.versions[key], self.identities[key])
                ):
                    remade.add(key)
                    waiting.append(producer)
        return [self.outputs[key] for key in self.outputs if key in remade] if remade else []

    def update(self, output: Output, manifest: Manifest) -> None:
        """Take the record of a good output that another run has remade."""
        self.versions[output.key] = manifest.data.version
        self.identities[output.key] = manifest.identity

    def retry(self, output: Output) -> None:
        """Mark the output ready again."""
        self.ready.append(output.key)


_MAX_LISTED = 100

_MAX_NAMED = 3


def describe_waiting(
    graph: Graph, submitted: Collection[Key], claimants: Mapping[Key, str], jobs: float
) -> dict[str, Any]:
    """The outputs that wait with the driver, by name, each with the reason.

    The first hundred are listed.

    Args:
        graph: the run's.
        submitted: the outputs that are on the cluster.
        claimants: by output, who had claimed it when the run last tried to make it.
        jobs: how many tasks may be on the cluster at once.
    """
    ready = set(graph.ready)
    waiting = [key for key in graph.outputs if key in graph.pending and key not in submitted]
    listed = [
        (graph.outputs[key].name, _why(graph, graph.outputs[key], key in ready, claimants, jobs))
        for key in islice(waiting, _MAX_LISTED)
    ]
    return {"waiting": listed, "waiting_count": len(waiting)}


def _why(
    graph: Graph, output: Output, is_ready: bool, claimants: Mapping[Key, str], jobs: float
) -> str:
    if is_ready:
        return f"for its turn: {jobs:g} at once, as -j says"
    needed = {producer.key: producer.name for _, producer in graph.producers(output)}
    missing = [name for key, name in needed.items() if key not in graph.versions]
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        return f"for {', '.join(missing[:_MAX_NAMED])}{more}"
    return f"for {claimants[output.key]}" if output.key in claimants else "about to begin"


_MAKE = "lightcone.worker.batch:make"

# How many outputs a batch has at most, and how many batches there are at least for each slot in
# which a recipe can run, so that all slots are busy to the end.
_MAX_BATCH = 50

_BATCHES_PER_SLOT = 4


@dataclass(frozen=True)
class LostRequest:
    """A request whose task ended without a message about it.

    Attributes:
        output: the output that it asks for.
        started: whether its recipe ran.
    """

    output: Key
    started: bool


@dataclass
class _Task:
    open_requests: set[str]
    started: bool = False


@dataclass
class Dispatch:
    """The requests that are on the cluster, or kept to be submitted.

    Attributes:
        client: the connection to the cluster.
        running: the requests whose recipes run.
    """

    client: RunClient
    running: set[str] = field(default_factory=set)
    _requests: dict[str, tuple[Key, str]] = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _unsent: dict[tuple[tuple[str, float], ...], list[MakeRequest]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_busy(self) -> bool:
        """Whether a recipe runs, or may be about to."""
        return any(task.started for task in self._tasks.values())

    @property
    def not_started(self) -> list[str]:
        """The tasks of which no recipe has started."""
        return [name for name, task in self._tasks.items() if not task.started]

    @property
    def known_outputs(self) -> set[Key]:
        """The outputs that the cluster's view lists: running, or first of a task."""
        names = self.running.union(self.not_started)
        return {self._requests[name][0] for name in names if name in self._requests}

    @staticmethod
    def batch_size(ready: int, workers: Sequence[dict[str, float]]) -> int:
        """How many of ``ready`` outputs to submit as one task."""
        slots = sum(max(1, int(worker["CPU"])) for worker in workers)
        return min(_MAX_BATCH, max(1, ready // (_BATCHES_PER_SLOT * slots))) if slots else 1

    def add(self, request: MakeRequest, resources: dict[str, float] | None, size: int) -> None:
        """Submit a request, or keep it until ``size`` have the same resources."""
        if size == 1:
            self._send([request], resources)
            return
        amounts = tuple((resources or {}).items())
        self._unsent.setdefault(amounts, []).append(request)
        if len(self._unsent[amounts]) == size:
            self._send(self._unsent.pop(amounts), resources)

    def flush(self) -> None:
        """Submit the requests that were kept."""
        for amounts, requests in self._unsent.items():
            self._send(requests, dict(amounts) or None)
        self._unsent.clear()

    def _send(self, requests: list[MakeRequest], resources: dict[str, float] | None) -> None:
        task = requests[0].key
        for request in requests:
            self._requests[request.key] = (request.output.key, task)
        self.client.submit(_MAKE, tuple(requests), task, resources)
        self._tasks[task] = _Task({request.key for request in requests})

    def output(self, request: str) -> Key | None:
        """The output of an open request."""
        return self._requests[request][0] if request in self._requests else None

    def mark_running(self, request: str) -> Key | None:
        """Mark a request's recipe running; its output, None if it is closed."""
        if request not in self._requests:
            return None
        key, task = self._requests[request]
        self.running.add(request)
        self._tasks[task].started = True
        return key

    def mark_started(self, tasks: Sequence[str]) -> None:
        """Mark tasks started that have sent no message yet."""
        for task in tasks:
            if task in self._tasks:
                self._tasks[task].started = True

    def close(self, request: str) -> Key | None:
        """Close a request; its output, None if it was closed before."""
        self.running.discard(request)
        key, task = self._requests.pop(request, (None, ""))
        if key is not None:
            self._tasks[task].open_requests.discard(request)
            if not self._tasks[task].open_requests:
                del self._tasks[task]
        return key

    def close_task(self, task: str) -> list[LostRequest]:
        """Close the open requests of an ended task, and return them."""
        entry = self._tasks.get(task)
        lost = []
        for request in sorted(entry.open_requests) if entry is not None else ():
            started = request in self.running
            key = self.close(request)
            if key is not None:
                lost.append(LostRequest(key, started))
        return lost
