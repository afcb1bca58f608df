"""The one answer to "is it alive", in every state that a session can be found in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox, is_alive, wait_until
from tests.session.impatient import IMPATIENT

_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the holders of a lock are Linux's")
# Keeps the event loop of a session's scheduler from turning.
_WEDGE = """\
import lightcone, pathlib, sys, time
def wedge(path):
    pathlib.Path(path).touch()
    time.sleep(1000)
lightcone.connect().run_on_scheduler(wedge, sys.argv[1])
"""


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    process = psutil.Process(pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")


def _clean(directory: Path) -> None:
    """Remove a directory into which a living session may be putting something back."""
    aside = directory.with_name(f"{directory.name}.aside")
    directory.rename(aside)
    shutil.rmtree(aside)


def _tmux_socket(sandbox: Sandbox) -> Path:
    return sandbox.runtime / str(sandbox.status()["key"]) / "tmux"


@pytest.fixture
def started(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with a session of its own, with a short grace."""
    (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 1\n")
    sandbox.start()
    yield sandbox
    for process in sandbox.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                process.resume()


@_LINUX
def test_terminal_server_that_is_stopped(started: Sandbox) -> None:
    """The session is alive and of use; only watching it is not possible."""
    programs = started.programs()
    _stop(programs["tmux"])
    assert started.status()["state"] == "alive"
    started.lc("exec", "--", "true")
    watched = started.python("-c", _ON_A_TERMINAL, "session", "attach", check=3)
    assert "is alive, but its terminal server does not answer" in watched.stderr
    assert started.programs() == programs
    stopped = started.lc("session", "stop")
    assert stopped.stdout.endswith(": ended\n")
    assert started.remains() == []
    assert started.status()["ended"]["reason"] == "stopped by 'lc session stop'"


_ON_A_TERMINAL = """\
import os
from lightcone.cli.main import main
os.isatty = lambda descriptor: True
main()
"""


@_LINUX
@pytest.mark.parametrize("socket_too", [False, True], ids=["", "without sockets"])
def test_all_of_it_stopped_is_unknown_and_ends_by_force(started: Sandbox, socket_too: bool) -> None:
    programs = started.programs()
    sockets = _tmux_socket(started).parent
    for pid in programs.values():
        _stop(pid)
    if socket_too:
        shutil.rmtree(sockets)
    told = started.status()
    assert told["state"] == "unknown"
    assert str(programs["scheduler"]) in told["why"]
    refused = started.python("-c", IMPATIENT, "1", "session", "stop", check=3)
    assert "'lc session stop --force'" in refused.stderr
    assert started.programs() == programs
    started.lc("session", "stop", "--force")
    assert started.remains() == []
    told = started.status()
    assert (told["state"], told["ended"]["reason"]) == (
        "dead",
        "stopped by 'lc session stop --force'",
    )
    started.lc("exec", "--", "true")


@_LINUX
def test_wedged_scheduler_is_unknown_and_ends_by_force(started: Sandbox) -> None:
    """Its event loop does not turn; its process runs."""
    wedged = started.base / "wedged"
    caller = subprocess.Popen(
        [sys.executable, "-c", _WEDGE, str(wedged)], cwd=started.project, env=started.env
    )
    wait_until(wedged.exists, "it is wedged")
    caller.kill()
    caller.wait()
    programs = started.programs()
    told = started.status()
    assert told["state"] == "unknown"
    scheduler = programs["scheduler"]
    assert told["why"] == f"its scheduler (process {scheduler}) is running but does not answer"
    started.python("-c", IMPATIENT, "1", "exec", "--", "true", check=125)
    assert started.programs() == programs
    started.lc("session", "stop", "--force")
    assert started.remains() == []


@_LINUX
@pytest.mark.parametrize("force", [False, True], ids=["", "by force"])
def test_stop_gives_commands_their_grace_and_spares_neighbours(
    started: Sandbox, force: bool
) -> None:
    """Neighbours whose names begin as ours do, on servers of their own and on the user's."""
    key = started.status()["key"]
    neighbour = started.new_project("project-2")
    started.lc("session", "start", cwd=neighbour)
    scheduler, ours = _session_of(started, key)
    spared = {process.pid for process in started.processes()} - ours
    ended = started.base / "ended"
    script = (
        f"trap 'echo > {ended}; exit' TERM; touch {started.base}/up; while :; do sleep .1; done"
    )
    caller = started.popen("exec", "--", "sh", "-c", script)
    wait_until((started.base / "up").exists, "the command runs")
    name = f"lc-project-{key}"
    for extra in ("", "0", "-more"):
        subprocess.run(
            ["tmux", "new-session", "-d", "-s", name + extra, "sleep 1000"],
            env=started.env,
            check=True,
        )
    theirs = {process.pid for process in started.processes() if "sleep 1000" in _line(process)}
    if force:
        _stop(scheduler)
    started.lc("session", "stop", *(["--force"] if force else []))
    assert caller.wait(timeout=30) == 125
    assert ended.exists()
    assert not any(map(is_alive, ours))
    assert all(map(is_alive, spared | theirs))
    assert started.status(cwd=neighbour)["state"] == "alive"
    listed = subprocess.run(
        ["tmux", "list-sessions", "-F", "#{session_name}"],
        env=started.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == [name, f"{name}-more", f"{name}0"]
    subprocess.run(["tmux", "kill-server"], env=started.env, check=True)
    wait_until(lambda: not any(map(is_alive, theirs)), "the test's own have ended")
    shutil.rmtree(started.base / "tmp")


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _session_of(sandbox: Sandbox, key: str) -> tuple[int, set[int]]:
    """The scheduler and all processes of the session with that key."""
    record = json.loads(next(sandbox.scratch.glob(f"**/{key}-*/session.json")).read_bytes())
    server = psutil.Process(record["pid"]).parents()[1]
    assert server.name().startswith("tmux")
    return record["pid"], {server.pid, *(each.pid for each in server.children(recursive=True))}


def test_sockets_that_a_cleaner_removed_come_back(started: Sandbox) -> None:
    programs = started.programs()
    runtime = _tmux_socket(started).parent
    inodes = {path.name: path.stat().st_ino for path in runtime.iterdir()}
    _clean(runtime)
    wait_until(lambda: started.status()["state"] == "alive", "it answers again")
    wait_until((runtime / "tmux").is_socket, "its terminal server can be reached again")
    assert inodes != {path.name: path.stat().st_ino for path in runtime.iterdir()}
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert (runtime / "control").stat().st_mode & 0o777 == 0o600
    started.lc("exec", "--", "true")
    assert started.programs() == programs
    started.lc("session", "stop")
    assert started.remains() == []


def test_session_keeps_the_locks_of_outputs_from_looking_old(sandbox: Sandbox) -> None:
    claims = sandbox.scratch / ".lightcone" / "claims"
    claims.mkdir(parents=True, mode=0o700)
    claims.parent.chmod(0o700)
    lock, now = claims / "0.lock", time.time()
    lock.touch()
    os.utime(lock, (now - 40 * 86400, now - 40 * 86400))
    sandbox.start()
    wait_until(lambda: lock.stat().st_mtime >= now - 1, "its time is new")


@pytest.mark.parametrize("verb", [("session", "stop"), ("exec", "--", "true")])
def test_call_right_after_the_sockets_are_gone(started: Sandbox, verb: tuple[str, ...]) -> None:
    programs = started.programs()
    _clean(_tmux_socket(started).parent)
    started.lc(*verb)
    assert started.programs() == ({} if "stop" in verb else programs)


def test_files_that_a_cleaner_removed_come_back(started: Sandbox) -> None:
    """The key above all: without it no caller gets in."""
    programs = started.programs()
    state = started.state()
    kept = {
        name: (state / name).read_bytes()
        for name in ("tls/session.pem", "engine.json", "spawn.json")
    }
    _clean(state / "tls")
    for path in state.iterdir():
        if path.is_file():
            path.unlink(missing_ok=True)
    for name, content in kept.items():
        path = state / name
        wait_until(lambda: path.exists(), f"{name} is there")  # noqa: B023
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
    wait_until((state / "session.json").exists, "so is the record")
    started.lc("exec", "--", "true")
    os.kill(programs["worker"], signal.SIGKILL)  # another needs them too
    started.lc("exec", "--", "true")
    programs.pop("worker")
    assert programs.items() <= started.programs().items()
    os.kill(programs["scheduler"], signal.SIGSTOP)
    assert started.status()["state"] == "unknown"  # the new file's lock is held as well
    os.kill(programs["scheduler"], signal.SIGCONT)


_RECORDS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"ended": 1}',
    b'{"ended": {"reason": "x"}}',
    b'{"ended": {"reason": "x", "at": "yesterday"}}',
    b'{"ended": {"reason": "x", "at": 12}}',
    b'{"ended": {"reason": "x", "at": "2020-01-01T00:00:00"}}',
    b'{"key": "other", "host": "elsewhere", "boot_id": "0", "address": "tls://10.0.0.1:1"}',
]


