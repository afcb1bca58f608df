"""The worker's handle on a container supervisor: start, command and wait."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lightcone.worker import container_supervisor
from lightcone.worker.container_supervisor import READY, RuntimeCommands

__all__ = ["ContainerHandle"]

_RETRY_INTERVAL = 0.1
# When a container is started, the package's files may be those of another version, or gone.
_PROGRAM = Path(container_supervisor.__file__).read_bytes()


class ContainerHandle:
    """A worker's handle on the supervisor of one container.

    Args:
        commands: the runtime's commands for the container.
        environment: the environment of the runtime's programs.
        grace: seconds between asking the container to end and killing it, once the worker is dead.
    """

    def __init__(
        self, commands: RuntimeCommands, environment: Mapping[str, str], grace: float
    ) -> None:
        self._arguments = json.dumps([asdict(commands), grace])
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def holding(self, hold: Sequence[int]) -> Iterator[ContainerHandle]:
        """Supervise the container within the context; on exit it is gone.

        Args:
            hold: the descriptors that stay open until then, even if this process dies.

        Raises:
            OSError: on entry, where no supervisor can be started.
        """
        self._start(hold)
        try:
            yield self
        finally:
            while not self._finish():
                # It was killed, and the container may exist: another supervisor replaces it.
                with contextlib.suppress(OSError):
                    self._start(hold)
                time.sleep(_RETRY_INTERVAL)

    def started(self, pid: int) -> None:
        """Report that the runtime's client has been started."""
        self._send(f"started {pid}")

    def terminate(self) -> None:
        """Request the end of the container's processes and the client; returns at once."""
        self._send("terminate")

    def _start(self, hold: Sequence[int]) -> None:
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", f"/dev/fd/{read_end}", self._arguments],
                env=self._environment,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(read_end, *hold),
                start_new_session=True,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        # Not before it is read: a user with many pipes gets pipes that hold less than the program.
        with contextlib.suppress(BrokenPipeError), open(write_end, "wb") as pipe:
            pipe.write(_PROGRAM)
        assert process.stdout is not None
        assert process.stdin is not None
        with process.stdout:
            ready = process.stdout.read(len(READY)) == READY
        if not ready:
            process.stdin.close()
            process.wait()
            raise OSError("the program that watches over the container could not be started")
        with self._lock:
            self._process = process

    def _finish(self) -> bool:
        self._send("done")
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return False
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait() == 0

    def _send(self, message: str) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.write(f"{message}\n".encode())
                    self._process.stdin.flush()
