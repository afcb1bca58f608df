"""Makes a batch of outputs on a worker, in turn, as one task."""

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
_FLUSH_LIMIT = 16


def make(requests: tuple[MakeRequest, ...]) -> None:
    """Make the outputs of ``requests`` in turn, reporting each to their driver.

    Meant for quick recipes. While one runs, the results before it are flushed to the disk, and the
    next one is prepared. The rest of a batch that turns out to be slow, or is cancelled, is handed
    back to the driver, and the preparation of the next one is undone.
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
        # The next output, prepared: none before a recipe was quick, and none once the rest was
        # handed back, as its claim keeps other runs from the output.
        self.prepared: Generator[None, None, None] | None = None
        self.is_quick = False
        self.is_handed_back = False
        self.lock = threading.Lock()

    def run(self) -> None:
        if len(self.waiting) == 1:
            for _ in self._steps(self.waiting.popleft()):
                pass
            return
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,), daemon=True)
        watch.start()
        slots = threading.BoundedSemaphore(_FLUSH_LIMIT)

        def finish(steps: Iterator[None]) -> None:
            try:
                for _ in steps:
                    pass
            finally:
                slots.release()

        with ThreadPoolExecutor(_FLUSH_LIMIT) as pool:
            finishing = []
            while not self.task.cancelled and (steps := self._next()) is not None:
                slots.acquire()
                next(steps, None)
                self.is_quick = True
                finishing.append(pool.submit(finish, steps))
            done.set()
            watch.join()  # it may be undoing what was prepared
            self._hand_back()
        for each in finishing:
            each.result()

    def _next(self) -> Generator[None, None, None] | None:
        """Return the next request's steps, the first done; None at the end."""
        with self.lock:
            steps, self.prepared = self.prepared, None
        return steps or self._prepare()

    def _prepare(self) -> Generator[None, None, None] | None:
        try:
            steps = self._steps(self.waiting.popleft())
        except IndexError:
            return None  # or handed back just now
        next(steps, None)
        return steps

    def _prepare_ahead(self) -> None:
        may_prepare = self.is_quick and not self.task.cancelled
        steps = self._prepare() if may_prepare else None
        with self.lock:
            if not self.is_handed_back:
                self.prepared = steps
                return
        if steps is not None:
            steps.close()

    def _steps(self, request: MakeRequest) -> Generator[None, None, None]:
        with self.task.subtask(request.key) as subtask:
            steps = OutputMaker(subtask, request, self._prepare_ahead, self.real_path).steps()
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

    def _watch(self, done: threading.Event) -> None:
        remaining, checks = -1, 0
        while len(self.waiting) != remaining and checks * _QUICK < _TURN:
            remaining, checks = len(self.waiting), checks + 1
            if done.wait(_QUICK):
                return
        self._hand_back()

    def _hand_back(self) -> None:
        with self.lock:
            self.is_handed_back = True
            steps, self.prepared = self.prepared, None
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