def test_record_is_never_believed(started: Sandbox) -> None:
    """Not a corrupt, nor an older one, nor that of another host or of another boot."""
    programs = started.programs()
    record = started.state() / "session.json"
    for content in (_RECORDS[0], _RECORDS[-1]):
        record.write_bytes(content)
        assert started.status()["state"] == "alive"
    started.lc("exec", "--", "true")
    assert started.programs() == programs
    started.lc("session", "stop")
    for content in _RECORDS:
        record.write_bytes(content)
        assert ": dead, no session is running\n" in started.lc("session", "status").stdout
    record.write_bytes(_RECORDS[6])
    started.lc("exec", "--", "true")


def test_state_of_another_boot_is_not_ours(started: Sandbox) -> None:
    """A host that was restarted finds nothing, and starts anew."""
    state = started.state()
    started.lc("session", "stop")
    other = state.with_name(f"{state.name.partition('-')[0]}-00000000")
    state.rename(other)
    told = started.status()
    assert (told["state"], told["ended"]) == ("dead", None)
    started.lc("exec", "--", "true")
    shutil.rmtree(other)


@pytest.mark.parametrize("alive", [True, False], ids=["ours lives", "ours is dead"])
def test_other_session_on_our_socket(started: Sandbox, alive: bool) -> None:
    """It is never used for ours."""
    key = started.status()["key"]
    neighbour = started.new_project("neighbour")
    started.lc("session", "start", cwd=neighbour)
    theirs = started.status(cwd=neighbour)
    if not alive:
        started.lc("session", "stop")
    ours = started.runtime / key
    with socket.socket(socket.AF_UNIX) as stranger:
        ours.mkdir(exist_ok=True)
        path = ours / "stranger"
        stranger.bind(str(path))
        path.unlink()
    theirs_socket = started.runtime / theirs["key"] / "control"
    (ours / "control").unlink(missing_ok=True)
    (ours / "control").symlink_to(theirs_socket)
    result = started.lc("exec", "--", "sh", "-c", "pwd")
    assert result.stdout == f"{started.project}\n"
    assert started.status()["key"] == key
    assert started.status(cwd=neighbour)["address"] == theirs["address"]


