"""What a run has given to the cluster: orders, each alone or several as one task."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lightcone.run.client import RunClient
from lightcone.spec.output import Key, Output
from lightcone.state.manifest import read_manifest
from lightcone.wire.requests import MakeRequest

__all__ = ["Dispatch", "Graph", "Lost", "describe_waiting"]


class Graph:
    """The outputs of a run and what needs what.

    Attributes:
        outputs: every output, in dependency order.
        open: those of which it is not known yet what becomes of them.
        ready: those of which all inputs are good, in the order in which they became so.
        versions: the data version of each that is good.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = {output.key: output for output in outputs}
        self.open: set[Key] = set(self.outputs)
        self.versions: dict[Key, str] = {}
        self._producers = {
            output.key: {
                given.id: (output.universe, given.producer)
                for given in output.inputs
                if given.producer is not None
            }
            for output in outputs
        }
        self._consumers: dict[Key, list[Key]] = {}
        for key, needed in self._producers.items():
            for producer in dict.fromkeys(needed.values()):
                self._consumers.setdefault(producer, []).append(key)
        self.ready = deque(key for key in self.outputs if not self._producers[key])

    def producers(self, output: Output) -> Iterable[tuple[str, Output]]:
        """The inputs of ``output`` that outputs make: the id, and the output that makes it."""
        for name, key in self._producers[output.key].items():
            yield name, self.outputs[key]

    def good(self, output: Output, version: str) -> None:
        """The output is good: those are ready that waited for it alone."""
        self.versions[output.key] = version
        self.open.discard(output.key)
        for consumer in self._consumers.get(output.key, ()):
            if self.versions.keys() >= set(self._producers[consumer].values()):
                self.ready.append(consumer)

    def bad(self, output: Output) -> list[Output]:
        """The output cannot be made; returns those that need it and so cannot be made either."""
        self.open.discard(output.key)
        blocked = []
        waiting = deque(self._consumers.get(output.key, ()))
        while waiting:
            key = waiting.popleft()
            if key in self.open:
                self.open.discard(key)
                blocked.append(self.outputs[key])
                waiting.extend(self._consumers.get(key, ()))
        return blocked

    def again(self, output: Output) -> None:
        """The output is ready once more, with its inputs as they are recorded now."""
        for _, producer in self.producers(output):
            found = read_manifest(producer.state_dir)
            if found is not None:
                self.versions[producer.key] = found.data.version
        self.ready.append(output.key)


_LISTED = 100

_NAMED = 3


def describe_waiting(
    graph: Graph, given: Collection[Key], claimed: Mapping[Key, str], jobs: float
) -> dict[str, Any]:
    """The outputs that wait with the driver, the first hundred by name, each with why.

    Args:
        graph: the run's.
        given: those that the cluster has.
        claimed: who makes those that somebody else was making when they were last looked at.
        jobs: how many the cluster may have at once.
    """
    ready = set(graph.ready)
    left = [key for key in graph.outputs if key in graph.open and key not in given]
    listed = [
        (graph.outputs[key].name, _why(graph, graph.outputs[key], key in ready, claimed, jobs))
        for key in islice(left, _LISTED)
    ]
    return {"waiting": listed, "waiting_count": len(left)}


def _why(
    graph: Graph, output: Output, is_ready: bool, claimed: Mapping[Key, str], jobs: float
) -> str:
    if is_ready:
        return f"for its turn: {jobs:g} at once, as -j says"
    needed = {producer.key: producer.name for _, producer in graph.producers(output)}
    missing = [name for key, name in needed.items() if key not in graph.versions]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return f"for {', '.join(missing[:_NAMED])}{more}"
    return f"for {claimed[output.key]}" if output.key in claimed else "about to begin"


_MAKE = "lightcone.worker.batch:make"

# How many outputs a batch has at most, and how many batches there are at least for each place where
# one can be made, so that all places are busy to the end.
_LONGEST = 50

_FOR_EACH_PLACE = 4


@dataclass(frozen=True)
class Lost:
    """An order whose task has ended without a word of it.

    Attributes:
        output: what was to be made.
        begun: whether its recipe ran.
    """

    output: Key
    begun: bool


@dataclass
class _Task:
    left: set[str]
    begun: bool = False


@dataclass
class Dispatch:
    """The orders that are with the cluster, or about to be.

    Attributes:
        client: the connection to the cluster.
        running: the orders whose recipes run.
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
        return any(task.begun for task in self._tasks.values())

    @property
    def unbegun(self) -> list[str]:
        """The tasks of which nothing has begun."""
        return [name for name, task in self._tasks.items() if not task.begun]

    @property
    def named(self) -> set[Key]:
        """The outputs that the cluster itself knows by name: what runs, and the first of a task."""
        names = self.running.union(self.unbegun)
        return {self._requests[name][0] for name in names if name in self._requests}

    @staticmethod
    def batch_size(ready: int, workers: Sequence[dict[str, float]]) -> int:
        """How many of so many outputs that are ready are worth one task of the cluster."""
        places = sum(max(1, int(worker["CPU"])) for worker in workers)
        return min(_LONGEST, max(1, ready // (_FOR_EACH_PLACE * places))) if places else 1

    def add(self, request: MakeRequest, resources: dict[str, float] | None, size: int) -> None:
        """Give an order to the cluster, or keep it until ``size`` of them ask for the same."""
        if size == 1:
            self._send([request], resources)
            return
        needs = tuple((resources or {}).items())
        self._unsent.setdefault(needs, []).append(request)
        if len(self._unsent[needs]) == size:
            self._send(self._unsent.pop(needs), resources)

    def send_all(self) -> None:
        """Give what was kept to the cluster too."""
        for needs, requests in self._unsent.items():
            self._send(requests, dict(needs) or None)
        self._unsent.clear()

    def _send(self, requests: list[MakeRequest], resources: dict[str, float] | None) -> None:
        task = requests[0].key
        for request in requests:
            self._requests[request.key] = (request.output.key, task)
        self.client.submit(_MAKE, tuple(requests), task, resources)
        self._tasks[task] = _Task({request.key for request in requests})

    def output(self, request: str) -> Key | None:
        """The output of an order that is open."""
        return self._requests[request][0] if request in self._requests else None

    def begin(self, request: str) -> Key | None:
        """The recipe of an order runs; its output, unless the order is closed."""
        if request not in self._requests:
            return None
        key, task = self._requests[request]
        self.running.add(request)
        self._tasks[task].begun = True
        return key

    def have_begun(self, tasks: Sequence[str]) -> None:
        """These tasks have begun, though nothing has been heard of them."""
        for task in tasks:
            if task in self._tasks:
                self._tasks[task].begun = True

    def close(self, request: str) -> Key | None:
        """Nothing more will come of an order; its output, None if it was closed before."""
        self.running.discard(request)
        key, task = self._requests.pop(request, (None, ""))
        if key is not None:
            self._tasks[task].left.discard(request)
            if not self._tasks[task].left:
                del self._tasks[task]
        return key

    def lose(self, task: str) -> list[Lost]:
        """A task has ended; closes what is open of it, and returns that."""
        found = self._tasks.get(task)
        lost = []
        for request in sorted(found.left) if found is not None else ():
            begun = request in self.running
            key = self.close(request)
            if key is not None:
                lost.append(Lost(key, begun))
        return lost
