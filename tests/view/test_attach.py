"""Watching a session through a real terminal, inside another terminal server."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator

import psutil
import pytest
from libtmux import Server

from tests.helpers import Sandbox, end, wait_until
from tests.terminal import Terminal


@pytest.fixture
def terminal(shared: Sandbox, outer: Server) -> Iterator[Terminal]:
    """A terminal that watches the session."""
    before = shared.programs()
    terminal = Terminal(shared, outer)
    try:
        terminal.run("session", "attach")
        terminal.shows("read-only", "q or Ctrl-C leaves")
        yield terminal
        assert shared.programs() == before
    finally:
        terminal.close()


def test_screen_says_what_it_is_and_how_to_leave(terminal: Terminal) -> None:
    name = terminal.sandbox.status()["name"]
    terminal.shows("WORKERS 1", "RUNNING 0")
    assert [line.strip() for line in terminal.status()] == [
        f"{name}  0 top   1 scheduler   2 worker",
        "read-only  |  0, 1 and 2 change the window  |  q or Ctrl-C leaves",
    ]


def test_keys_change_the_window(terminal: Terminal) -> None:
    terminal.shows("WORKERS 1")
    terminal.type("2")
    terminal.shows("Registered to")
    terminal.type("1")
    terminal.shows("Register worker addr")
    terminal.type("0")
    terminal.shows("WORKERS 1")


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_keys_leave_and_harm_nothing(terminal: Terminal, key: str) -> None:
    terminal.type(key)
    terminal.shows("left 0")
    assert terminal.sandbox.status()["state"] == "alive"
    assert terminal.sandbox.lc("exec", "--", "echo", "x").stdout == "x\n"


def test_what_is_typed_reaches_no_program(terminal: Terminal) -> None:
    for keys in ("hello Enter", "C-d", "C-z", "C-\\", "C-b d", "C-b :", "Escape"):
        terminal.type(*keys.split())
    terminal.type("2", "C-c")
    terminal.shows("left 0")
    terminal.run("session", "attach")
    terminal.shows("read-only")
    for window in ("1", "2", "0"):
        terminal.type(window)
        assert "hello" not in terminal.screen()
    assert "hello" not in terminal.sandbox.lc("session", "logs").stdout


def test_several_watch_at_once(terminal: Terminal) -> None:
    project = str(terminal.sandbox.project)
    terminal.tmux("split-window", "-d", "-c", project, f"{_lc()} session attach; cat")
    panes = terminal.tmux("list-panes", "-F", "#{pane_id}").split()

    def shown(pane: str) -> str:
        return terminal.tmux("capture-pane", "-p", target=pane)

    wait_until(lambda: all("read-only" in shown(pane) for pane in panes), "both watch")
    terminal.tmux("send-keys", "q", target=panes[0])
    wait_until(lambda: "left 0" in shown(panes[0]), "the first has left")
    assert "read-only" in shown(panes[1])


def _lc() -> str:
    return shlex.join([sys.executable, "-m", "lightcone"])


def test_attach_command_of_the_status_works_too(shared: Sandbox, outer: Server) -> None:
    terminal = Terminal(shared, outer)
    try:
        line = shared.status()["attach"]
        terminal.shell(f"{line}; echo left $?; cat")
        terminal.shows("read-only")
        terminal.type("C-c")
        terminal.shows("left 0")
    finally:
        terminal.close()


def test_end_of_the_session_ends_the_watching(sandbox: Sandbox, outer: Server) -> None:
    sandbox.start()
    terminal = Terminal(sandbox, outer)
    try:
        terminal.run("session", "attach")
        terminal.shows("read-only")
        sandbox.lc("session", "stop")
        terminal.shows("left ")
    finally:
        terminal.close()


def _viewers(sandbox: Sandbox) -> list[int]:
    """The processes that draw the first window."""
    found = []
    for process in sandbox.processes():
        with contextlib.suppress(psutil.Error):
            if "lightcone.view.overview" in process.cmdline()[:6]:
                found.append(process.pid)
    return found


def test_nothing_is_drawn_while_nobody_looks(shared: Sandbox, outer: Server) -> None:
    wait_until(lambda: not _viewers(shared), "those of other tests have ended")
    scheduler = psutil.Process(shared.programs()["scheduler"])
    seen: list[int] = []

    def is_quiet() -> bool:
        seen.append(len(scheduler.net_connections("unix")))
        return len(seen) > 25 and len(set(seen[-25:])) == 1

    wait_until(is_quiet, "whoever has called has been seen to leave")
    quiet = seen[-1]
    for how in ("q", "kill-server"):
        terminal = Terminal(shared, outer)
        terminal.run("session", "attach")
        terminal.shows("WORKERS 1")
        assert len(_viewers(shared)) == 1
        assert len(scheduler.net_connections("unix")) > quiet
        if how == "q":
            terminal.type("q")
            terminal.shows("left 0")
            wait_until(lambda: not _viewers(shared), "the drawing has ended")
        terminal.close()
        wait_until(lambda: not _viewers(shared), "the drawing has ended")
        wait_until(
            lambda: len(scheduler.net_connections("unix")) == quiet, "nobody is shown anything"
        )
    assert shared.status()["state"] == "alive"


def test_a_view_that_dies_comes_back_and_takes_nothing_with_it(terminal: Terminal) -> None:
    terminal.shows("WORKERS 1")
    (viewer,) = _viewers(terminal.sandbox)
    end([viewer])
    wait_until(lambda: _viewers(terminal.sandbox) not in ([], [viewer]), "another draws")
    terminal.shows("WORKERS 1")


def test_without_a_terminal(shared: Sandbox) -> None:
    result = shared.lc("session", "attach", check=2)
    assert result.stderr.startswith("lc: Attaching needs a terminal: use 'lc session logs'")


def test_without_a_session(sandbox: Sandbox) -> None:
    result = sandbox.lc("session", "attach", check=3)
    assert result.stderr.startswith("lc: There is nothing to attach to, no session is running")
