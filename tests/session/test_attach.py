"""Watching a session through a real terminal, inside another terminal server."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox, wait_until


class _Terminal:
    """A window of the customary 80 columns and 24 lines in a terminal server of the test's own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.socket = str(sandbox.base / "tmp" / "outer")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "cat")

    def tmux(self, *arguments: str) -> str:
        result = subprocess.run(
            ["tmux", "-S", self.socket, *arguments],
            env=self.sandbox.env,
            cwd=self.sandbox.project,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return result.stdout

    def run(self, *arguments: str) -> None:
        """Run ``lc``, then say its exit code and go on as a plain echo of what is typed."""
        lc = shlex.join([sys.executable, "-m", "lightcone", *arguments])
        self.tmux("respawn-pane", "-k", "-c", str(self.sandbox.project), f"{lc}; echo left $?; cat")

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def shows(self, *texts: str) -> None:
        """Wait until all of the texts are on the screen."""
        wait_until(lambda: all(text in self.screen() for text in texts), f"it shows {texts}")

    def status(self) -> list[str]:
        """The lines that say what one is looking at and how to go on."""
        return self.screen().rstrip("\n").splitlines()[-2:]


@pytest.fixture
def terminal(shared: Sandbox) -> Iterator[_Terminal]:
    """A terminal that watches the session."""
    before = shared.programs()
    terminal = _Terminal(shared)
    try:
        terminal.run("session", "attach")
        terminal.shows("read-only", "q or Ctrl-C leaves")
        yield terminal
        assert shared.programs() == before
    finally:
        terminal.tmux("kill-server")
        (shared.base / "tmp" / "outer").unlink(missing_ok=True)


def test_screen_says_what_it_is_and_how_to_leave(terminal: _Terminal) -> None:
    name = terminal.sandbox.status()["name"]
    terminal.shows("distributed.scheduler")
    assert [line.strip() for line in terminal.status()] == [
        f"{name}  1 scheduler   2 worker",
        "read-only  |  1 and 2 change the window  |  q or Ctrl-C leaves",
    ]


def test_keys_change_the_window(terminal: _Terminal) -> None:
    terminal.shows("distributed.scheduler")
    terminal.type("2")
    terminal.shows("Registered to")
    terminal.type("1")
    terminal.shows("Register worker addr")


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_keys_leave_and_harm_nothing(terminal: _Terminal, key: str) -> None:
    terminal.type(key)
    terminal.shows("left 0")
    assert terminal.sandbox.status()["state"] == "alive"
    assert terminal.sandbox.lc("exec", "--", "echo", "x").stdout == "x\n"


def test_what_is_typed_reaches_no_program(terminal: _Terminal) -> None:
    for keys in ("hello Enter", "C-d", "C-z", "C-\\", "C-b d", "C-b :", "Escape"):
        terminal.type(*keys.split())
    terminal.type("2", "C-c")
    terminal.shows("left 0")
    terminal.run("session", "attach")
    terminal.shows("read-only")
    for window in ("1", "2"):
        terminal.type(window)
        assert "hello" not in terminal.screen()
    assert "hello" not in terminal.sandbox.lc("session", "logs").stdout


def test_several_watch_at_once(terminal: _Terminal) -> None:
    terminal.tmux("split-window", "-d", "sh", "-c", f"{_lc()} session attach; cat")
    panes = terminal.tmux("list-panes", "-F", "#{pane_id}").split()

    def shown(pane: str) -> str:
        return terminal.tmux("capture-pane", "-p", "-t", pane)

    wait_until(lambda: all("read-only" in shown(pane) for pane in panes), "both watch")
    terminal.tmux("send-keys", "-t", panes[0], "q")
    wait_until(lambda: "left 0" in shown(panes[0]), "the first has left")
    assert "read-only" in shown(panes[1])


def _lc() -> str:
    return shlex.join([sys.executable, "-m", "lightcone"])


def test_attach_command_of_the_status_works_too(shared: Sandbox) -> None:
    terminal = _Terminal(shared)
    try:
        line = shared.status()["attach"]
        terminal.tmux("respawn-pane", "-k", f"{line}; echo left $?; cat")
        terminal.shows("read-only")
        terminal.type("C-c")
        terminal.shows("left 0")
    finally:
        terminal.tmux("kill-server")
        (shared.base / "tmp" / "outer").unlink(missing_ok=True)


def test_end_of_the_session_ends_the_watching(sandbox: Sandbox) -> None:
    sandbox.start()
    terminal = _Terminal(sandbox)
    try:
        terminal.run("session", "attach")
        terminal.shows("read-only")
        sandbox.lc("session", "stop")
        terminal.shows("left ")
    finally:
        terminal.tmux("kill-server")
        (sandbox.base / "tmp" / "outer").unlink(missing_ok=True)


def test_without_a_terminal(shared: Sandbox) -> None:
    result = shared.lc("session", "attach", check=2)
    assert result.stderr.startswith("lc: Attaching needs a terminal: use 'lc session logs'")


def test_without_a_session(sandbox: Sandbox) -> None:
    result = sandbox.lc("session", "attach", check=3)
    assert result.stderr.startswith("lc: There is nothing to attach to, no session is running")
