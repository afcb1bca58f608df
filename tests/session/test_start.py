"""A session that cannot start, or whose worker cannot stay: told at once, with the last lines."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from lightcone.project.context import current_context
from lightcone.session import spawn
from tests.helpers import Sandbox, wait_until

_FAULTS = {
    "leaves": "raise SystemExit('no thank you')",
    "cannot bind": "import socket; socket.socket.bind = None; sys.modules['_socket'].socket = None",
    "cannot import": "sys.modules['msgpack'] = None",
    "is killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("part", ["scheduler", "worker"])
@pytest.mark.parametrize("fault", list(_FAULTS))
def test_program_that_dies_while_starting(sandbox: Sandbox, part: str, fault: str) -> None:
    env = sandbox.beginning_with(part, _FAULTS[fault])
    result = sandbox.lc("session", "start", check=3, env=env)
    assert "ended while it was starting" in result.stderr
    assert f"\n  {part}: " in result.stderr
    assert sandbox.processes() == []
    sandbox.lc("exec", "--", "true")


def test_worker_that_had_no_time_to_say_what_is_wrong(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LIGHTCONE_SCRATCH", "LIGHTCONE_RUNTIME_DIR"):
        monkeypatch.setenv(name, sandbox.env[name])
    context = current_context(sandbox.project)
    context.prepare()
    log = context.state / "logs" / "worker.log"
    log.write_text("Traceback (most recent call last):\n[guard] python ended: signal 15\n")
    told = spawn.describe_failed_start(context)
    assert "Traceback" not in told
    assert told.endswith("\n  worker: [guard] python ended: signal 15")


def test_environment_in_which_lc_itself_cannot_run(sandbox: Sandbox) -> None:
    site = sandbox.base / "site"
    site.mkdir()
    (site / "msgpack.py").write_text("raise ImportError('broken here')\n")
    result = sandbox.lc("exec", "--", "true", check=125, env={"PYTHONPATH": str(site)})
    assert "cannot be imported by" in result.stderr
    assert "(broken here): look for PYTHONPATH" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sandbox.processes() == []


# The caller has started the programs and is about to tell them what they are.
_HALFWAY = """\
import sys, time
class Halfway:
    def find_spec(self, name, *_):
        if name == "cryptography":
            open({place!r}, "w").close()
            time.sleep(600)
sys.meta_path.insert(0, Halfway())
"""


def test_caller_killed_before_it_has_told_the_programs_what_they_are(sandbox: Sandbox) -> None:
    site, place = sandbox.base / "site", sandbox.base / "halfway"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_HALFWAY.format(place=str(place)))
    caller = sandbox.popen("session", "start", env={"PYTHONPATH": str(site)})
    wait_until(lambda: place.exists() and "worker" in sandbox.programs(), "they have been started")
    caller.kill()
    wait_until(lambda: not sandbox.processes(), "they have left")
    assert sandbox.status()["state"] == "dead"
    sandbox.lc("exec", "--", "true")


@pytest.fixture
def small_disk(sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox whose scratch is a file system of its own with this many kilobytes."""
    options = ["-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs"]
    mount = subprocess.run(["mount", *options, str(sandbox.scratch)], check=False)
    if mount.returncode != 0:
        pytest.skip("this user cannot mount a file system")
    yield sandbox
    subprocess.run(["umount", "-l", str(sandbox.scratch)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("small_disk", [4, 8, 12, 16], indirect=True)
def test_disk_that_is_full(small_disk: Sandbox) -> None:
    result = small_disk.lc("session", "start", check=3)
    told = ("No space left on device", "there is no room left on the disk of")
    assert any(each in result.stderr for each in told), result.stderr
    assert small_disk.processes() == []
    small_disk.lc("session", "status")
    small_disk.lc("session", "stop")


def test_worker_that_dies_again_and_again_ends_the_session(sandbox: Sandbox) -> None:
    """It is replaced, more slowly each time; then that is given up, and the next call says so."""
    sandbox.start()
    for number in range(5):
        wait_until(sandbox.workers, "a worker is up")
        with sandbox.without_worker():
            if number == 3:
                assert "  no worker at the moment: " in sandbox.lc("session", "status").stdout
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
    why = "its worker died five times within a minute, see 'lc session logs worker'"
    told = sandbox.status()
    assert (told["state"], told["ended"]["reason"]) == ("dead", why)
    assert f": {why}\n" in sandbox.lc("session", "status").stdout
    assert f" ago: {why}\n" in sandbox.lc("exec", "--", "true").stderr
    assert " ago: " not in sandbox.lc("exec", "--", "true").stderr


def test_waiting_is_shown(sandbox: Sandbox) -> None:
    """By the call that starts a session, and by one that waits for that."""
    env, gate = sandbox.held_up("worker")
    callers = [sandbox.popen("exec", "--", "true", env=env) for _ in range(2)]
    waiting = {
        "lc: waiting for the session's worker",
        "lc: waiting for another call that is starting or ending the session",
    }
    for caller in callers:
        assert caller.stderr is not None
        told = iter(caller.stderr.readline, b"")
        assert any(re.sub(r" \(\d+ s\)\n$", "", line.decode()) in waiting for line in told)
    gate.touch()
    assert [caller.wait(timeout=60) for caller in callers] == [0, 0]
