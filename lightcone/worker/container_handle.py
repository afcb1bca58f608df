"""The worker's side of a keeper: it is started, told, and waited for."""

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

_TICK = 0.1
# When a container is started, the package's files may be those of another version, or gone.
_PROGRAM = Path(container_supervisor.__file__).read_bytes()


class ContainerHandle:
    """A keeper, as the worker that needs it has it.

    Args:
        commands: how its container is spoken of.
        environment: the environment of the runtime's programs.
        grace: seconds between asking and ending, where the worker has died.
    """

    def __init__(
        self, commands: RuntimeCommands, environment: Mapping[str, str], grace: float
    ) -> None:
        self._told = json.dumps([asdict(commands), grace])
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def holding(self, hold: Sequence[int]) -> Iterator[ContainerHandle]:
        """Context in which the container may be; on return there is none.

        Args:
            hold: the descriptors that stay open until then, whatever becomes of this process.

        Raises:
            OSError: on entry, where no keeper can be started.
        """
        self._start(hold)
        try:
            yield self
        finally:
            while not self._finish():
                # It was killed, and the container may be there: another takes its place.
                with contextlib.suppress(OSError):
                    self._start(hold)
                time.sleep(_TICK)

    def started(self, pid: int) -> None:
        """The runtime's client has been started."""
        self._tell(f"started {pid}")

    def ask(self) -> None:
        """Have the container's processes and the client asked to end; returns at once."""
        self._tell("ask")

    def _start(self, hold: Sequence[int]) -> None:
        program, end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", f"/dev/fd/{program}", self._told],
                env=self._environment,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(program, *hold),
                start_new_session=True,
            )
        except BaseException:
            os.close(end)
            raise
        finally:
            os.close(program)
        # Not before somebody reads: who has many pipes gets ones that hold less than this.
        with contextlib.suppress(BrokenPipeError), open(end, "wb") as pipe:
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
        self._tell("done")
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return False
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait() == 0

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.write(f"{line}\n".encode())
                    self._process.stdin.flush()
