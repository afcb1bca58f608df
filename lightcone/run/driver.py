"""The driver of a run: walks the outputs, and has each made when its inputs are good.

The engine is given one output at a time and never sees what depends on what: with the whole graph
it would make a finished output again when a worker dies, beside the dead worker's recipe.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty
from typing import Any

from distributed import Future

from lightcone.analysis import manifest as manifests
from lightcone.analysis.adoption import adopt
from lightcone.analysis.output import Key, Output
from lightcone.analysis.plan import Assessment, State, assess
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.files import Lock
from lightcone.run.link import Link
from lightcone.run.order import Order, Result
from lightcone.run.recipe import make
from lightcone.run.report import Reporter
from lightcone.run.share import Refused, share
from lightcone.session.client import Connection

__all__ = ["Driver", "Wishes"]

_ATTEMPTS = 3
_RETRY_ELSEWHERE = 2.0
_MARGIN = 10.0


@dataclass(frozen=True)
class Wishes:
    """How a run is to be done.

    Attributes:
        jobs: how many recipes may be with the cluster at once.
        fail_fast: whether nothing more is begun once a recipe has failed.
        resume: whether a recipe finds what it had written when it was last interrupted or failed.
    """

    jobs: float = math.inf
    fail_fast: bool = False
    resume: bool = False


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
        self.outputs = {output.key: output for output in outputs}
        self.plan = plan
        self.force = set(force)
        self.connection = connection
        self.reporter = reporter
        self.wishes = wishes
        self.link = Link(connection, "lc run")
        self.events = self.link.events
        self.producers = {
            output.key: {
                (output.universe, given.producer)
                for given in output.inputs
                if given.producer is not None
            }
            for output in outputs
        }
        self.consumers: dict[Key, list[Key]] = {}
        for key, needed in self.producers.items():
            for producer in needed:
                self.consumers.setdefault(producer, []).append(key)
        self.versions: dict[Key, str] = {}
        self.open: set[Key] = set(self.outputs)
        self.ready: deque[Key] = deque()
        self.running: set[str] = set()
        self.tasks: dict[str, tuple[Key, Future[None]]] = {}
        self.attempts: dict[Key, int] = {}
        self.waiting_for: dict[Key, str] = {}
        self.serial = itertools.count(1)
        self.interrupts = 0

    def run(self) -> bool:
        """Make what is to be made; False when it was interrupted.

        Raises:
            SessionError: where the cluster is lost on the way.
        """
        with self.link.open():
            self.ready.extend(key for key in self.outputs if not self.producers[key])
            deadline: float | None = None
            while True:
                while self.ready and self._has_room():
                    self._consider(self.ready.popleft())
                if not self.open or (self._is_failing() and not self.tasks):
                    return not self.interrupts
                if self.interrupts and not self.running:
                    return False
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                try:
                    what, value = self.events.get(timeout=left)
                except Empty:
                    self.reporter.note(
                        "not every recipe has ended: look at 'lc session logs worker'"
                    )
                    return False
                if what == "interrupt":
                    self._interrupt()
                    deadline = time.monotonic() + self.context.settings.grace + _MARGIN
                else:
                    getattr(self, f"_on_{what}")(value)

    def _has_room(self) -> bool:
        """Whether one more task may be given to the cluster."""
        return not self._is_failing() and len(self.tasks) < self.wishes.jobs

    def _is_failing(self) -> bool:
        return self.wishes.fail_fast and bool(self.reporter.counts["failed"])

    def _consider(self, key: Key) -> None:
        """All inputs of the output are good: make it, unless it is good too."""
        output = self.outputs[key]
        if key not in self.open or self.interrupts:
            return
        known = self.plan[key]
        if not (known.state is State.OK and key not in self.attempts):
            known = assess(output, self._versions_for(output), self.context.hashes)
            known = adopt(known, self.context.claims, self.context.hashes)
        if known.state is State.OK and key not in self.force and known.manifest is not None:
            self.versions[key] = known.manifest.data.version
            self.reporter.up_to_date(output)
            self._settled(key)
            return
        if known.parts is None:
            self._failed(output, {"reason": known.why})
            return
        given = share(output, self.connection.resources, self.context.settings.oversized)
        if isinstance(given, Refused):
            self._failed(output, {"reason": given.why})
            return
        self.attempts[key] = self.attempts.get(key, 0) + 1
        order = Order(
            run=self.link.run,
            topic=self.link.topic,
            output=output,
            parts=known.parts,
            producers=tuple(
                (given_.id, producer.path, producer.state_dir, self.versions[producer.key])
                for given_ in output.inputs
                if given_.producer is not None
                for producer in [self.outputs[output.universe, given_.producer]]
            ),
            claims=self.context.claims,
            scratch=self.context.scratch,
            cpus=given.cpus,
            grace=self.context.settings.grace,
            force=key in self.force,
            resume=self.wishes.resume,
        )
        # A key that is used again would be given the old task's end.
        task = self.link.key(f"{output.name}-{next(self.serial)}")
        self.tasks[task] = (key, self.link.submit(make, order, task, given.resources))

    def _versions_for(self, output: Output) -> dict[str, str | None]:
        return {
            given.id: self.versions[output.universe, given.producer]
            for given in output.inputs
            if given.producer is not None
        }

    def _settled(self, key: Key) -> None:
        """The output is good: look at those that waited for it."""
        self.open.discard(key)
        for consumer in self.consumers.get(key, ()):
            if self.producers[consumer] <= self.versions.keys():
                self.ready.append(consumer)

    def _failed(self, output: Output, told: Mapping[str, Any]) -> None:
        self.open.discard(output.key)
        self.reporter.failed(output, told)
        blocked = list(self.consumers.get(output.key, ()))
        while blocked:
            key = blocked.pop(0)
            if key in self.open:
                self.open.discard(key)
                self.reporter.blocked(self.outputs[key], output)
                blocked += self.consumers.get(key, ())

    def _wait_for_claim(self, key: Key, lock: str | None, shared: bool) -> None:
        if lock is None:
            time.sleep(_RETRY_ELSEWHERE)
        else:
            held = Lock(self.context.claims / lock)
            with contextlib.suppress(SessionError):
                held.acquire(shared=shared, timeout=None)
                held.release()
        self.events.put(("free", key))

    def _on_message(self, message: dict[str, Any]) -> None:
        getattr(self, f"_on_{message['event']}")(message)

    def _on_start(self, message: dict[str, Any]) -> None:
        if message["key"] in self.tasks:
            self.running.add(message["key"])
            self.reporter.started(self.outputs[self.tasks[message["key"]][0]])

    def _on_lines(self, message: dict[str, Any]) -> None:
        if message["key"] in self.tasks:
            self.reporter.lines(self.outputs[self.tasks[message["key"]][0]], message["lines"])

    def _on_done(self, message: dict[str, Any]) -> None:
        self.running.discard(message["key"])
        key, _ = self.tasks.pop(message["key"], (None, None))
        if key is None:
            return
        output, result = self.outputs[key], Result(message["result"])
        if result in (Result.MADE, Result.GOOD):
            # Not read here: somebody else may be remaking it by now.
            self.versions[key] = message["version"]
            self.force.discard(key)
            if result is Result.MADE:
                self.reporter.made(output, message["seconds"])
            else:
                self.reporter.up_to_date(output)
            self._settled(key)
        elif result is Result.BUSY:
            self.attempts[key] -= 1
            if self.waiting_for.get(key) != message["by"]:
                self.waiting_for[key] = message["by"]
                self.reporter.waiting(output, message["by"])
            wait = (key, message["lock"], message["shared"])
            threading.Thread(target=self._wait_for_claim, args=wait, daemon=True).start()
        elif result is Result.CHANGED:
            self._again(output, message["reason"])
        elif result is Result.INTERRUPTED and self.interrupts:
            self.reporter.interrupted(output)
            self.open.discard(key)
        elif result is Result.INTERRUPTED:
            # Not by this run: the worker is closing, and its session may be with it.
            self._again(output, "its worker was asked to end")
        else:
            log = {"log": str(output.log)} if "exit_code" in message else {}
            self._failed(output, message | log)

    def _on_lost(self, value: tuple[str, str]) -> None:
        task, reason = value
        self.running.discard(task)
        key, _ = self.tasks.pop(task, (None, None))
        if key is not None and not self.interrupts:
            self._again(self.outputs[key], reason)

    def _again(self, output: Output, reason: str) -> None:
        if self.attempts[output.key] >= _ATTEMPTS:
            self._failed(output, {"reason": f"{reason}, {_ATTEMPTS} times"})
            return
        self.reporter.note(f"{output.name}: {reason}; trying again")
        self._on_free(output.key)

    def _on_free(self, key: Key) -> None:
        for producer in self.producers[key]:
            found = manifests.read(self.outputs[producer].state_dir)
            if found is not None:
                self.versions[producer] = found.data.version
        self.attempts.setdefault(key, 0)
        self.ready.append(key)

    def _on_end(self, reason: str) -> None:
        raise SessionError(
            f"The session {self.context.name} ended during the run"
            f"{f' ({reason})' if reason else ''}: run again, and what was made is kept."
        )

    def _interrupt(self) -> None:
        self.interrupts += 1
        self.reporter.interrupting(len(self.running), again=self.interrupts > 1)
        waiting = [future for task, (_, future) in self.tasks.items() if task not in self.running]
        if waiting and self.interrupts == 1:
            with contextlib.suppress(OSError, TimeoutError):
                self.connection.client.cancel(waiting)
        self.link.interrupt(kill=self.interrupts > 1)
