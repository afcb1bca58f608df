"""A session that nobody uses ends by itself, and one that is used does not."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from tests.helpers import Sandbox, told, wait_until

_IDLE = {"LIGHTCONE_IDLE_TIMEOUT": "2"}
_TIMEOUT = 2.0


def test_unused_session_ends_and_the_next_call_says_so(sandbox: Sandbox) -> None:
    sandbox.lc("session", "start", env=_IDLE)
    assert sandbox.status()["idle_timeout_s"] == _TIMEOUT
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
    wait_until(lambda: not sandbox.processes(), "the terminal server has left too")
    shown = sandbox.lc("session", "status").stdout
    assert re.search(r": dead, no session is running\n .* ended at .*: idle for 2.0 s\n", shown)
    again = sandbox.lc("exec", "--", "true", env=_IDLE)
    ended, starting = told(again.stderr)
    assert re.fullmatch(r"lc: the last session ended .* ago: idle for 2\.0 s", ended)
    assert starting.startswith("lc: starting the session lc-project-")


def test_used_session_stays(sandbox: Sandbox) -> None:
    """A command that prints nothing, and a caller that only holds results, are uses."""
    gate, there = sandbox.base / "gate", sandbox.base / "there"
    waiting = f"touch {there}; until [ -e {gate} ]; do sleep 0.1; done"
    command = sandbox.popen("exec", "--", "sh", "-c", waiting, env=_IDLE)
    wait_until(there.exists, "the command runs")
    programs = sandbox.programs()
    begun = time.monotonic()
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


@contextlib.contextmanager
def _notebook(sandbox: Sandbox) -> Iterator[subprocess.Popen[str]]:
    """A program that holds a result, and asks for it again for each line that it is given."""
    code = """if True:
        import sys, lightcone
        client = lightcone.connect()
        future = client.submit(sum, [1, 2])
        print(future.result(timeout=30), flush=True)
        for line in sys.stdin:
            print(future.result(timeout=30), flush=True)
        client.close()
    """
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=sandbox.project,
        env=sandbox.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "3\n"
        yield program


def test_forgotten_results_are_a_use_for_a_while_only(sandbox: Sandbox) -> None:
    """Results that a program holds, and asks nothing of, do not keep a session for ever."""
    settings = '[session]\nidle_timeout = "1s"\nforgotten_timeout = "4s"\n'
    (sandbox.project / "lightcone.toml").write_text(settings)
    with _notebook(sandbox) as notebook:
        assert notebook.stdin is not None
        assert notebook.stdout is not None
        programs = sandbox.programs()
        begun = time.monotonic()
        while time.monotonic() < begun + 8:
            asked = time.monotonic()
            notebook.stdin.write("again\n")
            notebook.stdin.flush()
            assert notebook.stdout.readline() == "3\n"
            wait_until(lambda at=asked: time.monotonic() > at + 1, "a while")  # type: ignore[misc]
        assert sandbox.programs() == programs
        sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
        ended = sandbox.status()["ended"]["reason"]
        assert ended == "forgotten for 4.0 s: a program held results and asked nothing"
        again = sandbox.lc("exec", "--", "true").stderr
        assert f" ago: {ended}\n" in again


def test_command_of_days_is_never_forgotten(sandbox: Sandbox) -> None:
    """Not even beside a program that is: what is being computed is not forgotten."""
    settings = '[session]\nidle_timeout = "1s"\nforgotten_timeout = "1s"\n'
    (sandbox.project / "lightcone.toml").write_text(settings)
    gate, there = sandbox.base / "gate", sandbox.base / "there"
    waiting = f"touch {there}; until [ -e {gate} ]; do sleep 0.1; done"
    command = sandbox.popen("exec", "--", "sh", "-c", waiting)
    wait_until(there.exists, "the command runs")
    with _notebook(sandbox):
        programs = sandbox.programs()
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 4, "four times the timeouts have passed")
        assert sandbox.programs() == programs
        gate.touch()
        assert command.wait(timeout=60) == 0
        sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
        assert sandbox.status()["ended"]["reason"].startswith("forgotten for 1.0 s: ")


def test_time_asleep_is_not_idle_time(sandbox: Sandbox) -> None:
    sandbox.lc("session", "start", env={"LIGHTCONE_IDLE_TIMEOUT": "4"})
    programs = sandbox.programs()
    for pid in programs.values():
        os.kill(pid, signal.SIGSTOP)
    scheduler = psutil.Process(programs["scheduler"])
    wait_until(lambda: scheduler.status() == psutil.STATUS_STOPPED, "it is stopped")
    begun = time.monotonic()
    # Who started it had five seconds more.
    wait_until(lambda: time.monotonic() > begun + 10, "more than the timeout has passed")
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
