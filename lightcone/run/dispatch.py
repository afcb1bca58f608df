"""What a run has given to the cluster: orders, each alone or several as one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightcone.analysis.output import Key
from lightcone.run.link import Link
from lightcone.run.order import Order

__all__ = ["Dispatch", "Lost"]

_MAKE = "lightcone.run.batch:make"
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
        link: the line to the cluster.
        running: the orders whose recipes run.
    """

    link: Link
    running: set[str] = field(default_factory=set)
    _orders: dict[str, tuple[Key, str]] = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _unsent: dict[tuple[tuple[str, float], ...], list[Order]] = field(default_factory=dict)

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
        return {self._orders[name][0] for name in names if name in self._orders}

    @staticmethod
    def batch_size(ready: int, workers: Sequence[dict[str, float]]) -> int:
        """How many of so many outputs that are ready are worth one task of the cluster."""
        places = sum(max(1, int(worker["CPU"])) for worker in workers)
        return min(_LONGEST, max(1, ready // (_FOR_EACH_PLACE * places))) if places else 1

    def add(self, order: Order, resources: dict[str, float] | None, size: int) -> None:
        """Give an order to the cluster, or keep it until ``size`` of them ask for the same."""
        if size == 1:
            self._send([order], resources)
            return
        needs = tuple((resources or {}).items())
        self._unsent.setdefault(needs, []).append(order)
        if len(self._unsent[needs]) == size:
            self._send(self._unsent.pop(needs), resources)

    def send_all(self) -> None:
        """Give what was kept to the cluster too."""
        for needs, orders in self._unsent.items():
            self._send(orders, dict(needs) or None)
        self._unsent.clear()

    def _send(self, orders: list[Order], resources: dict[str, float] | None) -> None:
        task = orders[0].key
        for order in orders:
            self._orders[order.key] = (order.output.key, task)
        self.link.submit(_MAKE, tuple(orders), task, resources)
        self._tasks[task] = _Task({order.key for order in orders})

    def output(self, order: str) -> Key | None:
        """The output of an order that is open."""
        return self._orders[order][0] if order in self._orders else None

    def begin(self, order: str) -> Key | None:
        """The recipe of an order runs; its output, unless the order is closed."""
        if order not in self._orders:
            return None
        key, task = self._orders[order]
        self.running.add(order)
        self._tasks[task].begun = True
        return key

    def have_begun(self, tasks: Sequence[str]) -> None:
        """These tasks have begun, though nothing has been heard of them."""
        for task in tasks:
            if task in self._tasks:
                self._tasks[task].begun = True

    def close(self, order: str) -> Key | None:
        """Nothing more will come of an order; its output, None if it was closed before."""
        self.running.discard(order)
        key, task = self._orders.pop(order, (None, ""))
        if key is not None:
            self._tasks[task].left.discard(order)
            if not self._tasks[task].left:
                del self._tasks[task]
        return key

    def lose(self, task: str) -> list[Lost]:
        """A task has ended; closes what is open of it, and returns that."""
        found = self._tasks.get(task)
        lost = []
        for order in sorted(found.left) if found is not None else ():
            begun = order in self.running
            key = self.close(order)
            if key is not None:
                lost.append(Lost(key, begun))
        return lost