@pytest.mark.parametrize("frozen", [False, True], ids=["", "stopped"])
def test_terminal_session_without_scheduler(sandbox: Sandbox, frozen: bool) -> None:
    """Of our name, on our socket, and nothing of a session in it."""
    sandbox.start()
    told, runtime = sandbox.status(), _tmux_socket(sandbox).parent
    sandbox.lc("session", "stop")
    program = ["tmux", "-S", str(runtime / "tmux"), "-f", os.devnull]
    made = subprocess.run(
        [*program, "new-session", "-d", "-P", "-F", "#{pid}", "-s", told["name"], "cat"],
        env=sandbox.env,
        capture_output=True,
        check=True,
    )
    server = int(made.stdout)
    if frozen:
        _stop(server)
    assert sandbox.status()["state"] == "dead"
    begun = time.monotonic()
    sandbox.lc("exec", "--", "true")
    assert time.monotonic() - begun < 60
    assert not is_alive(server)
    assert len(sandbox.programs()) == 6


def _can_unshare() -> bool:
    program = ["unshare", "-n", "true"]
    return shutil.which("unshare") is not None and subprocess.run(program).returncode == 0


_TELLS_WHY = """\
import lightcone
try:
    lightcone.connect()
except lightcone.LightconeError as error:
    print(error)
"""


@pytest.mark.skipif(not _can_unshare(), reason="no network namespaces for this user")
def test_session_is_used_without_a_network_and_a_program_of_the_engine_cannot(
    started: Sandbox,
) -> None:
    """As in the sandbox of an agent: the control socket is a file."""
    programs = started.programs()

    def without_network(*arguments: str) -> str:
        result = subprocess.run(
            ["unshare", "-n", sys.executable, *arguments],
            cwd=started.project,
            env=started.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    assert without_network("-m", "lightcone", "exec", "--", "echo", "hello") == "hello\n"
    assert ": alive" in without_network("-m", "lightcone", "session", "status")
    told = without_network("-c", _TELLS_WHY)
    assert "is alive, but nothing gets from here to its address tls://127.0.0.1:" in told
    assert len(told.splitlines()) == 1
    assert started.programs() == programs
