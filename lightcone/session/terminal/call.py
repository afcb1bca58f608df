"""One call of tmux, with a time limit on its reply."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

__all__ = ["Call"]


class Call:
    """A call that has begun; as a context manager it ends the call's process.

    Args:
        arguments: the arguments of tmux.
        environment: the environment of tmux, and of a server that it starts; by default our own.

    Raises:
        OSError: where tmux cannot be run.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.words = ["tmux", *arguments]
        self.process = subprocess.Popen(
            self.words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.__exit__(kind, error, traceback)

    def result(self, timeout: float) -> tuple[int, str, str]:
        """Return the exit code, the output and the errors.

        Raises:
            TimeoutError: where tmux has not ended within ``timeout`` seconds.
        """
        try:
            out, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"no answer within {timeout:g} s") from error
        return self.process.returncode, out, errors
