"""On a worker: making one output, from its claim to its manifest."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from lightcone.analysis import manifest as manifests
from lightcone.analysis.claims import Claim
from lightcone.analysis.failure import FAILURE, write_failure
from lightcone.analysis.manifest import MANIFEST, Manifest
from lightcone.analysis.output_locks import Busy, read_inputs
from lightcone.analysis.products import Products
from lightcone.cluster.keeper_handle import KeeperHandle
from lightcone.cluster.task import Cause, Ended, Task
from lightcone.errors import LightconeError
from lightcone.files import remove
from lightcone.run import environment
from lightcone.run.container import Container
from lightcone.run.log import Log, environment_lines, heading
from lightcone.run.order import Order, Result
from lightcone.run.stream import LineStream
from lightcone.run.verdict import objection, sentence
from lightcone.run.walltime import Walltime

__all__ = ["Making"]

_TAIL = 20
_logger = logging.getLogger("lightcone")


class Making:
    """Making the output of ``order`` in ``task``, and telling its driver what became of it."""

    def __init__(self, task: Task, order: Order) -> None:
        self.task = task
        self.order = order
        self.output = order.output
        self.state = order.output.state_dir
        self.container: Container | None = None
        self.products: Products | None = None
        self.log: Log | None = None
        self.sights: dict[str, tuple[int, int] | None] = {}

    def steps(self) -> Iterator[None]:
        """The recipe first, then what makes its output a good one, which another thread may do.

        Nothing that goes wrong here is raised: it is told.
        """
        told: dict[str, Any]
        try:
            told = yield from self._run()
        except (OSError, LightconeError) as error:
            told = self.failed(error)
        reason = f", {told['reason']}" if "reason" in told else ""
        _logger.info("%s: %s%s", self.output.name, told["result"].value, reason)
        # Messages cross the network as plain values.
        told["result"] = str(told["result"].value)
        self.task.emit(self.order.topic, {"event": "done", "key": self.order.key, **told})

    def _run(self) -> Generator[None, None, dict[str, Any]]:
        run = self.task.describe_run(self.order.run)
        places = [(path, state) for _, path, state, _ in self.order.producers]
        inputs = read_inputs(self.order.claims, places)
        if isinstance(inputs, Busy):
            return _busy(inputs)
        try:
            for name, _, state, version in self.order.producers:
                self.sights[name] = manifests.sight(state)
                found = manifests.read(state)
                if found is None or found.data.version != version:
                    return _changed(name, meanwhile=False)
            claim = Claim.take(self.output, self.order.claims)
            if isinstance(claim, Busy):
                return _busy(claim)
            try:
                good = None if self.order.force else self._good()
                if good is not None:
                    return {"result": Result.GOOD, "version": good.data.version}
                hold = [claim.lock.fd, *(lock.fd for lock in inputs)]
                return (yield from self._make(claim, run, hold))
            except (OSError, LightconeError) as error:
                return self.failed(error)
            finally:
                if self.log is not None:
                    self.log.close()
                claim.release()
        finally:
            # Closed, not released: the recipe's processes may outlive this worker and hold them.
            for lock in inputs:
                lock.close()

    def _good(self) -> Manifest | None:
        """The record of what is there, where it is what is wanted."""
        found = manifests.read(self.state)
        if found is None or found.identity != self.order.parts.identity:
            return None
        return found if manifests.unchanged(self.output.path, found.data) else None

    def _make(
        self, claim: Claim, run: Any, hold: list[int]
    ) -> Generator[None, None, dict[str, Any]]:
        if self.task.unwanted:
            return {"result": Result.INTERRUPTED}
        late = Walltime(self.order.ends_at, self.order.grace).objection(self.output)
        if late is not None:
            return {"result": Result.LEFT, "reason": late}
        umask = int(run["umask"])
        if self.output.container is not None:
            variables = self._environment(run, ())
            self.container = Container.choose(self.output, variables)
        self.products = Products(self.output, self.order.parts)
        started = datetime.now(UTC)
        busy = claim.set_aside(
            str(run["name"]), umask, self.order.parts.identity, resume=self.order.resume
        )
        if busy is not None:
            return _busy(busy)
        try:
            _logger.info("%s: started for %s", self.output.name, run["name"])
            begun = {"event": "start", "key": self.order.key, "task": self.task.within}
            self.task.emit(self.order.topic, {**begun, "log": str(self.output.log)})
            with self.task.commands.devices(self.output.resources.gpus) as gpus:
                variables = self._environment(run, gpus)
                self.log = Log(self.output.log, umask, self._heading(run, variables))
                ended, tail = self._execute(self.log, variables, umask, hold)
            wrong = objection(self.output, ended)
            # Another context has no lock of ours to see that the inputs are being read.
            for name, _, state, _ in self.order.producers:
                if manifests.sight(state) != self.sights[name] and not self.task.unwanted:
                    claim.put_back()
                    return _changed(name, meanwhile=True)
            if wrong is None:
                yield
                manifests.flush(self.output.path)
                made = self.products.enter(self._manifest(claim, started, ended))
                claim.commit(made)
                (self.state / MANIFEST).chmod(0o666 & ~umask)
                remove(self.state / FAILURE)
                version = made.data.version
                return {"result": Result.MADE, "seconds": ended.seconds, "version": version}
        except BaseException:
            claim.put_back()
            raise
        claim.put_back()
        told = {
            "result": Result.INTERRUPTED if ended.cause is Cause.UNWANTED else Result.FAILED,
            "reason": wrong,
            "exit_code": ended.code,
            "seconds": ended.seconds,
            "tail": tail,
        }
        self._record_failure(told)
        return told

    def _environment(self, run: Any, gpus: Sequence[str]) -> dict[str, str]:
        session = self.task.commands.variables
        return environment.for_command(run, self.order.cpus, gpus, self.output.name, session)

    def _execute(
        self, log: Log, variables: dict[str, str], umask: int, hold: list[int]
    ) -> tuple[Ended, list[str]]:
        tail: deque[str] = deque(maxlen=_TAIL)

        def tell(lines: list[str]) -> None:
            self.task.emit(
                self.order.topic, {"event": "lines", "key": self.order.key, "lines": lines}
            )

        stream = LineStream(tell, tail)

        def sink(_: str, data: bytes) -> None:
            log.write(data)
            stream.feed(data)

        with self._launched(variables, umask, hold) as (argv, held):
            ended = self.task.execute(
                argv,
                environment=variables,
                directory=self.output.root,
                umask=umask,
                grace=self.order.grace,
                sink=sink,
                time_limit=self.output.resources.time_limit,
                hold=held,
            )
        stream.finish()
        log.end(ended, self._usage(ended))
        return ended, list(tail)

    @contextlib.contextmanager
    def _launched(
        self, variables: dict[str, str], umask: int, hold: list[int]
    ) -> Iterator[tuple[list[str], list[int]]]:
        """The program that runs the recipe and what it holds; its container is gone afterwards."""
        if self.container is None:
            yield environment.shell(self.output.command, variables), hold
            return
        launch = self.container.launch(
            self.output, variables, umask, self.order.scratch, self.order.key
        )
        if launch.commands is None:
            yield launch.argv, hold
            return
        keeper = self.task.keeper = KeeperHandle(launch.commands, variables, self.order.grace)
        with keeper.holding(hold):
            # Held by the keeper alone: the runtime may leave programs of its own behind.
            yield launch.argv, []

    def _heading(self, run: Any, variables: dict[str, str]) -> str:
        mark, _, value = self.task.group.mark.partition("=")
        # What every command of the session finds alike is not worth a line of each log.
        before = {**environment.of_caller(run), **self.task.commands.variables}
        more = environment_lines(before, {**variables, mark: value})
        if self.container is not None:
            more.append(self.container.describe())
        return heading(self.output, self.order.cpus, str(run["name"]), more)

    def _manifest(self, claim: Claim, started: datetime, ended: Ended) -> Manifest:
        return Manifest(
            output=self.output.id,
            universe=self.output.universe,
            identity=self.order.parts.identity,
            parts=self.order.parts,
            data=manifests.fingerprint(self.output.path),
            made={
                "attempt": claim.attempt,
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(ended.seconds, 3),
                "host": socket.gethostname(),
                "exit_code": ended.code,
                "cpus": self.order.cpus,
                **self._usage(ended),
            },
        )

    def _usage(self, ended: Ended) -> dict[str, Any]:
        """What is recorded of it; nothing of a container that is no descendant of its program."""
        if self.task.keeper is not None:
            return {}
        return {
            "cpu_seconds": round(ended.usage.cpu_seconds, 3),
            "peak_memory": ended.usage.peak_memory,
        }

    def failed(self, error: OSError | LightconeError) -> dict[str, Any]:
        """What to tell of an output that could not be made for ``error``."""
        told = {"result": Result.FAILED, "reason": sentence(error, self.output)}
        self._record_failure(told)
        return told

    def _record_failure(self, told: dict[str, Any]) -> None:
        """Leave word, for ``lc status`` and ``lc log``, of why the output could not be made."""
        if self.log is not None:
            self.log.add(f"{told['result'].value}: {told['reason']}")
        write_failure(
            self.output,
            self.order.parts.identity,
            told["reason"],
            exit_code=told.get("exit_code"),
            interrupted=told["result"] is Result.INTERRUPTED,
            products=[] if self.products is None else self.products.found(),
        )


def _changed(name: str, *, meanwhile: bool) -> dict[str, Any]:
    reason = f"input {name} has changed"
    return {"result": Result.CHANGED, "reason": reason, "meanwhile": meanwhile}


def _busy(busy: Busy) -> dict[str, Any]:
    lock = None if busy.lock is None else busy.lock.name
    return {"result": Result.BUSY, "by": busy.by, "lock": lock, "shared": busy.shared}
