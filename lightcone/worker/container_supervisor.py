"""The keeper: stands beside one container, and holds its output's claim until it is gone.

A container is no descendant of the program that starts it, and goes on when that is killed. So a
worker that is about to start one first starts a keeper, a script of the standard library alone
(``python -I -S THIS COMMANDS``), which inherits the locks of the recipe and lets go of them
when it ends. The worker tells it, a line each, on its standard input:

- ``started PID``: the runtime's client, which starts the container.
- ``ask``: the client, which may still be fetching the image, and the container's processes are to
  be asked to end; these until they could be.
- ``done``: the client has ended. What there is of the container is ended, and the keeper leaves.

End of input without ``done`` means that the worker is dead: the container is asked to end, and
ended after the grace. The keeper leaves only once the runtime has said that there is no such
container, so nobody gets the claim before, whoever else was killed. It takes no notice of signals,
and a guard leaves it alone: it knows the keeper by the name :data:`NAME`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NAME", "READY", "RuntimeCommands"]

NAME = "lc-keeper"
"""That of its process."""
READY = b"ready\n"
"""What it prints once it holds what it is to hold."""
_TICK = 0.1
_LONGEST_PAUSE = 5.0
_PATIENCE = 60.0


@dataclass(frozen=True)
class RuntimeCommands:
    """How one container is spoken of to its runtime.

    Attributes:
        ask: asks its processes to end; succeeds once they have been asked.
        kill: ends its processes.
        remove: removes it, ending it if need be.
        running: prints something while it runs, and succeeds.
        exists: prints something while there is any of it, and succeeds.
    """

    ask: Sequence[str]
    kill: Sequence[str]
    remove: Sequence[str]
    running: Sequence[str]
    exists: Sequence[str]


class _Container:
    """The keeper's side: what is known of the container, and the way to its end."""

    def __init__(self, commands: RuntimeCommands, grace: float) -> None:
        self.commands = commands
        self.grace = grace
        self.client = _Client(0)
        self.asking: subprocess.Popen[bytes] | None = None
        self.wanted = True
        self.client_asked = False
        self.asked = False

    def attend(self) -> bool:
        """Do as the worker says until it is done, or dead: False."""
        pending = b""
        while True:
            waiting = not (self.wanted or self.asked)
            if select.select([0], [], [], _TICK if waiting else None)[0]:
                data = os.read(0, 4096)
                if not data:
                    return False
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    word, _, value = line.partition(b" ")
                    if word == b"started":
                        self.client = _Client(int(value))
                    elif word == b"ask":
                        self.wanted = False
                    elif word == b"done":
                        return True
            if not self.wanted:
                self.ask()

    def ask(self) -> None:
        """Go on with asking the container's processes to end, or the client not to start them."""
        if self.asked:
            return
        if self.asking is None:
            with contextlib.suppress(OSError):
                self.asking = _start(self.commands.ask)
        elif self.asking.poll() is not None:
            self.asked = self.asking.returncode == 0
            self.asking = None
            # Not before: as it starts the container there is a moment when it would die of this,
            # and take from a recipe that runs already the time to end.
            if not self.asked and self.client.pid and not self.client_asked:
                self.client.send(signal.SIGTERM)
                self.client_asked = True

    def wait(self) -> None:
        """The worker is dead: give the container its grace."""
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline:
            self.ask()
            # One that the client has yet to start is not running yet.
            if not self.client.is_alive() and _says(self.commands.running) == b"":
                return
            time.sleep(_TICK)
        self.client.send(signal.SIGKILL)

    def end(self) -> None:
        """End the container; returns once it is known to be gone, and not before."""
        if self.asking is not None:
            self.asking.kill()
            self.asking.wait()
        pause = _TICK
        while _says(self.commands.exists) != b"":
            _says(self.commands.kill)
            _says(self.commands.remove)
            if _says(self.commands.exists) == b"":
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Client:
    """The runtime's client; before its process id is known (0) it counts as alive."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = -1
        if pid and hasattr(os, "pidfd_open"):
            # Another process that gets the same id is not mistaken for it.
            with contextlib.suppress(OSError):
                self.handle = os.pidfd_open(pid)

    def is_alive(self) -> bool:
        if self.handle >= 0:
            return not select.select([self.handle], [], [], 0)[0]
        if self.pid:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
        return True

    def send(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.handle >= 0:
                signal.pidfd_send_signal(self.handle, signum)
            elif self.pid:
                os.kill(self.pid, signum)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _says(command: Sequence[str]) -> bytes | None:
    """What the command prints, or None where it fails."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _main(told: str) -> None:
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        # Not ignored, which the runtime's programs would inherit.
        signal.signal(signum, lambda *_: None)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(NAME)
    commands, grace = json.loads(told)
    container = _Container(RuntimeCommands(**commands), grace)
    os.write(1, READY)
    os.close(1)
    if not container.attend():
        container.wait()
    container.end()


if __name__ == "__main__":
    _main(sys.argv[1])
