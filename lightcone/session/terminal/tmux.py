"""The terminal server of a session: started, asked and ended through libtmux.

Each context has a server of its own, on a socket of its own, with our configuration. A server
shared with others would keep its first caller's environment and share their fate.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightcone.errors import ENOUGH, SessionError

if TYPE_CHECKING:
    import psutil
    from libtmux.common import tmux_cmd

    from lightcone.session.terminal.call import Call
    from lightcone.session.terminal.server import TerminalServer

__all__ = [
    "answers",
    "attach",
    "attach_command",
    "check",
    "end",
    "is_up",
    "is_watched",
    "kill",
    "resume",
    "start",
]

_CONFIGURATION = Path(__file__).with_name("tmux.conf")
_MINIMUM = "3.2"
_REMEDY = f"install tmux {_MINIMUM} or newer (apt, dnf, brew or conda install tmux)"
# A server answers in milliseconds; one that has been stopped never does.
_TIMEOUT = 3.0
_START_TIMEOUT = 20.0
_LEAVING = 2.0
_TICK = 0.02
# The process, user and group of the other side of a socket, struct ucred of unix(7).
_CREDENTIALS = struct.Struct("iII")
_ATTACHED = "#{session_attached}"
# A shell that sleeps until a terminal attaches, which the configuration signals to it. It never
# exits, because its end would be the end of the session.
_WHILE_WATCHED = f"""\
socket=$2; shift 2
while :; do
    tmux -S "$socket" if-shell -F '{_ATTACHED}' '' 'set-option -g @asleep 1 ; wait-for attached' &&
        "$@" || sleep 2
