"""The results of a run's outputs: recorded in its graph, and reported."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lightcone.errors import SessionError
from lightcone.run.dispatch import Dispatch, Graph, LostRequest
from lightcone.run.report import Reporter
from lightcone.slurm import jobs
from lightcone.spec.output import Key, Output
from lightcone.state.claims import wait_for
from lightcone.state.journal import JOURNAL
from lightcone.wire.protocol import LOST
from lightcone.wire.requests import Result

__all__ = ["Results", "Stop"]


class Stop:
    """Whether a run is to stop: interrupted, or its allocation ended.

    Args:
        job: the allocation, if there is one.
        reporter: records whether the time of the allocation is over.

    Attributes:
        interrupts: how often the recipes have been asked to end.
    """

    def __init__(self, job: int | None, reporter: Reporter) -> None:
        self.interrupts = 0
        self._job = job
        self._reporter = reporter

    @property
    def is_requested(self) -> bool:
        """Whether the run is to start nothing more."""
        return bool(self.interrupts) or self._reporter.out_of_time

    def has_allocation_ended(self) -> bool:
        """Whether the session's allocation has ended; reports it once."""
        if self._job is None or self._reporter.out_of_time:
            return self._reporter.out_of_time
        if jobs.job_state(self._job).state.is_over:
            self._reporter.out_of_time = True
            self._reporter.note(f"the allocation, SLURM job {self._job}, has ended")
        return self._reporter.out_of_time


_ATTEMPTS = 3


