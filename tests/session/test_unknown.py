"""A session that holds its lock and does not answer: never a second one, and nothing is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox, wait_until

# Runs lc with less patience than people are asked for.
_IMPATIENT = """\
import sys
from lightcone.cli.main import main
from lightcone.session import lifecycle
lifecycle._START_DEADLINE = lifecycle._LEFTOVER_DEADLINE = float(sys.argv.pop(1))
main()
"""


def _stopped(sandbox: Sandbox, part: str) -> bool:
    import psutil

    return bool(psutil.Process(sandbox.programs()[part]).status() == psutil.STATUS_STOPPED)


@pytest.fixture
def frozen(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with a session whose scheduler is stopped."""
    sandbox.start()
    scheduler = sandbox.programs()["scheduler"]
    os.kill(scheduler, signal.SIGSTOP)
    wait_until(lambda: _stopped(sandbox, "scheduler"), "the scheduler is stopped")
    yield sandbox
    os.kill(scheduler, signal.SIGCONT)
    sandbox.lc("session", "wait", "--timeout", "30")


def test_status_says_so_in_bounded_time(frozen: Sandbox) -> None:
    begun = time.monotonic()
    told = json.loads(frozen.lc("session", "status", "--json").stdout)
    assert time.monotonic() - begun < 10
    assert told["state"] == "unknown"
    assert told["why"] == "its scheduler is running but it does not answer"
    assert ": unknown, its scheduler is running but" in frozen.lc("session", "status").stdout


@pytest.mark.parametrize("verb", ["start", "stop"])
@pytest.mark.parametrize("others", [False, True], ids=["scheduler", "all of it"])
def test_start_and_stop_refuse_and_kill_nothing(frozen: Sandbox, verb: str, others: bool) -> None:
    programs = frozen.programs()
    for pid in programs.values() if others else ():
        os.kill(pid, signal.SIGSTOP)
    result = frozen.python("-c", _IMPATIENT, "2", "session", verb, check=3)
    assert "cannot be told" in result.stderr
    assert frozen.programs() == programs
    for pid in programs.values():
        os.kill(pid, signal.SIGCONT)
    frozen.lc("session", "wait", "--timeout", "30")
    frozen.lc("exec", "--", "true")
    assert frozen.programs() == programs


def test_attach_refuses(frozen: Sandbox) -> None:
    result = frozen.lc("session", "attach", check=3)
    assert "does not answer" in result.stderr


def test_list_leaves_it_out(frozen: Sandbox) -> None:
    assert json.loads(frozen.lc("session", "list", "--json").stdout) == []


@pytest.mark.parametrize("what", ["ready", "idle", "end"])
def test_wait_goes_on_waiting(frozen: Sandbox, what: str) -> None:
    result = frozen.lc("session", "wait", "--for", what, "--timeout", "1", check=1)
    assert result.stderr.endswith(f": not {what} within 1\n")


def test_caller_that_came_meanwhile_goes_on_with_it(frozen: Sandbox) -> None:
    caller = frozen.popen("exec", "--", "echo", "done")
    assert caller.stderr is not None
    assert b"waiting for a session" in caller.stderr.readline()
    os.kill(frozen.programs()["scheduler"], signal.SIGCONT)
    out, _ = caller.communicate(timeout=60)
    assert out == b"done\n"


def test_session_that_gets_no_worker_is_told(sandbox: Sandbox) -> None:
    sandbox.start()
    programs = sandbox.programs()
    os.kill(programs["inner guard"], signal.SIGSTOP)  # or it would start another
    os.kill(programs["worker"], signal.SIGKILL)
    wait_until(lambda: not sandbox.status()["workers"], "the worker is gone")
    result = sandbox.python("-c", _IMPATIENT, "2", "session", "start", check=3)
    assert "has no worker" in result.stderr
    assert "lc session stop" in result.stderr
    os.kill(programs["inner guard"], signal.SIGCONT)
    sandbox.lc("exec", "--", "true")
    assert sandbox.programs()["scheduler"] == programs["scheduler"]
