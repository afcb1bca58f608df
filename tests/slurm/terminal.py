"""A program on a terminal of its own, typed into and read by a test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers import wait_until

__all__ = ["Terminal"]


class Terminal:
    """A program whose input and output are a terminal, as when a person calls it.

    Attributes:
        process: the program.
        text: all that it has written so far, as far as it was looked at.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        self._end, other = pty.openpty()
        os.set_blocking(self._end, False)
        try:
            self.process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=directory,
                stdin=other,
                stdout=other,
                stderr=other,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(other)
        self.text = ""

    def type(self, line: str) -> None:
        """Type a line, with the return key at its end."""
        os.write(self._end, os.fsencode(line) + b"\r")

    def press(self, key: str) -> None:
        """Press a key, such as Ctrl-C: ``\\x03``."""
        os.write(self._end, key.encode())

    def read(self) -> str:
        """All that it has written so far."""
        with contextlib.suppress(OSError):  # EAGAIN: no more now; EIO: it has left
            while chunk := os.read(self._end, 65536):
                self.text += chunk.decode(errors="replace")
        return self.text

    def wait_for(self, text: str, deadline: float = 60.0) -> str:
        """Wait until it has written ``text``, and return everything that it wrote."""
        try:
            wait_until(lambda: text in self.read(), f"{text!r} is written", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is:\n{self.text}") from None
        return self.text

    def wait(self, deadline: float = 60.0) -> int:
        """Wait until it has left, and return its exit code."""

        def left() -> bool:
            self.read()  # a program whose output nobody takes cannot leave
            return self.process.poll() is not None

        wait_until(left, "it has left", deadline)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        """Close the terminal, which hangs up on the program, and wait until it has left."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
