"""A session's life: started once, used again, ended completely."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import pytest

from lightcone.wire.control_client import connect_session
from lightcone.wire.protocol import PROTOCOL
from tests.helpers import Sandbox, end, told, wait_until


def test_started_used_again_and_ended(sandbox: Sandbox) -> None:
    first = sandbox.lc("session", "start")
    assert re.fullmatch(r"lc-project-[0-9a-f]{8}: started in [\d.]+ s\n", first.stdout)
    assert told(first.stderr) == [f"lc: starting the session {first.stdout.partition(':')[0]}"]
    before = sandbox.programs()
    assert set(before) == {
        "scheduler",
        "scheduler guard",
        "worker",
        "worker guard",
        "inner guard",
        "tmux",
    }
    again = sandbox.lc("session", "start")
    assert again.stdout.endswith(": is up already\n")
    assert again.stderr == ""
    sandbox.lc("exec", "--", "true")
    assert sandbox.programs() == before
    state = sandbox.state()
    stopped = sandbox.lc("session", "stop")
    assert stopped.stdout.endswith(": ended\n")
    assert sandbox.remains() == []
    assert not list(state.glob("*/*.pem"))
    assert not list((state / "spill").iterdir())


def test_started_again_after_its_end(sandbox: Sandbox) -> None:
    first = sandbox.start()
    sandbox.lc("session", "stop")
    second = sandbox.lc("session", "start")
    assert re.search(
        r"lc: the last session ended .* ago: stopped by 'lc session stop'\n", second.stderr
    )
    told = sandbox.status()
    assert told["state"] == "alive"
    assert told["key"] == first["key"]
    assert told["address"] != first["address"]


@pytest.mark.parametrize("before", [False, True], ids=["never started", "stopped already"])
def test_stop_is_quiet_where_there_is_nothing_to_stop(sandbox: Sandbox, before: bool) -> None:
    if before:
        sandbox.start()
        sandbox.lc("session", "stop")
    result = sandbox.lc("session", "stop")
    assert (result.stdout, result.stderr) == ("", "")


def test_each_project_has_its_own(sandbox: Sandbox) -> None:
    other = sandbox.new_project("other project")
    first = sandbox.start()
    sandbox.lc("session", "start", cwd=other)
    second = sandbox.status(cwd=other)
    assert second["name"].startswith("lc-other-project-")
    assert second["key"] != first["key"]
    sandbox.lc("session", "stop")
    assert sandbox.status()["state"] == "dead"
    assert sandbox.status(cwd=other)["address"] == second["address"]


def test_one_session_for_every_path_to_the_project(sandbox: Sandbox) -> None:
    told = sandbox.start()
    below = sandbox.project / "a" / "b"
    below.mkdir(parents=True)
    link = sandbox.base / "link"
    link.symlink_to(sandbox.project)
    for directory in (below, link, link / "a"):
        assert sandbox.status(cwd=directory)["address"] == told["address"]


def test_callers_at_the_same_instant_share_one_session(sandbox: Sandbox) -> None:
    callers = [sandbox.popen("session", "start") for _ in range(12)]
    outputs = [caller.communicate(timeout=100) for caller in callers]
    assert [caller.returncode for caller in callers] == [0] * 12, outputs
    started = [out for out, _ in outputs if b": started in " in out]
    assert len(started) == 1, outputs
    sandbox.programs()  # none of them is there twice


def test_callers_of_start_and_stop_at_once_end_in_a_whole_state(sandbox: Sandbox) -> None:
    verbs = ["start", "stop", "start", "stop", "start"]
    callers = [sandbox.popen("session", verb) for verb in verbs]
    outputs = [caller.communicate(timeout=100) for caller in callers]
    assert all(b"Traceback" not in err for _, err in outputs), outputs
    sandbox.lc("exec", "--", "true")
    assert len(sandbox.programs()) == 6


@pytest.mark.parametrize(
    "moment", ["lock", "windows", "worker"], ids=["it prepares", "programs start", "it waits"]
)
def test_caller_killed_while_it_starts_a_session(sandbox: Sandbox, moment: str) -> None:
    signs = {"lock": "spawn.lock", "windows": "spawn.json", "worker": "session.json"}
    caller = sandbox.popen("session", "start")
    sessions = sandbox.scratch / ".lightcone" / "sessions"
    wait_until(lambda: list(sessions.glob(f"*/{signs[moment]}")), f"{signs[moment]} is written")
    caller.kill()
    caller.wait()
    sandbox.lc("exec", "--", "true")
    assert len(sandbox.programs()) == 6


def test_caller_interrupted_while_it_starts_a_session(sandbox: Sandbox) -> None:
    env, gate = sandbox.held_up("worker")
    caller = sandbox.popen("exec", "--", "true", env=env, start_new_session=True)
    sessions = sandbox.scratch / ".lightcone" / "sessions"
    wait_until(lambda: list(sessions.glob("*/spawn.json")), "it is starting")
    caller.send_signal(signal.SIGINT)
    _, errors = caller.communicate(timeout=60)
    gate.touch()
    assert caller.returncode == 130
    assert errors.endswith(b"lc: interrupted\n")
    sandbox.lc("exec", "--", "true")
    assert len(sandbox.programs()) == 6


def _garbage(path: Path) -> None:
    path.write_bytes(b'{"key": \xff')


def _dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_what_is_left_of_others_does_not_stop_a_start(sandbox: Sandbox) -> None:
    key = sandbox.start()["key"]
    state = sandbox.state()
    end(list(sandbox.programs().values()))
    wait_until(lambda: not sandbox.processes(), "all are gone")
    for name in ("session.json", "spawn.json", "engine.json", "tls/session.pem"):
        _garbage(state / name)
    for name in ("control", "tmux"):
        path = sandbox.runtime / key / name
        path.unlink(missing_ok=True)
        _dead_socket(path)
    assert sandbox.status()["state"] == "dead"
    sandbox.lc("exec", "--", "true")
    assert sandbox.status()["state"] == "alive"


def test_every_runtime_file_may_vanish(sandbox: Sandbox) -> None:
    """A cleaner of /tmp removes sockets that nobody has touched for days."""
    first = sandbox.start()
    sandbox.lc("session", "stop")
    for path in sandbox.runtime.iterdir():
        path.rmdir()
    sandbox.runtime.rmdir()
    assert sandbox.start()["key"] == first["key"]


def test_end_while_starting_is_told_with_the_last_lines(sandbox: Sandbox) -> None:
    broken = sandbox.home / ".config" / "dask"
    broken.mkdir(parents=True)
    (broken / "broken.yaml").write_text("{unclosed: [")
    result = sandbox.lc("session", "start", check=3)
    assert "ended while it was starting" in result.stderr
    assert "scheduler: " in result.stderr
    assert sandbox.processes() == []


# Makes every Python of an environment one of another version, session included.
_ANOTHER_VERSION = """\
from lightcone.wire import protocol
protocol.PYTHON = "2.7"
"""


@pytest.fixture
def of_another_version(sandbox: Sandbox) -> dict[str, int]:
    """The programs of a session that the lightcone under test cannot use."""
    site = sandbox.base / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_ANOTHER_VERSION)
    sandbox.lc("session", "start", env={"PYTHONPATH": str(site)})
    return sandbox.programs()


def test_session_of_another_version_is_replaced_when_idle(
    sandbox: Sandbox, of_another_version: dict[str, int]
) -> None:
    result = sandbox.lc("exec", "--", "true")
    assert "lc: replacing a session of another version\n" in result.stderr
    assert not set(sandbox.programs().values()) & set(of_another_version.values())


def test_session_of_another_version_is_refused_when_in_use(
    sandbox: Sandbox, of_another_version: dict[str, int]
) -> None:
    socket = sandbox.runtime / sandbox.status()["key"] / "control"
    with connect_session(socket, 10.0) as caller:
        caller.exchange({"op": "call"})
        result = sandbox.lc("session", "start", check=3)
    assert "with Python 2.7, which this one cannot use" in result.stderr
    assert result.stderr.endswith(": wait for that, or run 'lc session stop'.\n")
    assert sandbox.programs() == of_another_version
    sandbox.lc("session", "stop")


def test_record_is_private_and_whole(sandbox: Sandbox) -> None:
    told = sandbox.start()
    record = json.loads((sandbox.state() / "session.json").read_bytes())
    assert record["address"] == told["address"]
    assert record["protocol"] == PROTOCOL
    assert "ended" not in record
    state = sandbox.state()
    sandbox.lc("session", "stop")
    ended = json.loads((state / "session.json").read_bytes())["ended"]
    assert ended["reason"] == "stopped by 'lc session stop'"
