"""The container supervisor: holds an output's claim until its container is gone.

A container is no descendant of the program that starts it, and goes on when that is killed. So a
worker that is about to start one first starts a supervisor, a script of the standard library alone
(``python -I -S THIS COMMANDS``), which inherits the locks of the recipe and lets go of them
when it ends. The worker writes to its standard input, a line each:

- ``started PID``: the runtime's client, which starts the container.
- ``terminate``: TERM is to be sent to the client, which may still be fetching the image, and to
  the container's processes, for these until it succeeds.
- ``done``: the client has ended. The supervisor ends what is left of the container, and exits.

End of input without ``done`` means that the worker is dead: the container is asked to end, and
killed after the grace. The supervisor exits only once the runtime has reported that there is no
such container, so the claim is not free before, even if the worker was killed. It ignores signals
other than KILL, and a guard leaves it alone: it knows the supervisor by the name :data:`NAME`.
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

NAME = "lc-container"
"""The name of the supervisor's process."""
READY = b"ready\n"
"""The line that the supervisor prints once it holds the locks."""
_POLL_INTERVAL = 0.1
_MAX_PAUSE = 5.0
_COMMAND_TIMEOUT = 60.0


@dataclass(frozen=True)
class RuntimeCommands:
    """The runtime's commands for one container.

    Attributes:
        terminate: sends TERM to its processes; succeeds once that is done.
        kill: kills its processes.
        remove: removes it, ending it if need be.
        running: prints something while it runs, and succeeds.
        exists: prints something while it exists, and succeeds.
    """

    terminate: Sequence[str]
    kill: Sequence[str]
    remove: Sequence[str]
    running: Sequence[str]
    exists: Sequence[str]


class _Container:
    """The supervised container: its known state, and the steps to its end."""

    def __init__(self, commands: RuntimeCommands, grace: float) -> None:
        self.commands = commands
        self.grace = grace
        self.client = _Client(0)
        self.terminating: subprocess.Popen[bytes] | None = None
        self.wanted = True
        self.client_signalled = False
        self.signalled = False

    def follow(self) -> bool:
        """Obey the worker's lines until ``done``; return False where the worker died."""
        pending = b""
        while True:
            waiting = not (self.wanted or self.signalled)
            if select.select([0], [], [], _POLL_INTERVAL if waiting else None)[0]:
                data = os.read(0, 4096)
                if not data:
                    return False
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    word, _, value = line.partition(b" ")
                    if word == b"started":
                        self.client = _Client(int(value))
                    elif word == b"terminate":
                        self.wanted = False
                    elif word == b"done":
                        return True
            if not self.wanted:
                self.terminate()

    def terminate(self) -> None:
        """Take the next step in sending TERM to the container and client."""
        if self.signalled:
            return
        if self.terminating is None:
            with contextlib.suppress(OSError):
                self.terminating = _start(self.commands.terminate)
        elif self.terminating.poll() is not None:
            self.signalled = self.terminating.returncode == 0
            self.terminating = None
            # Not before: as it starts the container there is a moment when it would die of this,
            # and take from a recipe that runs already the time to end.
            if not self.signalled and self.client.pid and not self.client_signalled:
                self.client.send(signal.SIGTERM)
                self.client_signalled = True

    def wait_for_grace(self) -> None:
        """Give the container of a dead worker its grace period."""
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline:
            self.terminate()
            # One that the client has yet to start is not running yet.
            if not self.client.is_alive() and _output(self.commands.running) == b"":
                return
            time.sleep(_POLL_INTERVAL)
        self.client.send(signal.SIGKILL)

    def end(self) -> None:
        """End the container, and return only once the runtime reports it gone."""
        if self.terminating is not None:
            self.terminating.kill()
            self.terminating.wait()
        pause = _POLL_INTERVAL
        while _output(self.commands.exists) != b"":
            _output(self.commands.kill)
            _output(self.commands.remove)
            if _output(self.commands.exists) == b"":
                return
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)


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


def _output(command: Sequence[str]) -> bytes | None:
    """Return what the command prints, or None where it fails."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _main(arguments: str) -> None:
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        # Not ignored, which the runtime's programs would inherit.
        signal.signal(signum, lambda *_: None)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(NAME)
    commands, grace = json.loads(arguments)
    container = _Container(RuntimeCommands(**commands), grace)
    os.write(1, READY)
    os.close(1)
    if not container.follow():
        container.wait_for_grace()
    container.end()


if __name__ == "__main__":
    _main(sys.argv[1])
