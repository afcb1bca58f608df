"""On a worker: making outputs one after the other, as one task of the cluster."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from lightcone.wire.requests import MakeRequest
from lightcone.worker.recipe import OutputMaker
from lightcone.worker.tasks import Task, current_task

__all__ = ["make"]

# Seconds after which a recipe is no quick one, and those after which a batch has had its turn.
_QUICK = 0.25
_TURN = 2.0
# Results that are on their way to the disk at once: it takes as long for several as for one.
_FLUSHING = 16


def make(requests: tuple[MakeRequest, ...]) -> None:
    """Make the outputs of ``requests``, in turn, and tell their driver what became of each.

    Meant for quick recipes. While one runs, the results before it are brought to the disk, and the
    next one is prepared. The rest of a batch that turns out to be slow, or is not wanted any more,
    is handed back to the driver, and what was prepared of it is as if it had never been begun.
    """
    with current_task() as task:
        task.describe_run()
        _Batch(task, requests).run()


class _Batch:
    def __init__(self, task: Task, requests: tuple[MakeRequest, ...]) -> None:
        self.task = task
        self.waiting = deque(requests)
        # For no longer than a batch lasts: a directory may be moved between runs.
        self.real_path: Callable[[str], str] = functools.cache(os.path.realpath)
        # What has been prepared: none before a recipe was quick, and none once the rest was handed
        # back, as it keeps everybody else from its output.
        self.ahead: Generator[None, None, None] | None = None
        self.is_quick = False
        self.is_handed_back = False
        self.lock = threading.Lock()

    def run(self) -> None:
        if len(self.waiting) == 1:
            for _ in self._steps(self.waiting.popleft()):
                pass
            return
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        room = threading.BoundedSemaphore(_FLUSHING)

        def finish(steps: Iterator[None]) -> None:
            try:
                for _ in steps:
                    pass
            finally:
                room.release()

        with ThreadPoolExecutor(_FLUSHING) as pool:
            finishing = []
            while not self.task.unwanted and (steps := self._next()) is not None:
                room.acquire()
                next(steps, None)
                self.is_quick = True
                finishing.append(pool.submit(finish, steps))
            over.set()
            watch.join()  # it may be putting back what was ahead
            self._hand_back()
        for each in finishing:
            each.result()

    def _next(self) -> Generator[None, None, None] | None:
        """The steps of the next order, the first of them done; None where there is none left."""
        with self.lock:
            steps, self.ahead = self.ahead, None
        return steps or self._prepare()

    def _prepare(self) -> Generator[None, None, None] | None:
        try:
            steps = self._steps(self.waiting.popleft())
        except IndexError:
            return None  # or handed back just now
        next(steps, None)
        return steps

    def _prepare_ahead(self) -> None:
        may_prepare = self.is_quick and not self.task.unwanted
        steps = self._prepare() if may_prepare else None
        with self.lock:
            if not self.is_handed_back:
                self.ahead = steps
                return
        if steps is not None:
            steps.close()

    def _steps(self, request: MakeRequest) -> Generator[None, None, None]:
        with self.task.part(request.key) as part:
            steps = OutputMaker(part, request, self._prepare_ahead, self.real_path).steps()
            try:
                for _ in islice(steps, 1):
                    yield
            except GeneratorExit:
                steps.close()
                self.task.emit({"event": "returned", "keys": [request.key]})
                raise
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
        with self.lock:
            self.is_handed_back = True
            steps, self.ahead = self.ahead, None
        if steps is not None:
            steps.close()
        keys = []
        while self.waiting:
            try:
                keys.append(self.waiting.popleft().key)
            except IndexError:
                break
        if keys:
            self.task.emit({"event": "returned", "keys": keys})
