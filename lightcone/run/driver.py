"""The driver of a run: requests each output when its inputs are good.

The engine is given one output at a time and never sees what depends on what: with the whole graph
it would make a finished output again when a worker dies, beside the dead worker's recipe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from queue import Empty

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.run.client import RunClient
from lightcone.run.dispatch import Dispatch, Graph, describe_waiting
from lightcone.run.report import Reporter
from lightcone.run.results import Results, Stop
from lightcone.run.sharing import Refused, share_for_output
from lightcone.session.connect import Connection
from lightcone.spec.output import Key, Output
from lightcone.state.adopt import adopt
from lightcone.state.plan import Assessment, State, assess
from lightcone.state.walltime import Walltime
from lightcone.wire.requests import MakeRequest, Outcome, ProducedInput, RunOptions

__all__ = ["Driver"]


class Driver:
    """Brings outputs up to date on a cluster.

    Args:
        context: the project's context.
        outputs: the outputs to bring up to date, with their inputs, in topological order.
        plan: the assessment of each.
        force: the outputs to make although they are good.
        connection: the cluster.
        reporter: gets every event.
        options: those of the run.
    """

    def __init__(
        self,
        context: Context,
        outputs: Sequence[Output],
        plan: Mapping[Key, Assessment],
        force: frozenset[Key],
        connection: Connection,
        reporter: Reporter,
        options: RunOptions,
    ) -> None:
        self.context = context
        self.claims, self.hashes = context.claims, context.hashes
        self.graph = Graph(outputs)
        self.plan = plan
        self.connection = connection
        self.reporter = reporter
        self.options = options
        self.client = RunClient(
            connection.transport, "lc run", context.settings.grace, reports_progress=True
        )
        self.dispatch = Dispatch(self.client)
        self.serial = itertools.count(1)
        self.walltime = Walltime(connection.ends_at, context.settings.grace)
        self.stop = Stop(context.job, reporter)
        # After an interrupt, the reply that names the tasks that have started.
        self.awaits_started = False
        self.results = Results(
            self.graph,
            self.dispatch,
            reporter,
            self.stop,
            set(force),
            self.claims,
            self.client.events,
        )

    def run(self) -> Outcome:
        """Make the outputs, until done, interrupted or out of time.

        Raises:
            SessionError: where the cluster is lost on the way.
        """
        with self.client.open():
            while True:
                size = self._batch_size()
                while self.graph.ready and self._has_room():
                    self._consider(self.graph.ready.popleft(), size)
                self.dispatch.flush()
                if not self.graph.pending or (self._is_failing() and not self.dispatch):
                    return self._outcome()
                if self.stop.is_requested and not (self.awaits_started or self.dispatch.is_busy):
                    return self._outcome()
                try:
                    timeout = math.inf if self.stop.interrupts else self.walltime.remaining()
                    event, value = self.client.next(timeout)
                except Empty:
                    if self.stop.interrupts:
                        self.reporter.note(
                            "the cluster does not answer: the recipes end when it does"
                            if self.awaits_started
                            else "not every recipe has ended: look at 'lc session logs worker'"
                        )
                        return self._outcome()
                    if self.walltime.remaining() > 0:
                        continue
                    self.awaits_started = True
                    self.client.interrupt()
                    self.reporter.note("the allocation is about to end: asking the recipes to end")
                    self.reporter.out_of_time = True
                    continue
                if event == "interrupt":
                    self.stop.has_allocation_ended()  # as when a job script is asked to end
                    self.stop.interrupts = value
                    self.reporter.interrupting(len(self.dispatch.running), repeated=value > 1)
                    self.awaits_started = True
                elif event == "begun":
                    self.awaits_started = False
                    self.dispatch.mark_started(value)
                    self.client.cancel(self.dispatch.not_started)
                elif event == "end":
                    if self.stop.has_allocation_ended():
                        return self._outcome()
                    raise self._lost_error(value)
                elif event == "messages":
                    for message in value:
                        if message["event"] == "progress_wanted":
                            self._report_progress()
                        else:
                            getattr(self.results, f"on_{message['event']}")(message)
                else:
                    getattr(self.results, f"on_{event}")(value)

    def _outcome(self) -> Outcome:
        if self.reporter.out_of_time or (self.reporter.counts["left"] and not self.stop.interrupts):
            for request in sorted(self.dispatch.running):
                key = self.dispatch.output(request)
                if key is not None:
                    self.results.mark_interrupted(key)
            for key in [key for key in self.graph.outputs if key in self.graph.pending]:
                self.reporter.left(self.graph.outputs[key], "the allocation's time is over")
            return Outcome.OUT_OF_TIME
        return Outcome.INTERRUPTED if self.stop.interrupts else Outcome.DONE

    def _has_room(self) -> bool:
        """Whether one more task may be submitted."""
        return not self._is_failing() and len(self.dispatch) < self.options.jobs

    def _batch_size(self) -> int:
        """How many outputs may be one task; one where the jobs are limited."""
        if self.options.fail_fast or not math.isinf(self.options.jobs):
            return 1
        return self.dispatch.batch_size(len(self.graph.ready), self.connection.resources)

    def _is_failing(self) -> bool:
        return self.options.fail_fast and bool(self.reporter.counts["failed"])

    def _consider(self, key: Key, size: int) -> None:
        """Request the output, whose inputs are good, unless it is good too.

        It becomes one of a batch of ``size``, unless it has to be a task of its own.
        """
        output = self.graph.outputs[key]
        if key not in self.graph.pending or self.stop.is_requested:
            return
        is_retry = key in self.results.attempts
        reason = self._update_inputs(output) if is_retry else ""
        if reason:
            self.results.mark_failed(output, {"reason": reason})
            return
        assessment = self.plan[key]
        if not assessment.is_good or is_retry:
            assessment = assess(output, self._input_versions(output), self.hashes)
            assessment = adopt(assessment, self.claims, self.hashes)
        manifest = assessment.manifest
        if assessment.is_good and key not in self.results.force and manifest is not None:
            version, identity = manifest.data.version, manifest.identity
            if assessment.state is State.UNCONFIRMED:
                self.results.mark_unconfirmed(output, version, identity, assessment.why)
            else:
                self.results.mark_good(output, version, identity)
            return
        if assessment.provenance is None:
            self.results.mark_failed(output, {"reason": assessment.why})
            return
        share = share_for_output(output, self.connection.resources, self.context.settings.oversized)
        if isinstance(share, Refused):
            self.results.mark_failed(output, {"reason": share.why})
            return
        objection = self.walltime.refusal_reason(output)
        if objection is not None:
            self.results.mark_left(output, objection)
            return
        self.results.attempts[key] = self.results.attempts.get(key, 0) + 1
        settings = self.context.settings.for_output(output.universe, output.id)
        request = MakeRequest(
            # A key that is used again would be given the old task's end.
            key=self.client.key(f"{output.name}-{next(self.serial)}"),
            output=assessment.output,
            provenance=assessment.provenance,
            produced=tuple(
                ProducedInput(
                    name,
                    producer.path,
                    producer.state_dir,
                    self.graph.versions[producer.key],
                    self.graph.identities[producer.key],
                )
                for name, producer in self.graph.producers(output)
            ),
            claims=self.claims,
            scratch=self.context.scratch,
            cpus=share.cpus,
            grace=self.context.settings.grace,
            force=key in self.results.force,
            resume=self.options.resume or settings.resume,
            resume_by_rule=settings.resume,
            ends_at=self.walltime.ends_at,
            observe=settings.observe and (self.options.observe or self.context.settings.observe),
        )
        self.dispatch.add(request, share.resources, 1 if key in self.results.unbatched else size)

    def _input_versions(self, output: Output) -> dict[str, str]:
        return {
            name: self.graph.versions[producer.key]
            for name, producer in self.graph.producers(output)
        }

    def _update_inputs(self, output: Output) -> str:
        """Take the inputs that another run has remade, where this run would make the same.

        Returns why one of them is not good for this run, or "".
        """
        for producer in self.graph.remade_inputs(output):
            assessment = assess(producer, self._input_versions(producer), self.hashes)
            if assessment.state is not State.OK or assessment.manifest is None:
                return (
                    f"its input {producer.name} was remade by another run, and is stale for this "
                    f"one ({assessment.why}): run again"
                )
            self.graph.update(producer, assessment.manifest)
        return ""

    def _report_progress(self) -> None:
        """Report the run's progress to the viewers of the session."""
        waiting = describe_waiting(
            self.graph, self.dispatch.known_outputs, self.results.claimants, self.options.jobs
        )
        counts = {name: count for name, count in self.reporter.counts.items() if count}
        self.client.report_progress({"total": len(self.graph.outputs), "counts": counts, **waiting})

    def _lost_error(self, reason: str) -> SessionError:
        external = self.connection.origin == "external"
        name = "The cluster" if external else f"The session {self.context.name}"
        return SessionError(
            f"{name} ended during the run{f' ({reason})' if reason else ''}: run again, and what "
            "was made is kept."
        )
