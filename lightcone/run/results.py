"""What becomes of a run's outputs: entered in its graph, and told to its reporter."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lightcone.errors import SessionError
from lightcone.run.dispatch import Dispatch, Graph, Lost
from lightcone.run.report import Reporter
from lightcone.slurm import jobs
from lightcone.spec.output import Key, Output
from lightcone.state.claims import wait_for
from lightcone.state.journal import JOURNAL
from lightcone.wire.protocol import LOST
from lightcone.wire.requests import Result

__all__ = ["Results", "Stop"]


class Stop:
    """Why a run stops: it is interrupted, or the allocation that it is in ends.

    Args:
        job: the allocation, if there is one.
        reporter: is told, and knows, that its time is over.

    Attributes:
        interrupts: how often the recipes have been asked to end.
    """

    def __init__(self, job: int | None, reporter: Reporter) -> None:
        self.interrupts = 0
        self._job = job
        self._reporter = reporter

    @property
    def is_wanted(self) -> bool:
        """Whether nothing more is to be begun."""
        return bool(self.interrupts) or self._reporter.out_of_time

    def is_over(self) -> bool:
        """Whether the allocation that the session belongs to has ended, which is then told."""
        if self._job is None or self._reporter.out_of_time:
            return self._reporter.out_of_time
        if jobs.job_state(self._job).state.is_over:
            self._reporter.out_of_time = True
            self._reporter.note(f"the allocation, SLURM job {self._job}, has ended")
        return self._reporter.out_of_time


_ATTEMPTS = 3


class Results:
    """Takes in what comes back from the cluster.

    Args:
        graph: the run's.
        dispatch: what has been given to the cluster.
        reporter: is told what becomes of each output.
        stop: whether the run is to stop.
        force: what is made again though good, until it has been made.
        claims: where the locks on outputs are.
        events: gets ``("free", key)`` when it is worth trying again what somebody else had.

    Attributes:
        attempts: how often each output was given to the cluster for a reason of its own.
        alone: those that are not to be one of a batch.
        waiting_for: who made those that somebody else was making when they were last looked at.
    """

    def __init__(
        self,
        graph: Graph,
        dispatch: Dispatch,
        reporter: Reporter,
        stop: Stop,
        force: set[Key],
        claims: Path,
        events: SimpleQueue[tuple[str, Any]],
    ) -> None:
        self.graph = graph
        self.dispatch = dispatch
        self.reporter = reporter
        self.stop = stop
        self.force = force
        self.claims = claims
        self.events = events
        self.attempts: dict[Key, int] = {}
        self.alone: set[Key] = set()
        self.waiting_for: dict[Key, str] = {}

    def good(self, output: Output, version: str, seconds: float | None = None) -> None:
        """The output is good: it was made within so many seconds, or was good already."""
        if seconds is None:
            self.reporter.up_to_date(output)
        else:
            self.reporter.made(output, seconds)
        self.graph.good(output, version)

    def failed(self, output: Output, told: Mapping[str, Any]) -> None:
        """The output cannot be made, nor what needs it."""
        self.reporter.failed(output, told)
        for blocked in self.graph.bad(output):
            self.reporter.blocked(blocked, output)

    def left(self, output: Output, why: str) -> None:
        """The output is not made for want of time, nor what needs it."""
        self.reporter.left(output, why)
        for blocked in self.graph.bad(output):
            self.reporter.left(blocked, f"it needs {output.name}")

    def interrupted(self, key: Key) -> None:
        """The output's recipe was ended before it was done."""
        self.reporter.interrupted(self.graph.outputs[key])
        self.graph.open.discard(key)

    def on_start(self, message: dict[str, Any]) -> None:
        """A recipe runs."""
        key = self.dispatch.begin(message["key"])
        if key is not None:
            self.reporter.started(self.graph.outputs[key])

    def on_lines(self, message: dict[str, Any]) -> None:
        """A recipe has printed something."""
        key = self.dispatch.output(message["key"])
        if key is not None:
            self.reporter.lines(self.graph.outputs[key], message["lines"])

    def on_returned(self, message: dict[str, Any]) -> None:
        """Orders of a batch come back, not begun."""
        for request in message["keys"]:
            key = self.dispatch.close(request)
            if key is not None:
                self._later(key)

    def on_done(self, message: dict[str, Any]) -> None:
        """An order is over; :class:`Result` says how."""
        key = self.dispatch.close(message["key"])
        if key is None:
            return
        output, result = self.graph.outputs[key], Result(message["result"])
        if result in (Result.MADE, Result.GOOD):
            self.force.discard(key)
            # The version is not read here: somebody else may be remaking it by now.
            self.good(output, message["version"], message.get("seconds"))
        elif result is Result.BUSY:
            self.attempts[key] -= 1
            if self.waiting_for.get(key) != message["by"]:
                self.waiting_for[key] = message["by"]
                self.reporter.waiting(output, message["by"])
            wait = (key, message["lock"], message["shared"])
            threading.Thread(target=self._wait_for_claim, args=wait, daemon=True).start()
        elif result is Result.LEFT:
            self.left(output, message["reason"])
        elif result is Result.CHANGED:
            # What somebody has made meanwhile, nobody makes without end.
            self.attempts[key] -= message["during_recipe"]
            self._again(output, message["reason"])
        elif result is Result.INTERRUPTED and (self.stop.interrupts or self.stop.is_over()):
            self.interrupted(key)
        elif result is Result.INTERRUPTED:
            # Not by this run: the worker is closing, and its session may be with it.
            self._again(output, "its worker was asked to end")
        else:
            log = {"log": str(output.log)} if "exit_code" in message else {}
            self.failed(output, message | log)

    def on_lost(self, value: tuple[str, str]) -> None:
        """A task has ended without having said so."""
        task, reason = value
        for lost in self.dispatch.lose(task):
            if self.stop.interrupts:
                continue
            if self.stop.is_over():
                if lost.begun:
                    self.interrupted(lost.output)
            elif reason == LOST and not self._has_begun(lost):
                self._later(lost.output)
            else:
                self.alone.add(lost.output)
                self._again(self.graph.outputs[lost.output], reason)

    def on_free(self, key: Key) -> None:
        """It is worth trying the output again."""
        self.attempts.setdefault(key, 0)
        self.graph.again(self.graph.outputs[key])

    def _later(self, key: Key) -> None:
        """The output has not been begun, for a reason that lay in others."""
        self.alone.add(key)
        self.attempts[key] -= 1
        self.graph.again(self.graph.outputs[key])

    def _again(self, output: Output, reason: str) -> None:
        if self.attempts[output.key] >= _ATTEMPTS:
            self.failed(output, {"reason": f"{reason}, {_ATTEMPTS} times"})
            return
        self.reporter.note(f"{output.name}: {reason}; trying again")
        self.on_free(output.key)

    def _wait_for_claim(self, key: Key, lock: str | None, shared: bool) -> None:
        with contextlib.suppress(SessionError):
            wait_for(None if lock is None else self.claims / lock, shared)
        self.events.put(("free", key))

    def _has_begun(self, lost: Lost) -> bool:
        # Word that it was begun may have been lost with its worker.
        state = self.graph.outputs[lost.output].state_dir
        return lost.begun or os.path.lexists(state / JOURNAL)
