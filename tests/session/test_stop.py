"""However a session is ended, everything of it ends, in order and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.helpers import Sandbox, wait_until

# Longer than a test may take: what ends sooner was not killed at the end of its grace.
_GRACE = 90.0
_SOON = 45.0
_SLOW_TO_END = """\
trap 'sleep 1; echo ended > "$1/ended"; exit 0' TERM
: > "$1/running"
while :; do sleep 0.1; done
"""
_PRINTS_MUCH = """\
: > "$1/running"
while [ ! -e "$1/go" ]; do sleep 0.02; done
head -c 3000000 /dev/zero
: > "$1/printed"
exec sleep 100
"""


def _tmux(sandbox: Sandbox, *arguments: str) -> None:
    socket = sandbox.runtime / sandbox.status()["key"] / "tmux"
    subprocess.run(["tmux", "-S", str(socket), *arguments], check=True, timeout=30)


def _stop(sandbox: Sandbox) -> None:
    sandbox.lc("session", "stop")


def _kill_session(sandbox: Sandbox) -> None:
    _tmux(sandbox, "kill-session")


def _kill_server(sandbox: Sandbox) -> None:
    _tmux(sandbox, "kill-server")


def _term_scheduler(sandbox: Sandbox) -> None:
    os.kill(sandbox.programs()["scheduler"], signal.SIGTERM)


def _term_server(sandbox: Sandbox) -> None:
    os.kill(sandbox.programs()["tmux"], signal.SIGTERM)


def _hang_up_guard(sandbox: Sandbox) -> None:
    os.kill(sandbox.programs()["worker guard"], signal.SIGHUP)


_ENDINGS = [
    _stop,
    _kill_session,
    _kill_server,
    _term_scheduler,
    _term_server,
    _hang_up_guard,
]


@pytest.mark.parametrize("ending", _ENDINGS, ids=lambda ending: str(ending.__name__).strip("_"))
def test_commands_end_as_they_wish_and_then_everything(
    sandbox: Sandbox, ending: Callable[[Sandbox], None]
) -> None:
    (sandbox.project / "lightcone.toml").write_text(f"[run]\ngrace = {_GRACE}\n")
    sandbox.start()
    log = sandbox.state() / "logs" / "scheduler.log"
    caller = sandbox.popen("exec", "--", "sh", "-c", _SLOW_TO_END, "sh", str(sandbox.base))
    wait_until((sandbox.base / "running").exists, "the command runs")
    begun = time.monotonic()
    ending(sandbox)
    _, errors = caller.communicate(timeout=60)
    assert caller.returncode == 125
    assert b"Traceback" not in errors
    wait_until(lambda: not sandbox.processes(), "every process has ended")
    assert time.monotonic() - begun < _SOON
    assert (sandbox.base / "ended").read_text() == "ended\n"
    assert sandbox.status()["state"] == "dead"
    assert "Traceback" not in log.read_text()


def test_suspended_caller_does_not_hold_the_end_up(sandbox: Sandbox) -> None:
    """He reads nothing of what his command has printed, and does not leave."""
    sandbox.start()
    log = sandbox.state() / "logs" / "scheduler.log"
    caller = sandbox.popen(
        *("exec", "--", "sh", "-c", _PRINTS_MUCH, "sh", str(sandbox.base)),
        stdout=subprocess.DEVNULL,
    )
    wait_until((sandbox.base / "running").exists, "the command runs")
    os.kill(caller.pid, signal.SIGSTOP)
    (sandbox.base / "go").touch()
    wait_until((sandbox.base / "printed").exists, "it has printed much")
    sandbox.lc("session", "stop")
    assert "Traceback" not in log.read_text()
    os.kill(caller.pid, signal.SIGCONT)
    _, errors = caller.communicate(timeout=60)
    assert caller.returncode == 125
    assert b"Traceback" not in errors


def test_python_task_does_not_hold_the_end_up(sandbox: Sandbox) -> None:
    """Its thread cannot be ended, only left."""
    code = """if True:
        import lightcone, sys, time
        client = lightcone.connect()
        future = client.submit(lambda path: (open(path, "w"), time.sleep(1000)), sys.argv[1])
        try:
            future.result()
        except Exception as error:
            print(type(error).__name__)
    """
    (sandbox.project / "lightcone.toml").write_text(f"[run]\ngrace = {_GRACE}\n")
    running = sandbox.base / "running"
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(running)],
        cwd=sandbox.project,
        env=sandbox.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with caller:
        wait_until(running.exists, "the task runs")
        begun = time.monotonic()
        sandbox.lc("session", "stop")
        assert time.monotonic() - begun < _SOON
