"""A real terminal, in a terminal server of a test's own."""

from __future__ import annotations

import os
import shlex
import sys
from unittest import mock

from libtmux import Pane, Server

from tests.helpers import Sandbox, is_alive, wait_until

__all__ = ["Terminal"]


class Terminal:
    """A window, by default of the customary 80 columns and 24 lines.

    Args:
        sandbox: the environment and the project of what runs in it.
        server: the fixture ``outer``.
        width: the window's columns.
        height: its lines.
    """

    def __init__(self, sandbox: Sandbox, server: Server, width: int = 80, height: int = 24) -> None:
        self.sandbox = sandbox
        self.server = server
        size = ("-x", str(width), "-y", str(height), "-c", str(sandbox.project))
        # Ids alone: libtmux reads its own lists only where the locale is UTF-8.
        ids = ("-P", "-F", "#{pane_id} #{pid}", f"-eTMUX_TMPDIR={sandbox.env['TMUX_TMPDIR']}")
        started = self.tmux("new-session", "-d", *ids, *size, "cat")
        pane, self._pid = started.split()
        self.pane = Pane(server=server, pane_id=pane)

    def close(self) -> None:
        """End it and what runs in it."""
        self.server.kill()
        wait_until(lambda: not is_alive(int(self._pid)), "the terminal's server has ended")

    def tmux(self, command: str, *arguments: str, target: str | None = None) -> str:
        """Return what the server prints in answer to a command."""
        # Where the server's socket is, is the one variable that is not the sandbox's.
        others = {name: value for name, value in self.sandbox.env.items() if name != "TMUX_TMPDIR"}
        with mock.patch.dict(os.environ, others, clear=True):
            answer = self.server.cmd(command, *arguments, target=target)
        assert (answer.returncode, answer.stderr) == (0, []), (command, arguments)
        return "\n".join(answer.stdout)

    def run(self, *arguments: str) -> None:
        """Run ``lc``, then say its exit code and go on as a plain echo of what is typed."""
        lc = shlex.join([sys.executable, "-m", "lightcone", *arguments])
        self.shell(f"{lc}; echo left $?; cat")

    def shell(self, line: str) -> None:
        """Run a line of shell instead of what runs now."""
        place = str(self.sandbox.project)
        self.tmux("respawn-pane", "-k", "-c", place, line, target=self.pane.pane_id)

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys, target=self.pane.pane_id)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", target=self.pane.pane_id)

    def shows(self, *texts: str) -> None:
        """Wait until all of the texts are on the screen."""
        try:
            wait_until(lambda: all(text in self.screen() for text in texts), f"it shows {texts}")
        except AssertionError as error:
            error.add_note(self.screen())
            raise

    def hides(self, *texts: str) -> None:
        """Wait until none of the texts is on the screen."""
        wait_until(lambda: not any(text in self.screen() for text in texts), f"it hides {texts}")

    def status(self) -> list[str]:
        """The lines that say what one is looking at and how to go on."""
        return self.screen().splitlines()[-2:]
