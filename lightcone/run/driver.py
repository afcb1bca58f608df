"""The driver of a run: walks the outputs, and has each made when its inputs are good.

The engine is given one output at a time and never sees what depends on what: with the whole graph
it would make a finished output again when a worker dies, beside the dead worker's recipe.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from queue import Empty
from typing import Any

from lightcone.analysis.adoption import adopt
from lightcone.analysis.journal import JOURNAL
from lightcone.analysis.output import Key, Output
from lightcone.analysis.output_locks import wait_for
from lightcone.analysis.plan import Assessment, State, assess
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.run.dispatch import Dispatch, Lost
from lightcone.run.graph import Graph
from lightcone.run.link import LOST, Link
from lightcone.run.order import Order, Outcome, Result, Wishes
from lightcone.run.progress import waiting
from lightcone.run.report import Reporter
from lightcone.run.share import Refused, share
from lightcone.run.walltime import Walltime
from lightcone.session.client import Connection
from lightcone.slurm import jobs
from lightcone.slurm.jobs import JobState

__all__ = ["Driver"]

_ATTEMPTS = 3
_MARGIN = 10.0


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
        wishes: Wishes,
    ) -> None:
        self.context = context
        self.graph = Graph(outputs)
        self.plan = plan
        self.force = set(force)
        self.connection = connection
        self.reporter = reporter
        self.wishes = wishes
        self.link = Link(connection, "lc run", tells=True)
        self.events = self.link.events
        self.dispatch = Dispatch(self.link)
        self.alone: set[Key] = set()
        self.attempts: dict[Key, int] = {}
        self.waiting_for: dict[Key, str] = {}
        self.serial = itertools.count(1)
        self.walltime = Walltime(connection.ends_at, context.settings.grace)
        self.interrupts = 0

    def run(self) -> Outcome:
        """Make what is to be made, as far as nobody interrupts it and the allocation's time goes.

        Raises:
            SessionError: where the cluster is lost on the way.
        """
        with self.link.open():
            deadline: float | None = None
            while True:
                size = self._batch_size()
                while self.graph.ready and self._has_room():
                    self._consider(self.graph.ready.popleft(), size)
                self.dispatch.send_all()
                if not self.graph.open or (self._is_failing() and not self.dispatch):
                    return self._outcome()
                if (self.interrupts or self.reporter.out_of_time) and not self.dispatch.is_busy:
                    return self._outcome()
                left = self.walltime.left() if deadline is None else deadline - time.monotonic()
                try:
                    what, value = self.events.get(timeout=_timeout(left))
                except Empty:
                    if deadline is not None:
                        self.reporter.note(
                            "not every recipe has ended: look at 'lc session logs worker'"
                        )
                        return self._outcome()
                    if self.walltime.left() > 0:
                        continue
                    self.reporter.note("the allocation is about to end: asking the recipes to end")
                    what, value = "interrupt", None
                    self.reporter.out_of_time = True
                if what == "end" and self._is_over():
                    return self._outcome()
                if what == "interrupt":
                    self._is_over()  # as when a job script is asked to end
                    self._interrupt()
                    deadline = time.monotonic() + self.context.settings.grace + _MARGIN
                else:
                    getattr(self, f"_on_{what}")(value)

    def _is_over(self) -> bool:
        """Whether the allocation that the session belongs to has ended, which is then told."""
        job = self.context.job
        if job is None or self.reporter.out_of_time:
            return self.reporter.out_of_time
        if jobs.job_state(job).state in (JobState.ENDING, JobState.ENDED):
            self.reporter.out_of_time = True
            self.reporter.note(f"the allocation, SLURM job {job}, has ended")
        return self.reporter.out_of_time

    def _outcome(self) -> Outcome:
        if self.reporter.out_of_time or (self.reporter.counts["left"] and not self.interrupts):
            for order in sorted(self.dispatch.running):
                key = self.dispatch.output(order)
                if key is not None:
                    self._interrupted(key)
            for key in [key for key in self.graph.outputs if key in self.graph.open]:
                self.reporter.left(self.graph.outputs[key], "the allocation's time is over")
            return Outcome.OUT_OF_TIME
        return Outcome.INTERRUPTED if self.interrupts else Outcome.DONE

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
        if key not in self.graph.open or self.interrupts or self.reporter.out_of_time:
            return
        producers = [
            (name, producer, self.graph.versions[producer.key])
            for name, producer in self.graph.producers(output)
        ]
        known = self.plan[key]
        if not (known.state is State.OK and key not in self.attempts):
            versions = {name: version for name, _, version in producers}
            known = assess(output, versions, self.context.hashes)
            known = adopt(known, self.context.claims, self.context.hashes)
        if known.state is State.OK and key not in self.force and known.manifest is not None:
            self.reporter.up_to_date(output)
            self.graph.good(output, known.manifest.data.version)
            return
        if known.parts is None:
            self._failed(output, {"reason": known.why})
            return
        given = share(output, self.connection.resources, self.context.settings.oversized)
        if isinstance(given, Refused):
            self._failed(output, {"reason": given.why})
            return
        late = self.walltime.objection(output)
        if late is not None:
            self._left(output, late)
            return
        self.attempts[key] = self.attempts.get(key, 0) + 1
        order = Order(
            # A key that is used again would be given the old task's end.
            key=self.link.key(f"{output.name}-{next(self.serial)}"),
            run=self.link.run,
            topic=self.link.topic,
            output=output,
            parts=known.parts,
            producers=tuple(
                (name, producer.path, producer.state_dir, version)
                for name, producer, version in producers
            ),
            claims=self.context.claims,
            scratch=self.context.scratch,
            cpus=given.cpus,
            grace=self.context.settings.grace,
            force=key in self.force,
            resume=self.wishes.resume,
            ends_at=self.walltime.ends_at,
        )
        self.dispatch.add(order, given.resources, 1 if key in self.alone else size)

    def _failed(self, output: Output, told: Mapping[str, Any]) -> None:
        self.reporter.failed(output, told)
        for blocked in self.graph.bad(output):
            self.reporter.blocked(blocked, output)

    def _left(self, output: Output, why: str) -> None:
        self.reporter.left(output, why)
        for blocked in self.graph.bad(output):
            self.reporter.left(blocked, f"it needs {output.name}")

    def _interrupted(self, key: Key) -> None:
        self.reporter.interrupted(self.graph.outputs[key])
        self.graph.open.discard(key)

    def _wait_for_claim(self, key: Key, lock: str | None, shared: bool) -> None:
        with contextlib.suppress(SessionError):
            wait_for(None if lock is None else self.context.claims / lock, shared)
        self.events.put(("free", key))

    def _on_messages(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            getattr(self, f"_on_{message['event']}")(message)

    def _on_asked(self, message: dict[str, Any]) -> None:
        told = waiting(self.graph, self.dispatch.named, self.waiting_for, self.wishes.jobs)
        counts = {name: count for name, count in self.reporter.counts.items() if count}
        self.link.tell({"total": len(self.graph.outputs), "counts": counts, **told})

    def _on_start(self, message: dict[str, Any]) -> None:
        key = self.dispatch.begin(message["key"])
        if key is not None:
            self.reporter.started(self.graph.outputs[key])

    def _on_lines(self, message: dict[str, Any]) -> None:
        key = self.dispatch.output(message["key"])
        if key is not None:
            self.reporter.lines(self.graph.outputs[key], message["lines"])

    def _on_back(self, message: dict[str, Any]) -> None:
        for order in message["keys"]:
            key = self.dispatch.close(order)
            if key is not None:
                self._later(key)

    def _later(self, key: Key) -> None:
        """The output has not been begun, for a reason that lay in others."""
        self.alone.add(key)
        self.attempts[key] -= 1
        self.graph.again(self.graph.outputs[key])

    def _on_done(self, message: dict[str, Any]) -> None:
        key = self.dispatch.close(message["key"])
        if key is None:
            return
        output, result = self.graph.outputs[key], Result(message["result"])
        if result in (Result.MADE, Result.GOOD):
            self.force.discard(key)
            if result is Result.MADE:
                self.reporter.made(output, message["seconds"])
            else:
                self.reporter.up_to_date(output)
            # The version is not read here: somebody else may be remaking it by now.
            self.graph.good(output, message["version"])
        elif result is Result.BUSY:
            self.attempts[key] -= 1
            if self.waiting_for.get(key) != message["by"]:
                self.waiting_for[key] = message["by"]
                self.reporter.waiting(output, message["by"])
            wait = (key, message["lock"], message["shared"])
            threading.Thread(target=self._wait_for_claim, args=wait, daemon=True).start()
        elif result is Result.LEFT:
            self._left(output, message["reason"])
        elif result is Result.CHANGED:
            # What somebody has made meanwhile, nobody makes without end.
            self.attempts[key] -= message["meanwhile"]
            self._again(output, message["reason"])
        elif result is Result.INTERRUPTED and (self.interrupts or self._is_over()):
            self._interrupted(key)
        elif result is Result.INTERRUPTED:
            # Not by this run: the worker is closing, and its session may be with it.
            self._again(output, "its worker was asked to end")
        else:
            log = {"log": str(output.log)} if "exit_code" in message else {}
            self._failed(output, message | log)

    def _on_lost(self, value: tuple[str, str]) -> None:
        task, reason = value
        for lost in self.dispatch.lose(task):
            if self.interrupts:
                continue
            if self._is_over():
                if lost.begun:
                    self._interrupted(lost.output)
            elif reason == LOST and not self._has_begun(lost):
                self._later(lost.output)
            else:
                self.alone.add(lost.output)
                self._again(self.graph.outputs[lost.output], reason)

    def _has_begun(self, lost: Lost) -> bool:
        # Word that it was begun may have been lost with its worker.
        state = self.graph.outputs[lost.output].state_dir
        return lost.begun or os.path.lexists(state / JOURNAL)

    def _again(self, output: Output, reason: str) -> None:
        if self.attempts[output.key] >= _ATTEMPTS:
            self._failed(output, {"reason": f"{reason}, {_ATTEMPTS} times"})
            return
        self.reporter.note(f"{output.name}: {reason}; trying again")
        self._on_free(output.key)

    def _on_free(self, key: Key) -> None:
        self.attempts.setdefault(key, 0)
        self.graph.again(self.graph.outputs[key])

    def _on_end(self, reason: str) -> None:
        raise SessionError(
            f"The session {self.context.name} ended during the run"
            f"{f' ({reason})' if reason else ''}: run again, and what was made is kept."
        )

    def _interrupt(self) -> None:
        self.interrupts += 1
        self.reporter.interrupting(len(self.dispatch.running), again=self.interrupts > 1)
        self.dispatch.have_begun(self.link.interrupt(kill=self.interrupts > 1))
        unbegun = self.dispatch.unbegun
        if unbegun and self.interrupts == 1:
            with contextlib.suppress(OSError, TimeoutError):
                self.connection.client.cancel(unbegun)


def _timeout(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(seconds, 0.0)
