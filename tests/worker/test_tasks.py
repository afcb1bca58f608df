"""A task's command does not outlive what went wrong around it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lightcone.system.clock import SuspendAwareTimer
from lightcone.worker.tasks import Task
from tests.helpers import end, is_alive


def test_no_command_is_left_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(timer: SuspendAwareTimer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(SuspendAwareTimer, "start", start)
    task = Task(Mock(), "lightcone-run-name-1")
    how: dict[str, Any] = {"environment": os.environ, "directory": tmp_path, "umask": 0o022}
    with pytest.raises(RuntimeError, match="new thread"):
        task.execute(
            ["sleep", "60"], **how, grace=1.0, sink=lambda name, data: None, time_limit=60.0
        )
    left = [pid for pid in [task.group.pid] if pid and is_alive(pid)]
    end(left)
    assert left == []
