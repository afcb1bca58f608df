"""On a worker: making outputs one after the other, as one task of the cluster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from lightcone.cluster.commands import current_task
from lightcone.cluster.task import Task
from lightcone.run.order import Order
from lightcone.run.recipe import Making

__all__ = ["make"]

# Seconds after which a recipe is no quick one, and those after which a batch has had its turn.
_QUICK = 0.25
_TURN = 2.0
# Results that are on their way to the disk at once: it takes as long for several as for one.
_FLUSHING = 16


def make(orders: tuple[Order, ...]) -> None:
    """Make the outputs of ``orders``, in turn, and tell their driver what became of each.

    Meant for quick recipes. While one runs, the results before it are brought to the disk. The rest
    of a batch that turns out to be slow, or is not wanted any more, is handed back to the driver.
    """
    with current_task() as task:
        task.describe_run()
        _Batch(task, orders).run()


class _Batch:
    def __init__(self, task: Task, orders: tuple[Order, ...]) -> None:
        self.task = task
        self.waiting = deque(orders)

    def run(self) -> None:
        if len(self.waiting) == 1:
            for _ in self._steps(self.waiting.popleft()):
                pass
            return
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over,), daemon=True).start()
        room = threading.BoundedSemaphore(_FLUSHING)

        def finish(steps: Iterator[None]) -> None:
            try:
                for _ in steps:
                    pass
            finally:
                room.release()

        with ThreadPoolExecutor(_FLUSHING) as pool:
            finishing = []
            while self.waiting and not self.task.unwanted:
                try:
                    steps = self._steps(self.waiting.popleft())
                except IndexError:
                    break  # handed back just now
                room.acquire()
                next(steps, None)
                finishing.append(pool.submit(finish, steps))
            over.set()
            self._hand_back()
        for each in finishing:
            each.result()

    def _steps(self, order: Order) -> Iterator[None]:
        with self.task.part(order.key) as part:
            steps = Making(part, order).steps()
            next(steps, None)
        yield
        yield from steps

    def _watch(self, over: threading.Event) -> None:
        left, looks = -1, 0
        while len(self.waiting) != left and looks * _QUICK < _TURN:
            left, looks = len(self.waiting), looks + 1
            if over.wait(_QUICK):
                return
        self._hand_back()

    def _hand_back(self) -> None:
        keys = []
        while self.waiting:
            try:
                keys.append(self.waiting.popleft().key)
            except IndexError:
                break
        if keys:
            self.task.emit({"event": "back", "keys": keys})
