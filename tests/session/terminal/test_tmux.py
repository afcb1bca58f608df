"""The one program that has to be there, and the sessions it hosts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lightcone.errors import SessionError
from lightcone.session.terminal import tmux
from tests.helpers import Sandbox, wait_until

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
    tmux.end(socket)
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


def test_configuration_is_understood(sandbox: Sandbox) -> None:
    program = shutil.which("tmux")
    assert program is not None
    configuration = Path(tmux.__file__).with_name("tmux.conf")
    socket = sandbox.base / "tmp" / "check"
    result = subprocess.run(
        [program, "-S", str(socket), "-f", str(configuration), "start-server", ";", "kill-server"],
        capture_output=True,
        text=True,
        env=sandbox.env,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    socket.unlink(missing_ok=True)
