"""``lc session``: what its verbs print, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from datetime import datetime
from pathlib import Path

import pytest

from tests.helpers import Sandbox, wait_until

# The order is part of what is promised: people read it too.
_ALWAYS = [
    *("state", "name", "key", "kind", "host", "address", "started", "idle_timeout_s", "leases"),
    *("workers", "attach"),
]
_ALIVE = [*_ALWAYS, "root", "idle", "runs", "version"]
_DEAD = [*_ALWAYS, "why", "ended"]


def test_status_of_a_living_session(shared: Sandbox) -> None:
    told = shared.status()
    assert list(told) == _ALIVE
    assert told["state"] == "alive"
    assert told["kind"] == "project"
    assert told["host"] == socket.gethostname()
    assert told["name"] == f"lc-project-{told['key']}"
    assert re.fullmatch(r"tls://127\.0\.0\.1:\d+", told["address"])
    assert datetime.fromisoformat(told["started"]).tzinfo is not None
    assert told["idle_timeout_s"] == 1800.0
    assert told["root"] == str(shared.project)
    (worker,) = told["workers"]
    assert list(worker) == ["host", "cpus", "memory", "gpus"]
    assert worker["cpus"] >= 1
    assert 0 < worker["memory"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert told["attach"].endswith(f" attach-session -r -t {told['name']}")
    assert str(shared.runtime / told["key"]) in told["attach"]


def test_status_for_people(shared: Sandbox) -> None:
    told = shared.status()
    lines = shared.lc("session", "status").stdout.splitlines()
    assert lines[0] == f"{told['name']}: alive"
    assert lines[1].startswith("  idle; ends by itself after 30 min without use; started at ")
    assert re.fullmatch(rf"  worker on {told['host']}: [\d.]+ cpus?, [\d.]+ [KMGT]iB.*", lines[2])
    assert lines[3:] == ["  watch it with 'lc session attach', end it with 'lc session stop'"]


def test_status_of_none(sandbox: Sandbox) -> None:
    told = sandbox.status()
    assert list(told) == _DEAD
    assert (told["state"], told["why"], told["ended"]) == ("dead", "no session is running", None)
    assert told["workers"] == []
    assert told["address"] is told["host"] is told["attach"] is None
    shown = sandbox.lc("session", "status").stdout
    assert shown == f"{told['name']}: dead, no session is running\n"
    assert not (sandbox.scratch / ".lightcone").exists()


def test_status_after_the_end(sandbox: Sandbox) -> None:
    sandbox.start()
    sandbox.lc("session", "stop")
    ended = sandbox.status()["ended"]
    assert ended["reason"] == "stopped by 'lc session stop'"
    assert datetime.fromisoformat(ended["at"]).tzinfo is not None
    shown = sandbox.lc("session", "status").stdout
    assert re.search(rf"the last one ended at \S+: {ended['reason']}\n$", shown)


def test_use_is_shown_while_it_lasts(shared: Sandbox) -> None:
    gate = shared.base / "gate"
    caller = shared.popen("exec", "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done")
    wait_until(lambda: shared.status()["runs"], "the command is known")
    told = shared.status()
    assert not told["idle"]
    assert told["runs"] == [{"name": f"lc exec, pid {caller.pid}", "pid": caller.pid}]
    assert f"  used by lc exec, pid {caller.pid}\n" in shared.lc("session", "status").stdout
    assert "in use" in shared.lc("session", "list").stdout
    gate.touch()
    assert caller.wait(timeout=60) == 0
    shared.lc("session", "wait", "--for", "idle", "--timeout", "30")
    told = shared.status()
    assert told["idle"]
    assert told["runs"] == []


def test_list_has_every_living_session_of_the_host(sandbox: Sandbox) -> None:
    def listed() -> list[dict[str, object]]:
        found = sandbox.lc("session", "list", "--json", cwd=sandbox.base).stdout
        return [dict(entry) for entry in json.loads(found)]

    assert listed() == []
    other = sandbox.new_project("other")
    sandbox.start()
    sandbox.lc("session", "start", cwd=other)
    entries = listed()
    assert {entry["root"] for entry in entries} == {str(sandbox.project), str(other)}
    assert all(list(entry) == _ALIVE for entry in entries)
    lines = sandbox.lc("session", "list").stdout.splitlines()
    assert all(re.fullmatch(r"lc-\S+ +[\d.]+ cpus? +idle    /.*", line) for line in lines)
    sandbox.lc("session", "stop")
    assert [entry["root"] for entry in listed()] == [str(other)]


def test_list_in_a_broken_project(sandbox: Sandbox) -> None:
    (sandbox.project / "lightcone.toml").write_text("[session\n")
    assert json.loads(sandbox.lc("session", "list", "--json").stdout) == []


def test_logs_of_both_and_of_one(shared: Sandbox) -> None:
    both = shared.lc("session", "logs").stdout
    assert "logs/scheduler.log" in both
    assert "logs/worker.log" in both
    worker = shared.lc("session", "logs", "worker").stdout
    assert "Registered to" in worker
    assert "Register worker" not in worker
    assert len(shared.lc("session", "logs", "-n", "1", "worker").stdout.splitlines()) == 1


def test_logs_after_death(sandbox: Sandbox) -> None:
    sandbox.start()
    os.kill(sandbox.programs()["scheduler"], signal.SIGKILL)
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
    told = sandbox.lc("session", "logs", "scheduler").stdout
    assert f"[guard] {Path(sandbox.interpreter).name} ended: signal 9" in told


def test_logs_are_followed(sandbox: Sandbox) -> None:
    sandbox.start()
    follower = sandbox.popen("session", "logs", "-f", "scheduler")
    assert follower.stdout is not None
    assert follower.stdout.readline()
    sandbox.lc("session", "stop")
    ended = f"[guard] {Path(sandbox.interpreter).name} ended: exit status 0"
    assert any(ended in line.decode() for line in follower.stdout)
    follower.terminate()
    follower.wait(timeout=30)


def test_no_logs(sandbox: Sandbox) -> None:
    result = sandbox.lc("session", "logs", check=3)
    assert result.stderr.startswith("lc: There are no logs, as no session was started here")
    result = sandbox.lc("session", "logs", "driver", check=2)
    assert "'scheduler', 'worker'" in result.stderr


def test_wait_for_ready_and_idle(shared: Sandbox) -> None:
    for what in ("ready", "idle"):
        for timeout in ((), ("--timeout", "0"), ("--timeout", "1m")):
            result = shared.lc("session", "wait", "--for", what, *timeout)
            assert (result.stdout, result.stderr) == ("", "")


def test_wait_for_a_session_that_comes_later(sandbox: Sandbox) -> None:
    waiting = sandbox.popen("session", "wait")
    sandbox.start()
    assert waiting.wait(timeout=60) == 0


def test_wait_for_the_end_of_everything(sandbox: Sandbox) -> None:
    sandbox.lc("session", "wait", "--for", "end")
    sandbox.start()
    waiting = sandbox.popen("session", "wait", "--for", "end")
    wait_until(lambda: waiting.poll() is None and sandbox.status()["idle"], "it waits")
    sandbox.lc("session", "stop")
    assert waiting.wait(timeout=60) == 0
    assert sandbox.processes() == []


@pytest.mark.parametrize("timeout", ["0", "0.1s"])
def test_wait_that_is_in_vain(shared: Sandbox, timeout: str) -> None:
    gate = shared.base / f"vain{timeout}"
    caller = shared.popen("exec", "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done")
    wait_until(lambda: shared.status()["runs"], "it is in use")
    for what in ("idle", "end"):
        result = shared.lc("session", "wait", "--for", what, "--timeout", timeout, check=1)
        name = shared.status()["name"]
        state = "ended" if what == "end" else what
        assert result.stderr == f"lc: {name}: not {state} within {timeout}\n"
    gate.touch()
    assert caller.wait(timeout=60) == 0


def test_wait_for_none_is_in_vain(sandbox: Sandbox) -> None:
    sandbox.lc("session", "wait", "--timeout", "0.2", check=1)
    sandbox.lc("session", "wait", "--for", "idle", "--timeout", "0.2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("wait --timeout soon", "'soon' is not a duration"),
        ("wait --for ever", "'ready', 'idle', 'end'"),
        ("logs -n -1", "-1 is not in the range"),
        ("begin", "No such command 'begin'"),
        ("status --xml", "--xml"),
    ],
)
def test_mistakes_in_the_call(sandbox: Sandbox, arguments: str, words: str) -> None:
    result = sandbox.lc("session", *arguments.split(), check=2)
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("verb", ["start", "stop", "status", "attach", "logs", "wait"])
def test_outside_a_project(sandbox: Sandbox, verb: str) -> None:
    result = sandbox.lc("session", verb, check=2, cwd=sandbox.base)
    assert result.stderr.startswith(f"lc: There is no astra.yaml in {sandbox.base} or above it: ")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LIGHTCONE_IDLE_TIMEOUT", "soon", "'soon' is not a duration"),
        ("LIGHTCONE_IDLE_TIMEOUT", "0", "it must be more than zero"),
        ("LIGHTCONE_IDLE_TIMEOUT", "-5m", "'-5m' is not a duration"),
    ],
)
def test_bad_variable(sandbox: Sandbox, name: str, value: str, words: str) -> None:
    result = sandbox.lc("session", "start", check=2, env={name: value})
    assert words in result.stderr
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1
