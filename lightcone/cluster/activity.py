"""Which commands of a session have begun, and which failed last: noted as it happens."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from lightcone.cluster.keys import is_ours, name_of, run_of
from lightcone.cluster.messages import LOST, unpack
from lightcone.cluster.runs import Runs

__all__ = ["Activity", "Begun"]

_FAILURES = 50


@dataclass(frozen=True)
class Begun:
    """A command that runs.

    Attributes:
        told: what it said as it began.
        at: when that was, by the clock of :func:`time.monotonic`.
    """

    told: Mapping[str, Any]
    at: float

    @property
    def log(self) -> str | None:
        """The path of its log, if it has one."""
        log = self.told.get("log")
        return None if log is None else os.fsdecode(log)


_NOT_BEGUN = Begun({}, 0.0)


class Activity(SchedulerPlugin):
    """Follows commands from their own messages, in memory; the cost is a few lookups for each.

    Attributes:
        begun: those that run, by the engine's task and then by their key.
        failures: the last ones, as JSON.
    """

    name = "lightcone-activity"

    def __init__(self, scheduler: Scheduler, runs: Runs) -> None:
        self.begun: dict[str, dict[str, Begun]] = {}
        self.failures: deque[dict[str, Any]] = deque(maxlen=_FAILURES)
        self._scheduler = scheduler
        self._runs = runs
        self._tasks: dict[str, str] = {}
        self._failed = 0

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by the engine for all messages; those of commands say when they begin and end."""
        if not isinstance(msg, bytes) or not is_ours(topic):
            return
        for message in unpack(msg):
            if message["event"] == "start" and message["task"] in self._scheduler.tasks:
                begun = Begun(message, time.monotonic())
                self.begun.setdefault(message["task"], {})[message["key"]] = begun
                self._tasks[message["key"]] = message["task"]
            elif message["event"] == "done":
                key = message["key"]
                begun = self.begun.get(self._tasks.pop(key, ""), {}).pop(key, _NOT_BEGUN)
                if message.get("result") == "failed":
                    self._fail(key, str(message.get("reason")), begun)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Called by the engine for every change of a task's state."""
        if finish in ("processing", "waiting") or not is_ours(key):
            return
        parts = self.begun.pop(key, {})
        for part in parts:
            self._tasks.pop(part, None)
        if finish == "erred":
            text = self._scheduler.tasks[key].exception_text or ""
            reason = LOST if "KilledWorker" in text else text
            for part, begun in (parts or {key: _NOT_BEGUN}).items():
                self._fail(part, reason, begun)

    def _fail(self, key: str, reason: str, begun: Begun) -> None:
        self._failed += 1
        self.failures.append(
            {
                "id": f"failure-{self._failed}",
                "name": begun.told.get("name") or name_of(key),
                "run": self._runs.caller(run_of(key)),
                "reason": reason,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "log": begun.log,
            }
        )
