"""Makes one output on a worker, from its claim to its manifest."""

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
from lightcone.state.partial import (
    FAILURE,
    describe_partial,
    find_partial,
    products_of,
    read_failure,
    write_failure,
)
from lightcone.state.products import Products
from lightcone.state.walltime import Walltime
from lightcone.system.files import flush_tree, remove
from lightcone.wire.requests import MakeRequest, Result
from lightcone.worker.execution import Execution
from lightcone.worker.tasks import Cause, CompletedCommand, Task
from lightcone.worker.verdict import describe_error, find_fault

__all__ = ["OutputMaker"]

_logger = logging.getLogger("lightcone")


class OutputMaker:
    """Makes one output in ``task``, and reports the result to its driver.

    Args:
        task: the task that starts and ends with it.
        request: what to make.
        while_running: called, briefly, while the recipe runs.
        real_path: resolves paths, cached for a batch; see :func:`lock_path`.
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
        self.claim: Claim | None = None
        self.execution: Execution | None = None
        self.products: Products | None = None
        self.stat_tokens: dict[str, tuple[int, int] | None] = {}

    def steps(self) -> Generator[None, None, None]:
        """Make the output in three steps: prepare, run the recipe, commit the result.

        Each step may run in another thread. An OSError or a LightconeError is not raised but
        reported to the driver. Closing the generator after the first step undoes that step, without
        a report.
        """
        report: dict[str, Any]
        try:
            report = yield from self._run()
        except (OSError, LightconeError) as error:
            report = self._report_failure(error)
        report["remarks"] = self._take_remarks()
        reason = f", {report['reason']}" if "reason" in report else ""
        _logger.info("%s: %s%s", self.output.name, report["result"].value, reason)
        # Messages cross the network as plain values.
        report["result"] = str(report["result"].value)
        self.task.emit({"event": "done", "key": self.request.key, **report})

    def _run(self) -> Generator[None, None, dict[str, Any]]:
        run = self.task.describe_run()
        locked = [(path, state) for _, path, state, _ in self.request.producers]
        inputs = lock_inputs(self.request.claims, locked, self.real_path)
        if isinstance(inputs, Busy):
            return _busy(inputs)
        try:
            for name, _, state, version in self.request.producers:
                self.stat_tokens[name] = stat_token(state)
                manifest = read_manifest(state)
                if manifest is None or manifest.data.version != version:
                    return _changed(f"input {name} has changed", during_recipe=False)
            claim = Claim.take(self.output, self.request.claims, self.real_path)
            if isinstance(claim, Busy):
                return _busy(claim)
            self.claim = claim
            try:
                mistaken = self._products_among_sources() if claim.is_recovered else set()
                if mistaken:
                    return _changed(
                        f"{', '.join(sorted(mistaken))} turned out to be the recipe's own product",
                        during_recipe=False,
                    )
                existing = None if self.request.force or claim.is_first else self._find_existing()
                if existing is not None:
                    return {"result": Result.GOOD, "version": existing.data.version}
                hold = [claim.lock.fd, *(lock.fd for lock in inputs)]
                return (yield from self._make(claim, run, hold))
            except (OSError, LightconeError) as error:
                return self._report_failure(error)
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

    def _products_among_sources(self) -> set[str]:
        """Return the products of a killed recipe that the driver took for sources.

        It planned this before anything was known of that recipe's end.
        """
        failure = read_failure(self.state)
        products = set() if failure is None else products_of(failure, self.output)
        return products & self.request.provenance.files.keys()

    def _take_remarks(self) -> list[str]:
        """Return what there is to remark about partial work, once."""
        if self.claim is None:
            return []
        remarks, self.claim.remarks = self.claim.remarks, []
        return remarks

    def _find_existing(self) -> Manifest | None:
        """Return the existing output's manifest, if it is up to date and intact."""
        manifest = read_manifest(self.state)
        if manifest is None or manifest.identity != self.identity:
            return None
        return manifest if unchanged(self.output.path, manifest.data) else None

    def _make(
        self, claim: Claim, run: Any, hold: list[int]
    ) -> Generator[None, None, dict[str, Any]]:
        if self.task.cancelled:
            return {"result": Result.INTERRUPTED}
        objection = Walltime(self.request.ends_at, self.request.grace).refusal_reason(self.output)
        if objection is not None:
            return {"result": Result.LEFT, "reason": objection}
        umask = int(run["umask"])
        execution = self.execution = Execution(self.task, self.request, run)
        self.products = Products(self.output, self.request.provenance, is_first=claim.is_first)
        busy = claim.set_aside(
            str(run["name"]),
            umask,
            self.identity,
            resume=self.request.resume,
            found=self.products.found(),
        )
        if busy is not None:
            return _busy(busy)
        try:
            yield
            started = datetime.now(UTC)
            _logger.info("%s: started for %s", self.output.name, run["name"])
            start = {
                "event": "start",
                "key": self.request.key,
                "task": self.task.engine_key,
                "remarks": self._take_remarks(),
            }
            execution.remarks = start["remarks"]
            # As bytes: a path need not be text, and of texts only those can be sent that are.
            self.task.emit({**start, "log": os.fsencode(self.output.log)})
            with self.task.commands.devices(self.output.resources.gpus) as gpus:
                completed, tail = execution.execute(umask, gpus, hold, self.while_running)
            fault = find_fault(self.output, completed)
            # Another context has no lock of ours to see that the inputs are being read.
            for name, _, state, _ in self.request.producers:
                if stat_token(state) != self.stat_tokens[name] and not self.task.cancelled:
                    claim.restore()
                    return _changed(f"input {name} has changed", during_recipe=True)
            if fault is None:
                yield
                flush_tree(self.output.path)
                manifest = self.products.add_to(
                    self._manifest(claim, started, completed, execution.usage(completed))
                )
                claim.commit(manifest, umask)
                if not claim.is_first:
                    remove(self.state / FAILURE)
                return {
                    "result": Result.MADE,
                    "seconds": completed.seconds,
                    "version": manifest.data.version,
                }
        except BaseException:
            claim.restore()
            raise
        claim.restore()
        report = {
            "result": Result.INTERRUPTED if completed.cause is Cause.CANCELLED else Result.FAILED,
            "reason": fault,
            "exit_code": completed.code,
            "seconds": completed.seconds,
            "tail": tail,
        }
        kept = describe_partial(find_partial(self.output, self.identity), "'lc run --resume'")
        if kept:
            report["kept"] = kept
        self._record_failure(report)
        return report

    def _manifest(
        self, claim: Claim, started: datetime, completed: CompletedCommand, usage: dict[str, Any]
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
                "seconds": round(completed.seconds, 3),
                "host": socket.gethostname(),
                "exit_code": completed.code,
                "cpus": self.request.cpus,
                **usage,
            },
        )

    def _report_failure(self, error: OSError | LightconeError) -> dict[str, Any]:
        """Record ``error`` as the failure of the output, and return the report."""
        report = {"result": Result.FAILED, "reason": describe_error(error, self.output)}
        self._record_failure(report)
        return report

    def _record_failure(self, report: dict[str, Any]) -> None:
        """Record the failure for ``lc status`` and ``lc log``."""
        if self.execution is not None:
            self.execution.add(f"{report['result'].value}: {report['reason']}")
        write_failure(
            self.output,
            self.identity,
            report["reason"],
            exit_code=report.get("exit_code"),
            interrupted=report["result"] is Result.INTERRUPTED,
            products=[] if self.products is None else self.products.detect(),
        )


def _changed(reason: str, *, during_recipe: bool) -> dict[str, Any]:
    return {"result": Result.CHANGED, "reason": reason, "during_recipe": during_recipe}


def _busy(busy: Busy) -> dict[str, Any]:
    lock = None if busy.lock is None else busy.lock.name
    return {"result": Result.BUSY, "by": busy.by, "lock": lock, "shared": busy.shared}
