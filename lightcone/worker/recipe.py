"""Makes one output on a worker, from its claim to its manifest."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lightcone.errors import LightconeError
from lightcone.state.changes import describe_disturbed, observed_changes
from lightcone.state.claims import Busy, Claim
from lightcone.state.dependencies import SourceFiles
from lightcone.state.fingerprint import fingerprint, unchanged
from lightcone.state.journal import JOURNAL
from lightcone.state.manifest import Manifest, read_manifest
from lightcone.state.observed import Selection, observed_now, select
from lightcone.state.partial import (
    FAILURE,
    describe_partial,
    describe_resume,
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
from lightcone.worker.inputs import InputChange, Inputs
from lightcone.worker.observation import Observation
from lightcone.worker.tasks import Cause, CompletedCommand, Task
from lightcone.worker.verdict import describe_error, find_fault

__all__ = ["OutputMaker"]

_BROKEN_OFF = (
    "strace, which watched the recipe, was ended before it: run again, or set 'observe = false' "
    "under [outputs.NAME] of lightcone.toml"
)

_logger = logging.getLogger("lightcone")

_MAX_SHOWN = 3


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
        self.inputs = Inputs(request.produced, request.output.root)

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
        busy = self.inputs.lock(self.request.claims, self.real_path)
        if busy is not None:
            return _busy(busy)
        try:
            change = self.inputs.check_before()
            if change is not None:
                return _input_changed(change)
            claim = Claim.take(self.output, self.request.claims, self.real_path)
            if isinstance(claim, Busy):
                return _busy(claim)
            self.claim = claim
            try:
                mistaken = self._products_among_sources() if claim.is_recovered else set()
                if mistaken:
                    return _changed(
                        f"{_listed(sorted(mistaken))} turned out to be the recipe's own product"
                    )
                existing = None if self.request.force or claim.is_first else self._find_existing()
                if existing is not None:
                    return {"result": Result.GOOD, **_record(existing)}
                hold = [claim.lock.fd, *self.inputs.descriptors]
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
            self.inputs.close()

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
        if manifest is None or not self._is_of_request(manifest) or manifest.disturbed:
            return None
        return manifest if unchanged(self.output.path, manifest.data) else None

    def _is_of_request(self, manifest: Manifest) -> bool:
        """Return whether ``manifest`` is of the requested identity, observed meanwhile or not."""
        made, planned = manifest.provenance, self.request.provenance.observed
        if manifest.identity == self.identity or not made.observed:
            return manifest.identity == self.identity
        sources = SourceFiles(self.output.root)
        sources.learn(made)
        return replace(made, observed=planned).identity == self.identity and not any(
            observed_changes(made.observed, observed_now(made.observed, sources, self.output))
        )

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
        changed = self.products.changed_sources(unless_product=True)
        if changed:
            return _changed(f"{_listed(changed)} changed after the run had read it")
        busy = claim.set_aside(
            str(run["name"]),
            umask,
            self.identity,
            resume=self.request.resume,
            found=self.products.found(),
            tokens=self.products.take_tokens(),
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
            since = self._file_system_time() if self.request.observe else 0
            with self.task.commands.devices(self.output.resources.gpus) as gpus:
                completed, tail = execution.execute(umask, gpus, hold, self.while_running)
            observation = execution.observation
            fault = find_fault(self.output, completed)
            if observation is not None and completed.cause is Cause.ITSELF:
                if observation.was_late(completed.code):
                    claim.restore()
                    return _changed("strace did not begin to watch in time")
                if not observation.is_complete:
                    fault = _BROKEN_OFF
            inputs = self.inputs.check_after()
            # Which files an observed recipe has read is seen anew.
            changed = self.products.changed_sources(observed=observation is None)
            changed += [change.name for change in inputs]
            remade = next((change for change in inputs if change.is_remade), None)
            if remade is not None and (fault is None or not self.task.cancelled):
                claim.restore(self.products.describe_disturbed(changed))
                return _input_changed(remade)
            if fault is None:
                yield
                flush_tree(self.output.path)
                manifest = self.products.add_to(
                    self._manifest(claim, started, completed, execution.usage(completed)), changed
                )
                selection = Selection(manifest.provenance.observed)
                if observation is not None:
                    selection = self._select(observation, manifest, since)
                    provenance = replace(manifest.provenance, observed=selection.observed)
                    manifest = replace(
                        manifest,
                        provenance=provenance,
                        identity=provenance.identity,
                        disturbed=manifest.disturbed + selection.changed,
                    )
                stale = describe_disturbed(manifest)
                if stale:
                    execution.add(f"not good: {stale}")
                claim.commit(manifest, umask)
                if not claim.is_first:
                    with contextlib.suppress(OSError):  # the output is good all the same
                        remove(self.state / FAILURE)
                if stale:
                    return {"result": Result.FAILED, "reason": stale}
                return {
                    "result": Result.MADE,
                    "seconds": completed.seconds,
                    **_record(manifest),
                    "results_read": selection.results,
                    "data_read": selection.data,
                }
            disturbed = self.products.describe_disturbed(changed)
        except BaseException:
            claim.restore()
            raise
        claim.restore(disturbed)
        report = {
            "result": Result.INTERRUPTED if completed.cause is Cause.CANCELLED else Result.FAILED,
            "reason": fault,
            "exit_code": completed.code,
            "seconds": completed.seconds,
            "tail": tail,
        }
        work = find_partial(self.output, self.identity)
        by_rule = self.request.resume_by_rule
        kept = describe_partial(work, describe_resume(by_rule=by_rule))
        if kept:
            report["kept"] = kept
            if not work[0].obstacle:
                report["resume"] = "" if by_rule else " with --resume"
        self._record_failure(report)
        return report

    def _file_system_time(self) -> int:
        """Return the time, in nanoseconds, of the file system that the results are on."""
        os.utime(self.state / JOURNAL)
        return os.stat(self.state / JOURNAL).st_mtime_ns

    def _select(self, observation: Observation, manifest: Manifest, since: int) -> Selection:
        sources = SourceFiles(self.output.root)
        sources.learn(self.request.provenance)
        selection = select(observation.trace, self.output, manifest.provenance, since, sources)
        for name in selection.results + selection.data:
            if self.execution is not None:
                self.execution.add(f"read without being declared: {name}")
        return selection

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
            products=[] if self.products is None else self.products.detect_after_failure(),
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"{', '.join(names[:_MAX_SHOWN])}{more}"


def _record(manifest: Manifest) -> dict[str, Any]:
    """Return what consumers of the output have to find in its manifest."""
    return {"version": manifest.data.version, "identity": manifest.identity}


def _input_changed(change: InputChange) -> dict[str, Any]:
    if change.is_remade:
        return _changed(f"input {change.name} has changed")
    # Another attempt of this run would find the same.
    reason = f"input {change.name} is not as it was made: {change.detail}; run again to remake it"
    return {"result": Result.FAILED, "reason": reason}


def _changed(reason: str) -> dict[str, Any]:
    return {"result": Result.CHANGED, "reason": reason}


def _busy(busy: Busy) -> dict[str, Any]:
    lock = None if busy.lock is None else busy.lock.name
    return {"result": Result.BUSY, "by": busy.by, "lock": lock, "shared": busy.shared}
