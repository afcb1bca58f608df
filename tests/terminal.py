"""A real terminal, in a terminal server of a test's own."""

from __future__ import annotations

import shlex
import subprocess
import sys

from tests.helpers import Sandbox, wait_until

__all__ = ["Terminal"]


class Terminal:
    """A window, by default of the customary 80 columns and 24 lines."""

    def __init__(self, sandbox: Sandbox, width: int = 80, height: int = 24) -> None:
        self.sandbox = sandbox
        self.place = sandbox.base / "tmp" / "outer"
        size = ("-x", str(width), "-y", str(height))
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "cat")

    def close(self) -> None:
        """End it and what runs in it."""
        self.tmux("kill-server")
        self.place.unlink(missing_ok=True)

    def tmux(self, *arguments: str) -> str:
        result = subprocess.run(
            ["tmux", "-S", str(self.place), *arguments],
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
        self.shell(f"{lc}; echo left $?; cat")

    def shell(self, line: str) -> None:
        """Run a line of shell instead of what runs now."""
        self.tmux("respawn-pane", "-k", "-c", str(self.sandbox.project), line)

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

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
        return self.screen().rstrip("\n").splitlines()[-2:]
