"""On a worker: making one output, from its claim to its manifest."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.analysis import manifest as manifests
from lightcone.analysis.claims import Busy, Claim, read_inputs
from lightcone.analysis.manifest import MANIFEST, Manifest
from lightcone.analysis.plan import FAILURE
from lightcone.analysis.products import Products
from lightcone.cluster.commands import Cause, Ended, Task, current_task
from lightcone.cluster.keeper import Keeper
from lightcone.errors import LightconeError
from lightcone.files import write_atomically
from lightcone.run import environment
from lightcone.run.container import Container
from lightcone.run.order import Order, Result
from lightcone.run.stream import LineStream
from lightcone.units import format_bytes, format_seconds

__all__ = ["make"]

_TAIL = 20
_logger = logging.getLogger("lightcone")


def make(order: Order) -> None:
    """Make the output of ``order`` and tell its driver what became of it.

    Runs as a task of the cluster. Nothing that goes wrong here is raised: it is told.
    """
    with current_task() as task:
        told: dict[str, Any]
        making = _Making(task, order)
        try:
            told = making.run()
        except (OSError, LightconeError) as error:
            told = {"result": Result.FAILED, "reason": _sentence(error)}
            making.record_failure(told)
        reason = f", {told['reason']}" if "reason" in told else ""
        _logger.info("%s: %s%s", order.output.name, told["result"].value, reason)
        # Messages cross the network as plain values.
        told["result"] = str(told["result"].value)
        task.emit(order.topic, {"event": "done", "key": task.key, **told})


class _Making:
    def __init__(self, task: Task, order: Order) -> None:
        self.task = task
        self.order = order
        self.output = order.output
        self.state = order.output.state_dir
        self.container: Container | None = None
        self.products: Products | None = None

    def run(self) -> dict[str, Any]:
        run = self.task.describe_run(self.order.run)
        inputs = read_inputs(self.order.claims, [path for _, path, _, _ in self.order.producers])
        if isinstance(inputs, Busy):
            return _busy(inputs)
        try:
            for name, _, state, version in self.order.producers:
                found = manifests.read(state)
                if found is None or found.data.version != version:
                    return {"result": Result.CHANGED, "reason": f"input {name} has changed"}
            claim = Claim.take(self.output, self.order.claims)
            if isinstance(claim, Busy):
                return _busy(claim)
            try:
                good = None if self.order.force else self._good()
                if good is not None:
                    return {"result": Result.GOOD, "version": good.data.version}
                hold = [claim.lock.fd, *(lock.fd for lock in inputs)]
                return self._make(claim, run, hold)
            finally:
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

    def _make(self, claim: Claim, run: Any, hold: list[int]) -> dict[str, Any]:
        if self.task.unwanted:
            return {"result": Result.INTERRUPTED}
        umask = int(run["umask"])
        if self.output.container is not None:
            variables = environment.for_command(run, self.order.cpus, (), self.output.name)
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
            self.task.emit(self.order.topic, {"event": "start", "key": self.task.key})
            with self.task.commands.devices(self.output.resources.gpus) as gpus:
                variables = environment.for_command(run, self.order.cpus, gpus, self.output.name)
                ended, tail = self._execute(variables, umask, hold)
            told = self._verdict(ended, tail)
            if told is None:
                manifests.flush(self.output.path)
                made = self.products.enter(self._manifest(claim, started, ended))
                claim.commit(made)
                (self.state / MANIFEST).chmod(0o666 & ~umask)
                (self.state / FAILURE).unlink(missing_ok=True)
                version = made.data.version
                return {"result": Result.MADE, "seconds": ended.seconds, "version": version}
        except BaseException:
            claim.put_back()
            raise
        claim.put_back()
        self.record_failure(told)
        return told

    def _execute(
        self, variables: dict[str, str], umask: int, hold: list[int]
    ) -> tuple[Ended, list[str]]:
        tail: deque[str] = deque(maxlen=_TAIL)

        def tell(lines: list[str]) -> None:
            self.task.emit(
                self.order.topic, {"event": "lines", "key": self.task.key, "lines": lines}
            )

        with open(self.output.log, "wb", buffering=0) as log:
            os.fchmod(log.fileno(), 0o666 & ~umask)
            log.write(os.fsencode(self._heading()))
            stream = LineStream(tell, tail)

            def sink(_: str, data: bytes) -> None:
                # A disk that is too full for the log may yet have room for the result.
                with contextlib.suppress(OSError):
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
            with contextlib.suppress(OSError):
                log.write(_ending(ended, self._usage(ended)).encode())
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
            self.output, variables, umask, self.order.scratch, self.task.key
        )
        if launch.commands is None:
            yield launch.argv, hold
            return
        keeper = self.task.keeper = Keeper(launch.commands, variables, self.order.grace)
        with keeper.holding(hold):
            # Held by the keeper alone: the runtime may leave programs of its own behind.
            yield launch.argv, []

    def _heading(self) -> str:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        inside = "" if self.container is None else f"# {self.container.describe()}\n"
        return (
            f"# {self.output.name}, {now}, on {socket.gethostname()} with "
            f"{self.order.cpus:g} cpus\n"
            f"# in {self.output.root}\n{inside}$ {self.output.command}\n"
        )

    def _verdict(self, ended: Ended, tail: list[str]) -> dict[str, Any] | None:
        """What to tell of a recipe that made nothing good; None where it did."""
        told: dict[str, Any] = {
            "result": Result.FAILED,
            "exit_code": ended.code,
            "seconds": ended.seconds,
            "tail": tail,
        }
        if ended.cause is Cause.UNWANTED:
            return told | {"result": Result.INTERRUPTED, "reason": "it was interrupted"}
        if ended.cause is Cause.TIME_LIMIT:
            limit = format_seconds(self.output.resources.time_limit or 0.0)
            return told | {"reason": f"it was ended at its time limit of {limit}"}
        if ended.code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-ended.code).name
                return told | {"reason": f"it was ended by signal {-ended.code} ({name})"}
            return told | {"reason": f"it was ended by signal {-ended.code}"}
        if ended.code > 0:
            return told | {"reason": f"exit code {ended.code}"}
        path = self.output.path
        shown = os.path.relpath(path, self.output.root)
        if not path.exists():
            return told | {"reason": f"it exited with 0 and wrote no {shown}"}
        if path.is_dir() and not any(path.iterdir()):
            return told | {"reason": f"it exited with 0 and left {shown}/ empty"}
        return None

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

    def record_failure(self, told: dict[str, Any]) -> None:
        """Leave word, for ``lc status``, of why the output could not be made."""
        record = {
            "identity": self.order.parts.identity,
            "template": self.output.template,
            "products": [] if self.products is None else self.products.found(),
            "exit_code": told.get("exit_code"),
            "reason": told["reason"],
            "interrupted": told["result"] is Result.INTERRUPTED,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        path: Path = self.state / FAILURE
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(record).encode(), mode=0o666, durable=False)


def _ending(ended: Ended, usage: dict[str, Any]) -> str:
    how = f"exit code {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"
    used = ""
    if usage:
        used = (
            f", {format_seconds(usage['cpu_seconds'])} of processor time, "
            f"at most {format_bytes(usage['peak_memory'])}"
        )
    return f"# {how} after {format_seconds(ended.seconds)}{used}\n"


def _busy(busy: Busy) -> dict[str, Any]:
    lock = None if busy.lock is None else busy.lock.name
    return {"result": Result.BUSY, "by": busy.by, "lock": lock, "shared": busy.shared}


def _sentence(error: OSError | LightconeError) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror}{where}"
    # A path need not be text, and what crosses the network must be.
    return text.encode(errors="replace").decode()
