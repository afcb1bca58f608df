"""Starting, signalling and reaping of commands, for all rooms but the guard."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightcone.system.interpreter import restore_open_files_limit

__all__ = ["MARK", "CommandGroup", "ProcessTable", "Usage", "run_quiet"]

_TIMEOUT = 5.0


def run_quiet(
    *command: str, timeout: float = _TIMEOUT, environment: Mapping[str, str] | None = None
) -> str | None:
    """Return a program's output, or None where it fails or times out.

    It has ``timeout`` seconds, and this process's environment unless another is given.
    """
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


MARK = "LIGHTCONE_TASK"

"""The environment variable that identifies a command's processes."""

_FRESH = 0.05


class ProcessTable:
    """Snapshot of the system's processes and the marks that they carry.

    The marks of another user's processes are unknown. Where many commands end at once, one snapshot
    serves all of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, list[int]] = {}
        self._children_until = -math.inf
        self._marked: dict[str, set[int]] = {}
        self._marked_begun = self._marked_until = -math.inf

    def below(self, root: int) -> set[int]:
        """List the living descendants of ``root``, which descends from this process."""
        with self._lock:
            if time.monotonic() >= self._children_until:
                self._children = _children_by_parent()
                self._children_until = time.monotonic() + _FRESH
            found, queue = set[int](), [root]
            while queue:
                children = self._children.get(queue.pop(), [])
                queue += [pid for pid in children if pid not in found]
                found.update(children)
            return found

    def marked(self, mark: str, since: float = -math.inf) -> set[int]:
        """List the processes that carry ``mark``, as of ``since`` (monotonic) or later."""
        with self._lock:
            if self._marked_begun < since or time.monotonic() >= self._marked_until:
                self._marked_begun = time.monotonic()
                self._marked = _processes_by_mark()
                self._marked_until = time.monotonic() + _FRESH
            return set(self._marked.get(mark, ()))


# Two snapshots: of every process psutil takes three times as long for both as for one.
def _children_by_parent() -> dict[int, list[int]]:
    import psutil

    children: dict[int, list[int]] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                children.setdefault(process.ppid(), []).append(process.pid)
    return children


def _processes_by_mark() -> dict[str, set[int]]:
    import psutil

    marked: dict[str, set[int]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK)
            if mark is not None:
                marked.setdefault(mark, set()).add(process.pid)
    return marked


_CHUNK = 65536

_TICK = 0.01

_LONGEST_PAUSE = 0.2

_MARGIN = 2.0

_table = ProcessTable()


@dataclass(frozen=True)
class Usage:
    """Resources that a command and its awaited children used."""

    cpu_seconds: float = 0.0
    peak_memory: int = 0


class CommandGroup:
    """One command in a process group of its own.

    Signals are sent under a lock that also covers the start and the reaping of the command, so
    none goes to a stranger's process that got the same id, and no command starts once ended.
    """

    def __init__(self, mark: str) -> None:
        """Create a group; ``mark`` identifies its processes, detached ones included.

        They find it in their environment, as ``LIGHTCONE_TASK``.
        """
        self.mark = mark
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reaped = False
        self._start_prevented = False
        self._ended_at: float | None = None
        self._killed = threading.Event()
        self.usage = Usage()

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        umask: int,
        hold: Sequence[int] = (),
        merge: bool = True,
    ) -> bool:
        """Start the command, or return False where it has been ended already.

        Args:
            argv: the program and its arguments.
            environment: the whole environment.
            directory: the working directory.
            umask: the file mode creation mask.
            hold: descriptors that the command's processes keep open for as long as they live.
            merge: whether its errors go to the same stream as its output.

        Raises:
            OSError: where the program cannot be run.
        """
        with self._lock:
            if self._start_prevented:
                return False
            self._process = subprocess.Popen(
                argv,
                env={**environment, MARK: self.mark},
                cwd=directory,
                umask=umask,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                pass_fds=tuple(hold),
                start_new_session=True,
                bufsize=0,
                # The signals that Python ignores would be ignored by the command too.
                restore_signals=True,
            )
            restore_open_files_limit(self._process.pid)
            return True

    @property
    def pid(self) -> int:
        """The command's process id; 0 before it has been started."""
        return self._process.pid if self._process is not None else 0

    def prevent_start(self) -> None:
        """Prevent the command from starting, if it has not started yet."""
        with self._lock:
            self._start_prevented = True

    def end(self, signum: signal.Signals) -> None:
        """Signal the group, all descendants and marked processes; prevent a start.

        Once the command itself has ended, :meth:`wait` does so with what is left of it.
        """
        with self._lock:
            self._start_prevented = True
            self._ended_at = self._ended_at or time.monotonic()
            if signum == signal.SIGKILL:
                self._killed.set()
            if self._process is None or self._reaped:
                return
            leader = self._process.pid
            for pid in _table.below(leader) | _table.marked(self.mark):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getpgid(pid) != leader:
                        os.kill(pid, signum)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signum)
                os.killpg(leader, signal.SIGCONT)

    def wait(
        self,
        sink: Callable[[str, bytes], None],
        grace: float,
        while_running: Callable[[], None] | None = None,
    ) -> int:
        """Forward the output until the command ends, and return its exit code.

        The code is -N where signal N ended it. Processes that the command left behind in its group
        are ended with it; where it was ended itself, all that carry the mark: TERM, and KILL
        ``grace`` seconds after that. ``sink`` gets a stream's name, ``"out"`` or ``"err"``, and the
        bytes read. ``while_running`` is called first.
        """
        process = self._process
        assert process is not None
        try:
            if while_running is not None:
                while_running()
            return self._wait(process, sink, grace)
        except BaseException:
            # Nobody would look after it any more.
            self.end(signal.SIGKILL)
            if not self._reaped:
                self._reap(process, 0.0)
            raise

    def _wait(
        self, process: subprocess.Popen[bytes], sink: Callable[[str, bytes], None], grace: float
    ) -> int:
        ended = _exit_descriptor(process.pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        names = {}
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            if stream is not None:
                descriptor = stream.fileno()
                os.set_blocking(descriptor, False)
                poll.register(descriptor, select.POLLIN)
                names[descriptor] = name
        running = True
        while running:
            for descriptor, _ in poll.poll():
                if descriptor == ended:
                    running = False
                elif not _pass_on(descriptor, names[descriptor], sink):
                    poll.unregister(descriptor)
                    del names[descriptor]
        os.close(ended)
        code = self._reap(process, grace)
        for descriptor, name in names.items():
            while _pass_on(descriptor, name, sink):
                pass
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return code

    def _reap(self, process: subprocess.Popen[bytes], grace: float) -> int:
        with self._lock:
            _, status, usage = os.wait4(process.pid, 0)
            self._reaped = True
        process.returncode = os.waitstatus_to_exitcode(status)
        scale = 1024 if sys.platform == "linux" else 1
        self.usage = Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale)
        self._end_rest(process.pid, grace)
        return process.returncode

    def _end_rest(self, leader: int, grace: float) -> None:
        """End the group's remaining processes and, after :meth:`end`, the marked ones."""
        started, pause = time.monotonic(), _TICK
        killed_at: float | None = None
        is_group, signalled = True, set[int]()
        while True:
            now = time.monotonic()
            expired = now > (self._ended_at or started) + grace
            if killed_at is None and (expired or self._killed.is_set()):
                killed_at = now
            marked = set() if self._ended_at is None else _table.marked(self.mark, now)
            remaining = set()
            # The group's id cannot be given to another process while it has a member.
            for pid in ({leader} if is_group else set()) | marked:
                signum = signal.SIGKILL if killed_at else 0 if pid in signalled else signal.SIGTERM
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    (os.killpg if pid == leader else os.kill)(pid, signum)
                    remaining.add(pid)
            signalled |= remaining
            is_group = leader in remaining
            # What is left for long after having been killed is dead and waits for its parent.
            if not remaining or (killed_at and now > killed_at + _MARGIN):
                return
            if killed_at is None:
                self._killed.wait(pause)
            else:
                time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _exit_descriptor(pid: int) -> int:
    """Open a descriptor that becomes readable when child ``pid`` has ended."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    reader, writer = os.pipe()

    def watch() -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(writer)

    threading.Thread(target=watch, daemon=True).start()
    return reader


def _pass_on(descriptor: int, name: str, sink: Callable[[str, bytes], None]) -> bool:
    try:
        data = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return False
    if data:
        sink(name, data)
    return bool(data)
