"""A session that nobody uses ends by itself, and one that is used does not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import psutil

from tests.helpers import Sandbox, wait_until

_IDLE = {"LIGHTCONE_IDLE_TIMEOUT": "2"}
_TIMEOUT = 2.0


def test_unused_session_ends_and_the_next_call_says_so(sandbox: Sandbox) -> None:
    sandbox.lc("session", "start", env=_IDLE)
    assert sandbox.status()["idle_timeout_s"] == _TIMEOUT
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
    assert sandbox.processes() == []
    shown = sandbox.lc("session", "status").stdout
    assert re.search(r": dead, no session is running\n .* ended at .*: idle for 2.0 s\n", shown)
    again = sandbox.lc("exec", "--", "true", env=_IDLE)
    told, starting = again.stderr.splitlines()
    assert re.fullmatch(r"lc: the last session ended .* ago: idle for 2\.0 s", told)
    assert starting.startswith("lc: starting the session lc-project-")


def test_used_session_stays(sandbox: Sandbox) -> None:
    """A command that prints nothing, and a caller that only holds results, are uses."""
    sandbox.lc("session", "start", env=_IDLE)
    programs = sandbox.programs()
    gate = sandbox.base / "gate"
    begun = time.monotonic()
    command = sandbox.popen("exec", "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.1; done")
    holder = sandbox.popen("session", "wait", "--for", "end")
    wait_until(lambda: time.monotonic() > begun + 2 * _TIMEOUT, "twice the timeout has passed")
    assert sandbox.programs() == programs
    assert holder.poll() is None
    gate.touch()
    assert command.wait(timeout=60) == 0
    # A caller that only watches is no use: it is told of the end.
    assert holder.wait(timeout=60) == 0


def test_held_results_are_a_use(sandbox: Sandbox) -> None:
    code = """if True:
        import sys, lightcone
        with lightcone.connect() as client:
            future = client.submit(sum, [1, 2])
            assert future.result(timeout=30) == 3
            print("held", flush=True)
            sys.stdin.read()
            assert future.result(timeout=30) == 3
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=sandbox.project,
        env=sandbox.env | _IDLE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 2 * _TIMEOUT, "twice the timeout has passed")
        assert sandbox.status()["state"] == "alive"
    assert holder.returncode == 0
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")


def test_time_asleep_is_not_idle_time(sandbox: Sandbox) -> None:
    sandbox.lc("session", "start", env={"LIGHTCONE_IDLE_TIMEOUT": "4"})
    programs = sandbox.programs()
    for pid in programs.values():
        os.kill(pid, signal.SIGSTOP)
    scheduler = psutil.Process(programs["scheduler"])
    wait_until(lambda: scheduler.status() == psutil.STATUS_STOPPED, "it is stopped")
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 6, "more than the timeout has passed")
    for pid in programs.values():
        os.kill(pid, signal.SIGCONT)
    sandbox.lc("exec", "--", "true")
    assert sandbox.programs() == programs


def test_start_resets_the_clock_no_more_than_any_look(sandbox: Sandbox) -> None:
    """Looking is no use: an agent that asks for the status each second keeps nothing alive."""
    sandbox.lc("session", "start", env=_IDLE)
    wait_until(lambda: sandbox.status()["state"] == "dead", "it has ended")


def test_projects_own_timeout(sandbox: Sandbox) -> None:
    (sandbox.project / "lightcone.toml").write_text('[session]\nidle_timeout = "1h30m"\n')
    assert sandbox.start()["idle_timeout_s"] == 5400.0
