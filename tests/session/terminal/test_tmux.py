"""The one program that has to be there, and the sessions it hosts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from libtmux import Server
from libtmux.exc import LibTmuxException

from lightcone.errors import SessionError
from lightcone.session.terminal import tmux
from lightcone.session.terminal.server import TerminalServer, Unanswered
from tests.helpers import Sandbox, end, is_alive, wait_until

_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a socket names its server on Linux")
_REMEDY = "install tmux 3.2 or newer (apt, dnf, brew or conda install tmux).\n"


def _fake(sandbox: Sandbox, script: str) -> dict[str, str]:
    """A PATH on which the first tmux is a script."""
    tools = sandbox.base / "tools"
    tools.mkdir()
    (tools / "tmux").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "tmux").chmod(0o755)
    return {"PATH": f"{tools}:{sandbox.env['PATH']}"}


@pytest.mark.parametrize(("verb", "code"), [("session start", 3), ("exec -- true", 125)])
def test_none_installed(sandbox: Sandbox, verb: str, code: int) -> None:
    empty = sandbox.base / "empty"
    empty.mkdir()
    result = sandbox.lc(*verb.split(), check=code, env={"PATH": str(empty)})
    assert result.stderr == f"lc: A session needs tmux, which is not on the PATH: {_REMEDY}"


@pytest.mark.parametrize("version", ["tmux 3.1", "tmux 3.1c", "tmux 2.9a", "tmux 1.8"])
def test_one_that_is_too_old(sandbox: Sandbox, version: str) -> None:
    result = sandbox.lc("session", "start", check=3, env=_fake(sandbox, f"echo {version}"))
    found = version.removeprefix("tmux ").rstrip("ac")
    assert result.stderr.startswith("lc: A session needs tmux 3.2")
    assert found in result.stderr
    assert result.stderr.endswith(_REMEDY)


@pytest.mark.parametrize("script", ["exit 1", "echo something else", "echo broken >&2; exit 127"])
def test_one_that_does_not_say_its_version(sandbox: Sandbox, script: str) -> None:
    result = sandbox.lc("session", "start", check=3, env=_fake(sandbox, script))
    assert result.stderr.startswith("lc: The version of tmux cannot be told")
    assert result.stderr.endswith(_REMEDY)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", ["3.2", "3.2a", "3.3a", "3.10", "next-3.6", "4.0", "master"])
def test_one_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "tmux").write_text(f"#!/bin/sh\necho tmux {version}\n")
    (tmp_path / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tmux.check()


def test_one_that_cannot_start_a_session(sandbox: Sandbox) -> None:
    script = 'case "$*" in -V) echo tmux 3.3a;; *) echo "no space for a server" >&2; exit 1;; esac'
    result = sandbox.lc("session", "start", check=3, env=_fake(sandbox, script))
    assert "no space for a server" in result.stderr


def test_start_look_and_end(sandbox: Sandbox) -> None:
    socket = sandbox.runtime / "tmux"
    assert not tmux.is_up(socket)
    assert not tmux.end(socket)
    windows = {"one": ["cat"], "two": ["cat"]}
    assert tmux.start(socket, "lc-foo", windows, ["cat"], sandbox.base, sandbox.env)
    try:
        assert tmux.is_up(socket)
        assert not tmux.start(socket, "lc-foo", windows, ["cat"], sandbox.base, sandbox.env)
        assert tmux.start(socket, "lc-foobar", windows, ["cat"], sandbox.base, sandbox.env)
    finally:
        tmux.end(socket)
    wait_until(lambda: not tmux.is_up(socket), "the server has left")
    socket.unlink(missing_ok=True)


def test_start_where_it_cannot(sandbox: Sandbox) -> None:
    with pytest.raises(SessionError, match="tmux could not start the session: "):
        socket = sandbox.base / "missing" / "tmux"
        tmux.start(socket, "lc-foo", {"one": ["cat"]}, ["cat"], sandbox.base, sandbox.env)


def test_attach_command_only_reads_and_works_within_another_terminal_server() -> None:
    command = tmux.attach_command(Path("/r/tmux"), "lc-foo")
    assert command[:5] == ["env", "-u", "TMUX", "-u", "TMUX_PANE"]
    assert command[5:] == ["tmux", "-S", "/r/tmux", "attach-session", "-r", "-t", "lc-foo"]


def test_configuration_is_understood(server: Server) -> None:
    server.config_file = str(Path(tmux.__file__).with_name("tmux.conf"))
    answer = server.cmd("start-server", ";", "kill-server")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, [], [])


def test_windows_and_options_of_a_session(running: Path) -> None:
    server = Server(socket_path=running)
    listed = server.cmd(
        "list-windows", "-a", "-F", "#{session_name} #{window_index} #{window_name}"
    )
    assert listed.stdout == ["lc-foo 0 top", "lc-foo 1 one", "lc-foo 2 two"]
    assert server.cmd("show-options", "-g", "-v", "prefix").stdout == ["None"]
    assert server.cmd("show-environment", "-g", "MARKED").stdout == ["MARKED=by the caller"]


@pytest.fixture
def running(sandbox: Sandbox) -> Iterator[Path]:
    """The socket of a server with a session; the server is ended, also if it has been stopped."""
    socket = sandbox.runtime / "tmux"
    windows = {"one": ["cat"], "two": ["cat"]}
    environment = {**sandbox.env, "MARKED": "by the caller"}
    assert tmux.start(socket, "lc-foo", windows, ["cat"], sandbox.base, environment)
    server = _pid(socket)
    yield socket
    end([server])
    wait_until(lambda: not is_alive(server), "the server has ended")
    socket.unlink(missing_ok=True)


def _pid(socket: Path) -> int:
    return int(Server(socket_path=socket).cmd("display-message", "-p", "#{pid}").stdout[0])


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    process = psutil.Process(pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() < begun + seconds


def test_a_server_that_has_been_stopped_is_waited_for_no_longer_than_the_limit(
    running: Path,
) -> None:
    configuration = Path(tmux.__file__).with_name("tmux.conf")
    server = TerminalServer(running, configuration, 0.5)
    (session,) = server.sessions
    assert session.session_id == "$0"
    _stop(_pid(running))
    calls = {
        "cmd": lambda: server.cmd("list-sessions"),
        "sessions": lambda: server.sessions,
        "has_session": lambda: server.has_session("lc-foo"),
        "kill": server.kill,
        "session.cmd": lambda: session.cmd("list-windows"),
        "session.kill": session.kill,
        "session.show_environment": session.show_environment,
    }
    for call in calls.values():
        # The limit, and the start of a process on a machine that has much to do.
        with _within(10.0), pytest.raises(Unanswered, match=r"no answer within 0\.5 s"):
            call()
    with _within(10.0):
        assert not server.is_alive()


@_LINUX
def test_a_server_that_has_been_stopped_is_there_and_goes_on_when_resumed(running: Path) -> None:
    server = _pid(running)
    _stop(server)
    assert tmux.is_up(running)
    assert not tmux.answers(running)
    assert not tmux.is_watched(running)
    assert not tmux.end(running)
    found = tmux.resume(running)
    assert found[0].pid == server
    wait_until(lambda: tmux.answers(running), "it answers again")
    # The rest are the programs of the windows: none of them is known to be a guard of the session.
    assert {process.pid for process in found[1:]} <= {
        child.pid for child in psutil.Process(server).children(recursive=True)
    }
    _stop(server)
    tmux.kill(running, found)
    assert not any(map(is_alive, (process.pid for process in found)))
    assert not tmux.is_up(running)


@_LINUX
def test_one_that_accepts_no_more_connections_is_found_as_the_parent_of_members(
    running: Path,
) -> None:
    server = _pid(running)
    guards = [child.pid for child in psutil.Process(server).children()]
    _stop(server)
    running.unlink()
    assert not tmux.is_up(running)
    assert tmux.resume(running) == []
    assert [process.pid for process in tmux.resume(running, guards)] == [server]
    wait_until(
        lambda: psutil.Process(server).status() != psutil.STATUS_STOPPED, "it has been resumed"
    )


@_LINUX
def test_a_former_server_of_the_same_path_is_left_alone(running: Path, sandbox: Sandbox) -> None:
    former = _pid(running)
    running.unlink()
    assert tmux.start(running, "lc-foo", {"one": ["cat"]}, ["cat"], sandbox.base, sandbox.env)
    server = _pid(running)
    assert server != former
    _stop(former)
    found = tmux.resume(running)
    assert found[0].pid == server
    assert psutil.Process(former).status() == psutil.STATUS_STOPPED
    _stop(server)
    tmux.kill(running, found)
    assert not is_alive(server)
    assert psutil.Process(former).status() == psutil.STATUS_STOPPED
    # No server listens there any more, and the path is still in the arguments of the former.
    tmux.kill(running)
    assert is_alive(former)


# In a mount namespace of its own, with another file system where the socket is.
_ELSEWHERE = """mount -t tmpfs none "$1" && tmux -S "$1/tmux" -f /dev/null new-session -d cat &&
    tmux -S "$1/tmux" display-message -p '#{pid}'