done"""


def check() -> str:
    """The version of tmux.

    Raises:
        SessionError: where there is none that can host a session.
    """
    import shutil

    if shutil.which("tmux") is None:
        raise SessionError(f"A session needs tmux, which is not on the PATH: {_REMEDY}.")
    try:
        with _begin("-V") as call:
            code, printed, errors = call.result(_START_TIMEOUT)
        why = errors.strip() or "it does not say"
    except TimeoutError:
        code, printed, why = -1, "", "it does not answer"
    if code != 0 or not printed.startswith("tmux "):
        raise SessionError(f"The version of tmux cannot be told ({why}): {_REMEDY}.")
    found = printed.strip().removeprefix("tmux ")
    # "3.3a" and "next-3.6" are versions too.
    numbers = tuple(map(int, re.findall(r"\d+", found)[:2]))
    if numbers and numbers < tuple(map(int, _MINIMUM.split("."))):
        raise SessionError(f"A session needs tmux {_MINIMUM}, and {found} is installed: {_REMEDY}.")
    return found


def start(
    socket: Path,
    name: str,
    windows: Mapping[str, Sequence[str]],
    overview: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
) -> bool:
    """Start a detached session with one program a window, all in one call.

    Args:
        socket: the server's socket; a server is started there.
        name: the session's name.
        windows: each window's name and the argument list of its program, which ends them all.
        overview: the program of one window more, which runs while a terminal is attached.
        directory: the programs' working directory.
        environment: their environment.

    Returns:
        False when a session of that name is there already.

    Raises:
        SessionError: where the server cannot be started.
    """
    command: list[str] = []
    for window, program in windows.items():
        first = not command
        command += ["new-session", "-d", "-s", name] if first else [";", "new-window", "-d"]
        command += ["-n", window, "-c", str(directory), *program]
    command += [";", "new-window", "-d", "-t", f"{name}:0", "-n", "top", "-c", str(directory)]
    command += ["/bin/sh", "-c", _WHILE_WATCHED, "sh", "-S", str(socket), *overview]
    with _begin("-S", str(socket), "-f", str(_CONFIGURATION), *command, env=environment) as call:
        # Imported only now, while tmux starts the session's programs: an import before that would
        # delay the first output by all the time that it takes.
        from lightcone.session.terminal.server import Answer, Unanswered

        try:
            answer = Answer(call, _START_TIMEOUT)
        except Unanswered as error:
            raise SessionError(
                f"tmux did not start the session within {_START_TIMEOUT:.0f} s: end what there is "
                "of it with 'lc session stop --force', and run again."
            ) from error
    message = " ".join(word for line in answer.stderr for word in line.split())
    # tmux prints that it cannot make its socket, and exits with 0.
    if answer.returncode == 0 and "error creating" not in message:
        return True
    if "duplicate session" in message:
        return False
    raise SessionError(f"tmux could not start the session: {message or 'no reason given'}.")


def is_up(socket: Path) -> bool:
    """Whether a server with a session is on ``socket``, one that has been stopped included."""
    if _listener(socket) is None:
        return False
    answer = _ask(socket, "list-sessions")
    return answer is None or answer.returncode == 0


def answers(socket: Path) -> bool:
    """Whether a server with a session answers on ``socket``."""
    if _listener(socket) is None:
        return False
    answer = _ask(socket, "list-sessions")
    return answer is not None and answer.returncode == 0


def end(socket: Path) -> bool:
    """End every session on ``socket``, by id; the server leaves with its last one.

    Returns:
        False where there was none, or none that answered.
    """
    if _listener(socket) is None:
        return False
    from lightcone.session.terminal.server import LibTmuxException, Unanswered

    try:
        sessions = _server(socket).sessions
    except (LibTmuxException, OSError):
        return False
    answered = bool(sessions)
    for session in sessions:
        try:
            session.kill()
        except (Unanswered, OSError):
            answered = False
        except LibTmuxException:
            pass  # the session has just ended by itself
    return answered


def is_watched(socket: Path) -> bool:
    """Whether a terminal is attached to the session on ``socket``."""
    answer = _ask(socket, "display-message", "-p", _ATTACHED)
    return answer is not None and answer.stdout not in ([], ["0"])


def resume(socket: Path, members: Collection[int] = ()) -> list[psutil.Process]:
    """Let the server's processes go on where they have been stopped (Linux).

    Args:
        socket: the server's socket.
        members: the processes that are known to be the session's; the server is their parent.

    Returns:
        The server, and the processes below it that are no members.
    """
    found = _processes(socket, members)
    for process in found:
        _send(process, signal.SIGCONT)
    return found


def kill(socket: Path, known: Collection[psutil.Process] = ()) -> None:
    """Wait until the server has left, and kill it where it does not leave by itself (Linux).

    Args:
        socket: the server's socket.
        known: what :func:`resume` has returned; a server that is leaving has closed its socket.
    """
    deadline = time.monotonic() + _LEAVING
    while left := list(filter(_is_alive, {*known, *_processes(socket)})):
        late = time.monotonic() - deadline
        for process in left if late > 0 else ():
            _send(process, signal.SIGKILL)
        if late > _LEAVING:
            return  # in the kernel's hands
        time.sleep(_TICK)


def attach_command(socket: Path, name: str) -> list[str]:
    """A command that attaches a terminal to the session, read-only, inside another tmux too."""
    # No "=" before the name: some shells expand a word that begins with it. There is no other
    # session on this server whose name could begin like this one's.
    command = ["tmux", "-S", str(socket), "attach-session", "-r", "-t", name]
    return ["env", "-u", "TMUX", "-u", "TMUX_PANE", *command]


def attach(socket: Path, name: str) -> NoReturn:
    """Become the command that attaches."""
    command = attach_command(socket, name)
    os.execvp(command[0], command)  # noqa: S606 (no shell)


def _listener(place: Path) -> int | None:
    """The process that listens on a socket; 0 where only its presence is known, None for none.

    The kernel accepts connections for a server that has been stopped too, and names the process
    that listens on the very socket which the path leads to: another server may have been started
    with the same path, in another mount namespace or before the socket was removed.
    """
    from socket import AF_UNIX, SOL_SOCKET, socket

    with socket(AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(os.fspath(place))
        except BlockingIOError:
            return 0  # a stopped server accepts no more than its queue holds
        except OSError:
            return None
        if sys.platform != "linux":
            return 0
        from socket import SO_PEERCRED

        credentials = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(credentials)
    return pid if user == os.getuid() else 0


def _processes(place: Path, members: Collection[int] = ()) -> list[psutil.Process]:
    """The server that listens on a socket or is the parent of members, and what runs below it.

    A server whose socket has been removed, or that accepts no connection, is still the parent of
    the session's guards. The rest is the shell of the first window, with what it has started.
    """
    if sys.platform != "linux":
        return []
    listener = _listener(place)
    if not members and not listener:
        return []
    import psutil

    candidates = {listener or 0}
    for pid in members:
        with contextlib.suppress(psutil.Error):
            candidates.add(psutil.Process(pid).ppid())
    found = []
    for pid in candidates - {0}:
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(pid)
            # The parent of a guard that has lost its server is another program.
            if server.name().startswith("tmux") and server.uids().real == os.getuid():
                found.append(server)
                for child in server.children():
                    if child.pid not in members:
                        found += [child, *child.children(recursive=True)]
    return found


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _send(process: psutil.Process, signum: signal.Signals) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process.send_signal(signum)  # to this process only, and not to a later one with its id


def _server(socket: Path) -> TerminalServer:
    from lightcone.session.terminal.server import TerminalServer

    return TerminalServer(socket, _CONFIGURATION, _TIMEOUT)


def _ask(socket: Path, *command: str) -> tmux_cmd | None:
    """What the server on ``socket`` answers; None where it does not, or cannot be asked."""
    from lightcone.session.terminal.server import LibTmuxException

    with contextlib.suppress(LibTmuxException, OSError):
        return _server(socket).cmd(*command)
    return None


def _begin(*arguments: str, env: Mapping[str, str] | None = None) -> Call:
    from lightcone.session.terminal.call import Call

    try:
        return Call(arguments, env)
    except OSError as error:
        remedy = _REMEDY if isinstance(error, FileNotFoundError) else ENOUGH
        raise SessionError(f"tmux cannot be run ({error.strerror}): {remedy}.") from error