class Results:
    """Handles the cluster's messages about the outputs of a run.

    Args:
        graph: the run's.
        dispatch: the requests on the cluster.
        reporter: gets the result of each output.
        stop: whether the run is to stop.
        force: the outputs to make although they are good, until they have been made.
        claims: the directory of the locks on outputs.
        events: gets ``("free", key)`` when the claim on an output may be free again.

    Attributes:
        attempts: how many submissions of each output count against the limit.
        unbatched: the outputs that are not to be one of a batch.
        claimants: by output, who had claimed it when the run last tried to make it.
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
        self.unbatched: set[Key] = set()
        self.claimants: dict[Key, str] = {}
        self._noted: set[str] = set()
        self._names_by_place: dict[str, str] = {}

    def mark_good(
        self, output: Output, version: str, identity: str, seconds: float | None = None
    ) -> None:
        """Mark the output good: made within ``seconds``, or up to date."""
        if seconds is None:
            self.reporter.up_to_date(output)
        else:
            self.reporter.made(output, seconds)
        self.graph.mark_good(output, version, identity)

    def mark_unconfirmed(self, output: Output, version: str, identity: str, why: str) -> None:
        """Mark the output good by its record, of inputs that are not here."""
        self.reporter.unconfirmed(output, why)
        self.graph.mark_good(output, version, identity)

    def mark_failed(self, output: Output, failure: Mapping[str, Any]) -> None:
        """Mark the output failed, and its consumers blocked."""
        self.reporter.failed(output, failure)
        for blocked in self.graph.mark_failed(output):
            self.reporter.blocked(blocked, output)

    def mark_left(self, output: Output, why: str) -> None:
        """Leave the output and its consumers, as the allocation's time is short."""
        self.reporter.left(output, why)
        for blocked in self.graph.mark_failed(output):
            self.reporter.left(blocked, f"it needs {output.name}")

    def mark_interrupted(self, key: Key, message: Mapping[str, Any] | None = None) -> None:
        """Mark the output interrupted, because its recipe was ended, as ``message`` says."""
        self.reporter.interrupted(self.graph.outputs[key], message or {})
        self.graph.pending.discard(key)

    def on_start(self, message: dict[str, Any]) -> None:
        """Handle the start of a recipe."""
        key = self.dispatch.mark_running(message["key"])
        if key is not None:
            self.reporter.started(self.graph.outputs[key])
            self._report_remarks(self.graph.outputs[key], message)

    def on_lines(self, message: dict[str, Any]) -> None:
        """Handle lines that a recipe has printed."""
        key = self.dispatch.output(message["key"])
        if key is not None:
            self.reporter.lines(self.graph.outputs[key], message["lines"])

    def on_unobserved(self, message: dict[str, Any]) -> None:
        """Handle the reason why a recipe is not observed, which is reported once."""
        if message["text"] not in self._noted:
            self._noted.add(message["text"])
            self.reporter.note(message["text"])

    def on_returned(self, message: dict[str, Any]) -> None:
        """Handle the requests of a batch that were returned, not started."""
        for request in message["keys"]:
            key = self.dispatch.close(request)
            if key is not None:
                self._retry_alone(key)

    def on_done(self, message: dict[str, Any]) -> None:
        """Handle the end of a request, with its :class:`Result`."""
        key = self.dispatch.close(message["key"])
        if key is None:
            return
        output, result = self.graph.outputs[key], Result(message["result"])
        self._report_remarks(output, message)
        if result in (Result.MADE, Result.GOOD):
            self.force.discard(key)
            # Its record is not read here: another run may be remaking the output by now.
            version, identity = message["version"], message["identity"]
            self.mark_good(output, version, identity, message.get("seconds"))
            if "results_read" in message:
                self._report_undeclared(output, message)
        elif result is Result.BUSY:
            self.attempts[key] -= 1
            if self.claimants.get(key) != message["by"]:
                self.claimants[key] = message["by"]
                self.reporter.waiting(output, message["by"])
            wait = (key, message["lock"], message["shared"])
            threading.Thread(target=self._wait_for_claim, args=wait, daemon=True).start()
        elif result is Result.LEFT:
            self.mark_left(output, message["reason"])
        elif result is Result.CHANGED:
            self._retry_counted(output, message["reason"])
        elif result is Result.INTERRUPTED and (
            self.stop.interrupts or self.stop.has_allocation_ended()
        ):
            self.mark_interrupted(key, message)
        elif result is Result.INTERRUPTED:
            # Not by this run: the worker is closing, and its session may be with it.
            self._retry_counted(output, "its worker was asked to end")
        else:
            log = {"log": str(output.log)} if "exit_code" in message else {}
            self.mark_failed(output, message | log)

    def on_lost(self, value: tuple[str, str]) -> None:
        """Handle a task that ended without a last message."""
        task, reason = value
        for lost in self.dispatch.close_task(task):
            if self.stop.interrupts:
                continue
            if self.stop.has_allocation_ended():
                if lost.started:
                    self.mark_interrupted(lost.output)
            elif reason == LOST and not self._has_started(lost):
                self._retry_alone(lost.output)
            else:
                self.unbatched.add(lost.output)
                self._retry_counted(self.graph.outputs[lost.output], reason)

    def on_free(self, key: Key) -> None:
        """Retry an output whose claim may be free by now."""
        self.attempts.setdefault(key, 0)
        self.graph.retry(self.graph.outputs[key])

    def _report_undeclared(self, output: Output, message: Mapping[str, Any]) -> None:
        """Report the results and data that the recipe was seen to read without declaring them."""
        results = dict.fromkeys(self._name_result(output, file) for file in message["results_read"])
        data = list(message["data_read"])
        if results or data:
            self.reporter.undeclared(output, list(results), data)

    def _name_result(self, output: Output, file: str) -> str:
        """Return the name of the output of the run that ``file`` belongs to, or else the file."""
        if not self._names_by_place:
            self._names_by_place = {each.place: each.name for each in self.graph.outputs.values()}
        path = os.path.join(output.root, file)
        for place in (path, *map(str, Path(path).parents)):
            if place in self._names_by_place:
                return self._names_by_place[place]
        return file

    def _report_remarks(self, output: Output, message: Mapping[str, Any]) -> None:
        for remark in message.get("remarks", ()):
            self.reporter.note(f"{output.name}: {remark}")

    def _retry_alone(self, key: Key) -> None:
        """Retry the output outside a batch, without counting an attempt."""
        self.unbatched.add(key)
        self.attempts[key] -= 1
        self.graph.retry(self.graph.outputs[key])

    def _retry_counted(self, output: Output, reason: str) -> None:
        if self.attempts[output.key] >= _ATTEMPTS:
            self.mark_failed(output, {"reason": f"{reason}, {_ATTEMPTS} times"})
            return
        self.reporter.note(f"{output.name}: {reason}; trying again")
        self.on_free(output.key)

    def _wait_for_claim(self, key: Key, lock: str | None, shared: bool) -> None:
        with contextlib.suppress(SessionError):
            wait_for(None if lock is None else self.claims / lock, shared)
        self.events.put(("free", key))

    def _has_started(self, lost: LostRequest) -> bool:
        # The message that it started may have been lost with its worker.
        state = self.graph.outputs[lost.output].state_dir
        return lost.started or os.path.lexists(state / JOURNAL)
