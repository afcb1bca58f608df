"""On a worker: making one output, from its claim to its manifest."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

from lightcone.errors import LightconeError
from lightcone.state.claims import Busy, Claim, lock_inputs
from lightcone.state.fingerprint import fingerprint, unchanged
from lightcone.state.journal import JOURNAL
from lightcone.state.manifest import Manifest, read_manifest, stat_token
from lightcone.state.partial import FAILURE, write_failure
from lightcone.state.products import Products
from lightcone.state.walltime import Walltime
from lightcone.system.files import flush_tree, remove
from lightcone.wire.requests import MakeRequest, Result
from lightcone.worker.execution import Execution
from lightcone.worker.tasks import Cause, Ended, Task
from lightcone.worker.verdict import describe_error, find_fault

__all__ = ["OutputMaker"]

_logger = logging.getLogger("lightcone")


class OutputMaker:
    """Making the output of ``request`` in ``task``, and telling its driver what became of it.

    Args:
        task: what is begun and ended with it.
        request: what to make.
        while_running: called, briefly, while the recipe runs.
        real_path: what a batch has in common; see :func:`lock_path`.
    """

    def __init__(
        self,
        task: Task,
        request: MakeRequest,
        while_running: Callable[[], None] | None = None,
        real_path: Callable[[str], str] = os.path.realpath,
    ) -> None:
        self.task = task
        self.request = request
        self.while_running = while_running
        self.real_path = real_path
        self.output = request.output
        self.state = request.output.state_dir
        self.identity = request.provenance.identity
        self.execution: Execution | None = None
        self.products: Products | None = None
        self.stat_tokens: dict[str, tuple[int, int] | None] = {}

    def steps(self) -> Generator[None, None, None]:
        """Three steps: what comes before the recipe, the recipe, what makes its output a good one.

        Each may be another thread's. Nothing that goes wrong here is raised: it is told. Closed
        after the first step, all is as if it had not been begun, and nothing is told.
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
        self.task.emit({"event": "done", "key": self.request.key, **told})

    def _run(self) -> Generator[None, None, dict[str, Any]]:
        run = self.task.describe_run()
        places = [(path, state) for _, path, state, _ in self.request.producers]
        inputs = lock_inputs(self.request.claims, places, self.real_path)
        if isinstance(inputs, Busy):
            return _busy(inputs)
        try:
            for name, _, state, version in self.request.producers:
                self.stat_tokens[name] = stat_token(state)
                found = read_manifest(state)
                if found is None or found.data.version != version:
                    return _changed(name, during_recipe=False)
            claim = Claim.take(self.output, self.request.claims, self.real_path)
            if isinstance(claim, Busy):
                return _busy(claim)
            try:
                good = None if self.request.force or claim.is_first else self._good()
                if good is not None:
                    return {"result": Result.GOOD, "version": good.data.version}
                hold = [claim.lock.fd, *(lock.fd for lock in inputs)]
                return (yield from self._make(claim, run, hold))
            except (OSError, LightconeError) as error:
                return self.failed(error)
            finally:
                try:
                    if self.execution is not None:
                        self.execution.close()
                finally:
                    claim.release()
        finally:
            # Closed, not released: the recipe's processes may outlive this worker and hold them.
            for lock in inputs:
                lock.close()

    def _good(self) -> Manifest | None:
        """The record of what is there, where it is what is wanted."""
        found = read_manifest(self.state)
        if found is None or found.identity != self.identity:
            return None
        return found if unchanged(self.output.path, found.data) else None

    def _make(
        self, claim: Claim, run: Any, hold: list[int]
    ) -> Generator[None, None, dict[str, Any]]:
        if self.task.unwanted:
            return {"result": Result.INTERRUPTED}
        late = Walltime(self.request.ends_at, self.request.grace).refusal_reason(self.output)
        if late is not None:
            return {"result": Result.LEFT, "reason": late}
        umask = int(run["umask"])
        execution = self.execution = Execution(self.task, self.request, run)
        self.products = Products(self.output, self.request.provenance, is_first=claim.is_first)
        busy = claim.set_aside(str(run["name"]), umask, self.identity, resume=self.request.resume)
        if busy is not None:
            return _busy(busy)
        try:
            yield
            started = datetime.now(UTC)
            _logger.info("%s: started for %s", self.output.name, run["name"])
            begun = {"event": "start", "key": self.request.key, "task": self.task.within}
            # As bytes: a path need not be text, and of texts only those can be sent that are.
            self.task.emit({**begun, "log": os.fsencode(self.output.log)})
            with self.task.commands.devices(self.output.resources.gpus) as gpus:
                ended, tail = execution.execute(umask, gpus, hold, self.while_running)
            wrong = find_fault(self.output, ended)
            # Another context has no lock of ours to see that the inputs are being read.
            for name, _, state, _ in self.request.producers:
                if stat_token(state) != self.stat_tokens[name] and not self.task.unwanted:
                    claim.restore()
                    return _changed(name, during_recipe=True)
            if wrong is None:
                yield
                flush_tree(self.output.path)
                made = self.products.add_to(
                    self._manifest(claim, started, ended, execution.usage(ended))
                )
                claim.commit(made, umask)
                if not claim.is_first:
                    remove(self.state / FAILURE)
                version = made.data.version
                return {"result": Result.MADE, "seconds": ended.seconds, "version": version}
        except BaseException:
            claim.restore()
            raise
        claim.restore()
        told = {
            "result": Result.INTERRUPTED if ended.cause is Cause.UNWANTED else Result.FAILED,
            "reason": wrong,
            "exit_code": ended.code,
            "seconds": ended.seconds,
            "tail": tail,
        }
        self._record_failure(told)
        return told

    def _manifest(
        self, claim: Claim, started: datetime, ended: Ended, usage: dict[str, Any]
    ) -> Manifest:
        return Manifest(
            output=self.output.id,
            universe=self.output.universe,
            identity=self.identity,
            provenance=self.request.provenance,
            data=fingerprint(self.output.path, clock=self.state / JOURNAL),
            made={
                "attempt": claim.attempt,
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(ended.seconds, 3),
                "host": socket.gethostname(),
                "exit_code": ended.code,
                "cpus": self.request.cpus,
                **usage,
            },
        )

    def failed(self, error: OSError | LightconeError) -> dict[str, Any]:
        """What to tell of an output that could not be made for ``error``."""
        told = {"result": Result.FAILED, "reason": describe_error(error, self.output)}
        self._record_failure(told)
        return told

    def _record_failure(self, told: dict[str, Any]) -> None:
        """Leave word, for ``lc status`` and ``lc log``, of why the output could not be made."""
        if self.execution is not None:
            self.execution.add(f"{told['result'].value}: {told['reason']}")
        write_failure(
            self.output,
            self.identity,
            told["reason"],
            exit_code=told.get("exit_code"),
            interrupted=told["result"] is Result.INTERRUPTED,
            products=[] if self.products is None else self.products.detect(),
        )


def _changed(name: str, *, during_recipe: bool) -> dict[str, Any]:
    reason = f"input {name} has changed"
    return {"result": Result.CHANGED, "reason": reason, "during_recipe": during_recipe}


def _busy(busy: Busy) -> dict[str, Any]:
    lock = None if busy.lock is None else busy.lock.name
    return {"result": Result.BUSY, "by": busy.by, "lock": lock, "shared": busy.shared}
