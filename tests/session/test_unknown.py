"""A session that holds its lock and does not answer: never a second one, and nothing is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.helpers import Sandbox, wait_until
from tests.session.impatient import IMPATIENT

# Runs lc as if the session had been silent when it was first asked, and then was not.
_SILENT_AT_FIRST = """\
from lightcone.cli.main import main
from lightcone.session import start
ready, silent = start.wait_until_ready, [None, None]
start.wait_until_ready = lambda *given: silent.pop() if silent else ready(*given)
main()
"""


@pytest.fixture
def frozen(shared: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with a session whose scheduler is stopped; it goes on afterwards."""
    pids = list(shared.programs().values())
    scheduler = psutil.Process(shared.programs()["scheduler"])
    scheduler.suspend()
    wait_until(lambda: scheduler.status() == psutil.STATUS_STOPPED, "the scheduler is stopped")
    yield shared
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    shared.lc("session", "wait", "--timeout", "30")


def test_status_says_so_in_bounded_time(frozen: Sandbox) -> None:
    begun = time.monotonic()
    told = json.loads(frozen.lc("session", "status", "--json").stdout)
    assert time.monotonic() - begun < 30
    assert told["state"] == "unknown"
    scheduler = frozen.programs()["scheduler"]
    assert told["why"] == f"its scheduler has been stopped ('kill -CONT {scheduler}' lets it go on)"


@pytest.mark.parametrize(
    ("verb", "others"), [("start", True), ("stop", False)], ids=["start", "stop"]
)
def test_start_and_stop_refuse_and_kill_nothing(frozen: Sandbox, verb: str, others: bool) -> None:
    programs = frozen.programs()
    for pid in programs.values() if others else ():
        os.kill(pid, signal.SIGSTOP)
    result = frozen.python("-c", IMPATIENT, "1", "session", verb, check=3)
    assert "cannot be told" in result.stderr
    assert "'lc session stop --force'" in result.stderr
    assert frozen.programs() == programs
    for pid in programs.values():
        os.kill(pid, signal.SIGCONT)
    frozen.lc("session", "wait", "--timeout", "30")
    frozen.lc("exec", "--", "true")
    assert frozen.programs() == programs


def test_attach_and_list_go_without_it(frozen: Sandbox) -> None:
    attach = frozen.popen("session", "attach")
    assert json.loads(frozen.lc("session", "list", "--json").stdout) == []
    _, errors = attach.communicate(timeout=60)
    assert attach.returncode == 3
    assert b"has been stopped" in errors


@pytest.mark.parametrize("what", ["ready", "idle", "end"])
def test_wait_goes_on_waiting(frozen: Sandbox, what: str) -> None:
    result = frozen.lc("session", "wait", "--for", what, "--timeout", "1", check=1)
    state = "ended" if what == "end" else what
    assert result.stderr.endswith(f": not {state} within 1\n")


def test_caller_that_came_meanwhile_goes_on_with_it(frozen: Sandbox) -> None:
    programs = frozen.programs()
    caller = frozen.popen("exec", "--", "echo", "done")
    assert caller.stderr is not None
    assert b"waiting for a session" in caller.stderr.readline()
    os.kill(programs["scheduler"], signal.SIGCONT)
    assert caller.communicate(timeout=60)[0] == b"done\n"
    assert frozen.programs() == programs


def test_session_that_answers_again_just_then_is_not_replaced(shared: Sandbox) -> None:
    programs = shared.programs()
    result = shared.python("-c", _SILENT_AT_FIRST, "session", "start")
    assert result.stdout.endswith(": is up already\n")
    assert shared.programs() == programs


def test_session_that_gets_no_worker_is_told(sandbox: Sandbox) -> None:
    sandbox.start()
    programs = sandbox.programs()
    with sandbox.without_worker():
        result = sandbox.python("-c", IMPATIENT, "1", "session", "start", check=3)
        assert "has no worker" in result.stderr
        assert "lc session stop" in result.stderr
    sandbox.lc("exec", "--", "true")
    assert sandbox.programs()["scheduler"] == programs["scheduler"]