"""


@_LINUX
def test_a_server_of_another_mount_namespace_is_left_alone(running: Path, sandbox: Sandbox) -> None:
    call = ["unshare", "-m", "sh", "-c", _ELSEWHERE, "sh", str(running.parent)]
    try:
        result = subprocess.run(
            call, env=sandbox.env, capture_output=True, text=True, timeout=30, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this user may make no mount namespace")
    other = int(result.stdout)
    try:
        words = psutil.Process(other).cmdline()
        assert str(running) in words
        _stop(other)
        found = tmux.resume(running)
        assert psutil.Process(other).status() == psutil.STATUS_STOPPED
        _stop(found[0].pid)
        tmux.kill(running, found)
        assert not is_alive(found[0].pid)
        assert psutil.Process(other).status() == psutil.STATUS_STOPPED
    finally:
        end([other])
        wait_until(lambda: not is_alive(other), "the other server has ended")


def test_a_socket_that_a_server_left_behind_is_no_server(running: Path, sandbox: Sandbox) -> None:
    server = _pid(running)
    end([server])
    wait_until(lambda: not is_alive(server), "the server has ended")
    assert running.is_socket()
    # No call is made, which would need the library.
    code = (
        "import sys, pathlib; from lightcone.session.terminal import tmux"
        "; place = pathlib.Path(sys.argv[1])"
    )
    code += "; print(tmux.is_up(place), tmux.answers(place), tmux.end(place), tmux.resume(place))"
    code += "; print({'libtmux', 'psutil', 'subprocess'} & sys.modules.keys())"
    told = sandbox.python("-c", code, str(running)).stdout
    assert told == "False False False []\nset()\n"


def test_sessions_are_ended_by_id(sandbox: Sandbox, server: Server) -> None:
    """Another server's sessions are not touched, and a name is no pattern."""
    server.config_file = os.devnull
    assert server.cmd("new-session", "-d", "-s", "lc-foo", "cat").returncode == 0
    socket = sandbox.runtime / "tmux"
    for name in ("lc-foo", "lc-foobar"):
        assert tmux.start(socket, name, {"one": ["cat"]}, ["cat"], sandbox.base, sandbox.env)
    left = Server(socket_path=socket)
    session = TerminalServer(socket, Path(os.devnull), 3.0).sessions[0]
    session.kill()
    listed = left.cmd("list-sessions", "-F", "#{session_name}").stdout
    assert listed == ["lc-foobar"]
    with pytest.raises(LibTmuxException, match="can't find session"):
        session.kill()
    assert tmux.end(socket)
    wait_until(lambda: not left.is_alive(), "the server has left")
    assert server.has_session("lc-foo")
    socket.unlink(missing_ok=True)


def test_no_import_of_ours_takes_the_library(sandbox: Sandbox) -> None:
    assert importlib.util.find_spec("libtmux") is not None
    code = "import lightcone.session.start, lightcone.session.stop, sys"
    code += "; print({'libtmux', 'psutil'} & sys.modules.keys())"
    assert sandbox.python("-c", code).stdout == "set()\n"
