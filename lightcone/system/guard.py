"""Run one program of a session, and end all its descendants with it.

A script of the standard library alone, run with ``python -I -S guard.py OPTIONS -- PROGRAM…``:
it stands beside every program of a session, so it has to be small and quick to start.

- It is a child subreaper (Linux, ``prctl(2)``), so every descendant of the program, however
  detached, becomes the guard's child when its parent dies, and is ended when the program is gone:
  TERM, and KILL after the grace. Elsewhere it ends the descendants it can find by parent.
- A container supervisor (``worker/container_supervisor.py``) is left alone, with what it runs: it
  ends a container, and then itself.
- SIGHUP, SIGTERM and SIGINT ask the program to end; one that has not ended after the grace and
  five seconds more is killed. With ``--patience=SECONDS`` it is asked only when it has not ended by
  itself that long after the guard was asked.
- When the guard itself is killed, the kernel sends SIGTERM to the program (Linux).
- The program's output goes to the guard's own output and to the log file.
- ``--restart``: a program that ended badly and unasked, after it had said with SIGUSR1 that it was
  up, is started again, more slowly each time; five bad ends within a minute are given up.
- ``--drop=PREFIX``, ``--set=NAME=VALUE``: the program's environment is the guard's own, less the
  variables with that prefix, and with those set.
- ``--remove=PATH``: this file or directory is removed once the program is gone for good.
- ``--status=FILE``: the exit status is written there when everything is over.
- ``--members=FILE``: this lock is held, shared, until both the guard and the program are gone.

The guard exits with the program's exit status, 128 + N where signal N ended it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would double what the guard takes to start
    from collections.abc import Callable

__all__ = ["GAVE_UP", "children_by_parent", "descendants", "die_with_parent", "end_all"]

GAVE_UP = "[guard] five bad ends within a minute: giving up"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_TERMINATION_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
_HANDLED = (*_TERMINATION_SIGNALS, signal.SIGCHLD, signal.SIGUSR1)
_LOG_LIMIT = 16 * 1024 * 1024
_MARGIN = 5.0
_TICK = 0.02
_CONTAINER_SUPERVISOR = b"lc-container\n"


def descendants(root: int, children: dict[int, list[tuple[int, bool]]] | None = None) -> list[int]:
    """List the living descendants of ``root``, nearest first, without zombies."""
    children = children_by_parent() if children is None else children
    found, queue = [], [root]
    while queue:
        for pid, zombie in children.get(queue.pop(0), ()):
            queue.append(pid)
            if not zombie:
                found.append(pid)
    return found


def children_by_parent() -> dict[int, list[tuple[int, bool]]]:
    """Map each process to its children and whether they are zombies."""
    children: dict[int, list[tuple[int, bool]]] = {}
    if _LINUX:
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        # The command's name may hold anything; what follows its last ")" is plain.
                        fields = file.read().rpartition(b")")[2].split()
                except OSError:
                    continue
                children.setdefault(int(fields[1]), []).append((int(name), fields[0] == b"Z"))
    else:
        with os.popen("/bin/ps -A -o pid=,ppid=,stat=") as lines:  # noqa: S605 (a constant)
            for line in lines:
                columns = line.split()
                row = (int(columns[0]), columns[2].startswith("Z"))
                children.setdefault(int(columns[1]), []).append(row)
    return children


def end_all(root: int, grace: float) -> None:
    """End every descendant of ``root``: TERM, and KILL after ``grace`` seconds."""
    deadline = time.monotonic() + grace
    signalled: set[int] = set()
    while True:
        _reap()
        remaining = descendants(root)
        if not remaining:
            return
        expired = time.monotonic() >= deadline
        spared = _supervised(remaining)
        for pid in (pid for pid in remaining if pid not in spared):
            if expired or pid not in signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if expired else signal.SIGTERM)
                    if not expired:  # a stopped process acts on TERM only when it goes on
                        os.kill(pid, signal.SIGCONT)
                signalled.add(pid)
        if expired and time.monotonic() >= deadline + _MARGIN:
            return  # only supervisors, and processes of another user or in the kernel's hands
        time.sleep(_TICK)


def _supervised(pids: list[int]) -> set[int]:
    """Find the container supervisors among ``pids``, and their descendants."""
    supervised = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
            if file.read() == _CONTAINER_SUPERVISOR:
                supervised |= {pid, *descendants(pid)}
    return supervised


def die_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when ``parent`` dies (Linux).

    To be called by a process that ``parent`` has just forked.
    """
    if _LINUX:
        _load_prctl()(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _reap() -> dict[int, int]:
    """Reap the ended children; map each to its raw wait status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


class _Guard:
    def __init__(self, options: dict[str, str], program: list[str]) -> None:
        self.program = program
        self.grace = float(options.get("--grace", "10"))
        self.patience = float(options.get("--patience", "0"))
        self.restart = "--restart" in options
        self.is_driver = "--status" in options
        self.log_path = options.get("--log", "")
        self.log = self._open_log() if self.log_path else -1
        self.stop_requested_at = 0.0
        self.was_up = False
        drop = options.get("--drop")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if drop is None or not name.startswith(drop)
        }
        for assignment in options.get("--set", "").split("\n"):
            name, _, value = assignment.partition("=")
            if name:
                self.environment[name] = value
        if "--members" in options:
            # Inherited by the program: the lock is free only when both are gone.
            members = os.open(options["--members"], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(members, fcntl.LOCK_SH)
            os.set_inheritable(members, True)
        if _LINUX:
            _load_prctl()(_PR_SET_CHILD_SUBREAPER, 1)
        self.wakeup, wakeup_write = os.pipe()
        for end in (self.wakeup, wakeup_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for signum in _TERMINATION_SIGNALS:
            signal.signal(signum, self._on_termination_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._on_up)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            os.set_blocking(1, False)  # a terminal that does not read must not hold the program up
        self.pid = 0

    def _on_up(self, *_: object) -> None:
        self.was_up = True

    def _on_termination_signal(self, *_: object) -> None:
        if self.stop_requested_at:
            return  # a program that is asked twice may leave without an orderly end
        self.stop_requested_at = time.monotonic()
        if self.pid and not self.patience:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def run(self) -> int:
        """Run the program, with restarts where wanted; return the exit status."""
        recent_failures: list[float] = []
        while True:
            status = self._run_once()
            code = os.waitstatus_to_exitcode(status)
            outcome = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._report(f"[guard] {os.path.basename(self.program[0])} ended: {outcome}")
            code = 128 - code if code < 0 else code
            if self.stop_requested_at or code == 0 or not (self.restart and self.was_up):
                return code
            now = time.monotonic()
            recent_failures = [moment for moment in recent_failures if now - moment < 60] + [now]
            if len(recent_failures) >= 5:
                self._report(GAVE_UP)
                return code
            pause = 0.1 * 4 ** (len(recent_failures) - 1)
            self._report(f"[guard] starting it again in {pause:.1f} s")
            while not self.stop_requested_at and (remaining := now + pause - time.monotonic()) > 0:
                self._wait([], remaining)
            if self.stop_requested_at:
                return code

    def _run_once(self) -> int:
        reader, writer = os.pipe()
        parent = os.getpid()
        # Between here and the fork a request would find no program to pass it on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATION_SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            self._become_program(parent, writer)
        if self.stop_requested_at and not self.patience:
            os.kill(self.pid, signal.SIGTERM)  # it came when there was nobody to pass it on to
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINATION_SIGNALS)
        os.close(writer)
        status: int | None = None
        readers = [reader]
        try:
            while status is None:
                timeout = None
                if self.stop_requested_at:
                    now = time.monotonic()
                    if self.patience and now >= self.stop_requested_at + self.patience:
                        self.stop_requested_at, self.patience = now, 0.0
                        os.kill(self.pid, signal.SIGTERM)
                    timeout = self.stop_requested_at + (self.patience or self.grace + _MARGIN) - now
                    if timeout <= 0:
                        os.kill(self.pid, signal.SIGKILL)
                        timeout = None
                ready = self._wait(readers, timeout)
                if reader in ready and not self._copy(reader):
                    readers = []  # nobody has it open any more
                if self.wakeup in ready:
                    status = _reap().get(self.pid)
            self.pid = 0
            # With the pipe still open: writing to it is how many of them begin their end.
            end_all(os.getpid(), self.grace)
            while select.select([reader], [], [], 0)[0] and self._copy(reader):
                pass
        finally:
            os.close(reader)
        return status

    def _wait(self, readers: list[int], timeout: float | None) -> list[int]:
        """Wait for ``readers`` or a signal (``wakeup``); return the ready ones."""
        ready = select.select([*readers, self.wakeup], [], [], timeout)[0]
        if self.wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
        return ready

    def _become_program(self, parent: int, writer: int) -> None:
        try:
            # A session of its own: a hangup reaches the guard alone, which passes it on.
            os.setsid()
            die_with_parent(parent)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            for signum in _HANDLED:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            os.execvpe(self.program[0], self.program, self.environment)  # noqa: S606 (no shell)
        except BaseException as error:
            os.write(2, f"[guard] {self.program[0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _copy(self, reader: int) -> bool:
        data = os.read(reader, 65536)
        self._emit(data)
        return bool(data)

    def _report(self, line: str) -> None:
        if self.is_driver:
            return  # its log is the output of the run alone
        self._emit(f"{line}\n".encode())

    def _emit(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(1, data)
        if self.log >= 0:
            with contextlib.suppress(OSError):
                if os.fstat(self.log).st_size > _LOG_LIMIT:
                    self._rotate_log()
            with contextlib.suppress(OSError):
                os.write(self.log, data)

    def _rotate_log(self) -> None:
        with contextlib.suppress(OSError):  # somebody has removed it, say
            os.rename(self.log_path, f"{self.log_path}.old")
        former_log, self.log = self.log, self._open_log()
        os.close(former_log)

    def _open_log(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.log_path, flags, 0o600)


def _load_prctl() -> Callable[[int, int], int]:
    import ctypes

    prctl: Callable[[int, int], int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


def _main(arguments: list[str]) -> int:
    split = arguments.index("--")
    options: dict[str, str] = {}
    for argument in arguments[:split]:
        name, _, value = argument.partition("=")
        options[name] = f"{options[name]}\n{value}" if name in options else value
    try:
        code = _Guard(options, arguments[split + 1 :]).run()
        if "--status" in options:
            _write(options["--status"], f"{code}\n")
        return code
    finally:
        if "--remove" in options:
            _remove(options["--remove"])


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{path}.new", flags, 0o600)
        os.write(descriptor, text.encode())
        os.close(descriptor)
        os.rename(f"{path}.new", path)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
