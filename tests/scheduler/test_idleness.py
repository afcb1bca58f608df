"""What counts as a use of a session, check by check."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from lightcone.scheduler.idleness import Idleness, Leases
from lightcone.system.clock import Stopwatch, SuspendAwareTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.at)
    return now


@pytest.fixture
def scheduler() -> Any:
    handlers = dict.fromkeys(("gather", "who_has", "broadcast", "run_function"), int)
    shown = {"handlers": handlers, "tasks": {}, "workers": {}, "clients": {}}
    return SimpleNamespace(transition_counter=0, **shown)


def test_use_between_two_looks_counts(clock: SimpleNamespace, scheduler: Any) -> None:
    idleness = Idleness(scheduler, lambda: False, Leases(60.0), 4.0, 4.0)
    for _ in range(5):
        for _ in range(3):
            clock.at += 1.0
            assert idleness.check() == ""
        scheduler.transition_counter += 7  # a command has come and gone
    for _ in range(4):
        clock.at += 1.0
        assert idleness.check() == ""
    clock.at += 1.0
    assert idleness.check() == "idle for 4.0 s"


def test_what_waits_for_a_worker_is_forgotten_too(clock: SimpleNamespace, scheduler: Any) -> None:
    idleness = Idleness(scheduler, lambda: False, Leases(60.0), 2.0, 8.0)
    scheduler.tasks["a"] = "no-worker"
    scheduler.workers["b"] = SimpleNamespace(processing={"c": 1})
    clock.at += 1.0
    for _ in range(20):
        assert idleness.check() == ""
        clock.at += 1.0
    scheduler.workers["b"].processing.clear()
    reasons = []
    for _ in range(8):
        reasons.append(idleness.check())
        clock.at += 1.0
    assert reasons[:7] == [""] * 7
    assert reasons[7].startswith("forgotten for 8.0 s: ")


def test_stopwatch_does_not_run_while_asleep(clock: SimpleNamespace) -> None:
    watch = Stopwatch(1.0)
    clock.at += 1.5
    assert watch.lap() == 1.5
    clock.at += 3600.0
    assert watch.lap() == 2.0


def test_timer_calls_once_unless_cancelled() -> None:
    called: list[str] = []
    timers = [
        SuspendAwareTimer(0.01, called.append, "a"),
        SuspendAwareTimer(60.0, called.append, "b"),
    ]
    for timer in timers:
        timer.start()
    timers[1].cancel()
    for timer in timers:
        timer.join(timeout=30)
    assert called == ["a"]
