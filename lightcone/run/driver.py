"""The driver of a run: walks the outputs, and has each made when its inputs are good.

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
from lightcone.wire.requests import MakeRequest, Outcome, RunOptions

__all__ = ["Driver"]


class Driver:
    """Brings outputs up to date on a cluster.

    Args:
        context: the project's context.
        outputs: everything that is wanted, with all it needs, in dependency order.
        plan: what is known of each.
        force: what is made again though good.
        connection: the cluster.
        reporter: is told everything that happens.
        wishes: how it is to be done.
    """

    def __init__(
        self,
        context: Context,
        outputs: Sequence[Output],
        plan: Mapping[Key, Assessment],
        force: frozenset[Key],
        connection: Connection,
        reporter: Reporter,
        wishes: RunOptions,
    ) -> None:
        self.context = context
        self.claims, self.hashes = context.claims, context.hashes
        self.graph = Graph(outputs)
        self.plan = plan
        self.connection = connection
        self.reporter = reporter
        self.wishes = wishes
        self.client = RunClient(
            connection.transport, "lc run", context.settings.grace, reports_progress=True
        )
        self.dispatch = Dispatch(self.client)
        self.serial = itertools.count(1)
        self.walltime = Walltime(connection.ends_at, context.settings.grace)
        self.stop = Stop(context.job, reporter)
        self.is_asking = False  # which tasks have begun, before it leaves them
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
        """Make what is to be made, as far as nobody interrupts it and the allocation's time goes.

        Raises:
            SessionError: where the cluster is lost on the way.
        """
        with self.client.open():
            while True:
                size = self._batch_size()
                while self.graph.ready and self._has_room():
                    self._consider(self.graph.ready.popleft(), size)
                self.dispatch.send_all()
                if not self.graph.open or (self._is_failing() and not self.dispatch):
                    return self._outcome()
                if self.stop.is_wanted and not (self.is_asking or self.dispatch.is_busy):
                    return self._outcome()
                try:
                    left = math.inf if self.stop.interrupts else self.walltime.remaining()
                    what, value = self.client.next(left)
                except Empty:
                    if self.stop.interrupts:
                        self.reporter.note(
                            "the cluster does not answer: the recipes end when it does"
                            if self.is_asking
                            else "not every recipe has ended: look at 'lc session logs worker'"
                        )
                        return self._outcome()
                    if self.walltime.remaining() > 0:
                        continue
                    self.is_asking = True
                    self.client.interrupt()
                    self.reporter.note("the allocation is about to end: asking the recipes to end")
                    self.reporter.out_of_time = True
                    continue
                if what == "interrupt":
                    self.stop.is_over()  # as when a job script is asked to end
                    self.stop.interrupts = value
                    self.reporter.interrupting(len(self.dispatch.running), again=value > 1)
                    self.is_asking = True
                elif what == "begun":
                    self.is_asking = False
                    self.dispatch.have_begun(value)
                    self.client.cancel(self.dispatch.unbegun)
                elif what == "end":
                    if self.stop.is_over():
                        return self._outcome()
                    raise self._lost(value)
                elif what == "messages":
                    for message in value:
                        if message["event"] == "progress_wanted":
                            self._answer()
                        else:
                            getattr(self.results, f"on_{message['event']}")(message)
                else:
                    getattr(self.results, f"on_{what}")(value)

    def _outcome(self) -> Outcome:
        if self.reporter.out_of_time or (self.reporter.counts["left"] and not self.stop.interrupts):
            for request in sorted(self.dispatch.running):
                key = self.dispatch.output(request)
                if key is not None:
                    self.results.interrupted(key)
            for key in [key for key in self.graph.outputs if key in self.graph.open]:
                self.reporter.left(self.graph.outputs[key], "the allocation's time is over")
            return Outcome.OUT_OF_TIME
        return Outcome.INTERRUPTED if self.stop.interrupts else Outcome.DONE

    def _has_room(self) -> bool:
        """Whether one more task may be given to the cluster."""
        return not self._is_failing() and len(self.dispatch) < self.wishes.jobs

    def _batch_size(self) -> int:
        """How many outputs may be one task of the cluster; where tasks are counted, one."""
        if self.wishes.fail_fast or not math.isinf(self.wishes.jobs):
            return 1
        return self.dispatch.batch_size(len(self.graph.ready), self.connection.resources)

    def _is_failing(self) -> bool:
        return self.wishes.fail_fast and bool(self.reporter.counts["failed"])

    def _consider(self, key: Key, size: int) -> None:
        """All inputs of the output are good: make it, unless it is good too.

        As one of a batch of ``size``, if nothing is known of it that speaks against that.
        """
        output = self.graph.outputs[key]
        if key not in self.graph.open or self.stop.is_wanted:
            return
        producers = [
            (name, producer, self.graph.versions[producer.key])
            for name, producer in self.graph.producers(output)
        ]
        known = self.plan[key]
        if not (known.state is State.OK and key not in self.results.attempts):
            versions = {name: version for name, _, version in producers}
            known = assess(output, versions, self.hashes)
            known = adopt(known, self.claims, self.hashes)
        if known.state is State.OK and key not in self.results.force and known.manifest is not None:
            self.results.good(output, known.manifest.data.version)
            return
        if known.provenance is None:
            self.results.failed(output, {"reason": known.why})
            return
        given = share_for_output(output, self.connection.resources, self.context.settings.oversized)
        if isinstance(given, Refused):
            self.results.failed(output, {"reason": given.why})
            return
        late = self.walltime.refusal_reason(output)
        if late is not None:
            self.results.left(output, late)
            return
        self.results.attempts[key] = self.results.attempts.get(key, 0) + 1
        request = MakeRequest(
            # A key that is used again would be given the old task's end.
            key=self.client.key(f"{output.name}-{next(self.serial)}"),
            output=output,
            provenance=known.provenance,
            producers=tuple(
                (name, producer.path, producer.state_dir, version)
                for name, producer, version in producers
            ),
            claims=self.claims,
            scratch=self.context.scratch,
            cpus=given.cpus,
            grace=self.context.settings.grace,
            force=key in self.results.force,
            resume=self.wishes.resume,
            ends_at=self.walltime.ends_at,
        )
        self.dispatch.add(request, given.resources, 1 if key in self.results.alone else size)

    def _answer(self) -> None:
        """Say how far the run is, to somebody who looks."""
        told = describe_waiting(
            self.graph, self.dispatch.named, self.results.waiting_for, self.wishes.jobs
        )
        counts = {name: count for name, count in self.reporter.counts.items() if count}
        self.client.report_progress({"total": len(self.graph.outputs), "counts": counts, **told})

    def _lost(self, reason: str) -> SessionError:
        external = self.connection.how == "external"
        who = "The cluster" if external else f"The session {self.context.name}"
        return SessionError(
            f"{who} ended during the run{f' ({reason})' if reason else ''}: run again, and what "
            "was made is kept."
        )
