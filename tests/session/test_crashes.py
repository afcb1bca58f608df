"""Whatever of a session is killed: nothing of it is left, and the next call simply works."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox, end, is_alive, wait_until

# A descendant that sheds everything one could find it by, and asks to be left alone.
_DETACH = """\
import os, signal, sys, time
pids, marks = sys.argv[1], dict(os.environ)
for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
script = 'trap "" HUP TERM INT; echo $$ >> "$1"; while :; do sleep 0.2; done'
os.closerange(0, 3)
for descriptor in range(3):
    os.open(os.devnull, os.O_RDWR)
os.execve("/usr/bin/env", ["env", "-i", "/bin/sh", "-c", script, "sh", pids], {})
"""
# Two of them, the second in a detached process's own group, beside a command that goes on.
_COMMAND = """\
trap "" HUP TERM
"$1" -c "$2" "$3"
"$1" -c "$2" "$3"
while :; do sleep 0.2; done
"""


class _Loaded:
    """A session that runs a command with detached descendants."""

    def __init__(self, sandbox: Sandbox) -> None:
        (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 1\n")
        sandbox.start()
        self.sandbox = sandbox
        self.programs = sandbox.programs()
        pids = sandbox.base / "pids"
        arguments = ["sh", sys.executable, _DETACH, str(pids)]
        self.caller = sandbox.popen("exec", "--", "sh", "-c", _COMMAND, *arguments)
        wait_until(lambda: pids.exists() and len(_lines(pids)) == 2, "both are detached")
        self.detached = [int(line) for line in _lines(pids)]
        # Not by their ids, which may be others' by the time that they are looked for.
        self.all = {process for process in sandbox.processes() if process.pid != self.caller.pid}
        self.all |= {psutil.Process(pid) for pid in self.detached}

    def left(self) -> list[int]:
        return [process.pid for process in self.all if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def loaded(sandbox: Sandbox) -> Iterator[_Loaded]:
    session = _Loaded(sandbox)
    yield session
    end(session.left())


@pytest.mark.parametrize(
    "part", ["scheduler", "scheduler guard", "worker guard", "inner guard", "tmux"]
)
def test_part_killed_ends_the_session_and_the_next_call_works(loaded: _Loaded, part: str) -> None:
    os.kill(loaded.programs[part], signal.SIGKILL)
    loaded.sandbox.lc("exec", "--", "true")
    assert loaded.left() == []
    after = loaded.sandbox.programs()
    assert set(after) == set(loaded.programs)
    assert not set(after.values()) & set(loaded.programs.values())
    _, errors = loaded.caller.communicate(timeout=60)
    assert loaded.caller.returncode == 125
    assert b"Traceback" not in errors


def test_killed_worker_is_replaced(loaded: _Loaded) -> None:
    os.kill(loaded.programs["worker"], signal.SIGKILL)
    loaded.sandbox.lc("exec", "--", "true")
    after = loaded.sandbox.programs()
    worker = loaded.programs.pop("worker")
    assert after.pop("worker") != worker
    assert after == loaded.programs
    left = set(loaded.left()) - loaded.sandbox.waiting_for_viewers()
    assert left == set(after.values())


def test_everything_killed_at_once_but_one_guard(loaded: _Loaded) -> None:
    """The outermost guard is the one that all others of the worker fall back to."""
    spared = loaded.programs["worker guard"]
    end([pid for pid in loaded.programs.values() if pid != spared])
    loaded.sandbox.lc("exec", "--", "true")
    assert loaded.left() == []


def test_both_guards_of_the_worker_killed_at_once(sandbox: Sandbox) -> None:
    sandbox.start()
    programs = sandbox.programs()
    end([programs["worker guard"], programs["inner guard"]])
    wait_until(lambda: not any(map(is_alive, programs.values())), "all have ended")
    sandbox.lc("exec", "--", "true")


@pytest.mark.parametrize("part", ["scheduler", "worker guard"])
def test_part_killed_and_nobody_calls_again(loaded: _Loaded, part: str) -> None:
    os.kill(loaded.programs[part], signal.SIGKILL)
    wait_until(lambda: not loaded.left(), "all have ended by themselves")
    assert loaded.sandbox.status()["state"] == "dead"
    loaded.sandbox.lc("session", "stop")


def test_stop_ends_what_detached_itself(loaded: _Loaded) -> None:
    loaded.sandbox.lc("session", "stop")
    assert loaded.left() == []


def test_killed_again_and_again(sandbox: Sandbox) -> None:
    for _ in range(2):
        for part in ("worker", "scheduler"):
            sandbox.lc("exec", "--", "true")
            os.kill(sandbox.programs()[part], signal.SIGKILL)
    sandbox.lc("exec", "--", "true")
    assert len(sandbox.programs()) == 6
