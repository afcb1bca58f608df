"""The terminal server of a session: the only module that talks to tmux.

Each context has a server of its own, on a socket of its own, with our configuration. A server
shared with others would keep its first caller's environment and share their fate.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightcone.errors import ENOUGH, SessionError

if TYPE_CHECKING:
    import subprocess

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
# It answers in milliseconds; one that has been stopped never does.
_PATIENCE = 3.0
_START_PATIENCE = 20.0
_LEAVING = 2.0
_TICK = 0.02
_ATTACHED = "#{session_attached}"
# A shell that sleeps until somebody attaches, of which the configuration tells it. It never leaves:
# its end would be the session's.
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

    remedy = f"install tmux {_MINIMUM} or newer (apt, dnf, brew or conda install tmux)"
    if shutil.which("tmux") is None:
        raise SessionError(f"A session needs tmux, which is not on the PATH: {remedy}.")
    told = _run(["tmux", "-V"], _START_PATIENCE)
    if told is None or told.returncode != 0 or not told.stdout.startswith("tmux "):
        why = "it does not answer" if told is None else told.stderr.strip() or "it does not say"
        raise SessionError(f"The version of tmux cannot be told ({why}): {remedy}.")
    found = told.stdout.strip().removeprefix("tmux ")
    # "3.3a" and "next-3.6" are versions too.
    numbers = tuple(map(int, re.findall(r"\d+", found)[:2]))
    if numbers and numbers < tuple(map(int, _MINIMUM.split("."))):
        raise SessionError(f"A session needs tmux {_MINIMUM}, and {found} is installed: {remedy}.")
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
        overview: the program of one window more, which runs while somebody is attached.
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
    result = _run(_line(socket, *command), _START_PATIENCE, environment)
    if result is None:
        raise SessionError(
            f"tmux did not start the session within {_START_PATIENCE:.0f} s: end what there is of "
            "it with 'lc session stop --force', and run again."
        )
    message = " ".join(result.stderr.split())
    # A socket that cannot be made is told and yet a success.
    if result.returncode == 0 and "error creating" not in message:
        return True
    if "duplicate session" in message:
        return False
    raise SessionError(f"tmux could not start the session: {message or 'no reason given'}.")


def is_up(socket: Path) -> bool:
    """Whether a server with a session is on ``socket``, one that has been stopped included."""
    if not socket.exists():
        return False
    result = _call(socket, "list-sessions")
    return result is None or result.returncode == 0


def answers(socket: Path) -> bool:
    """Whether a server with a session answers on ``socket``."""
    result = _call(socket, "list-sessions")
    return result is not None and result.returncode == 0


def end(socket: Path) -> bool:
    """End every session on ``socket``, by id; the server leaves with its last one.

    Returns:
        False where there was none, or none that answered.
    """
    if not socket.exists():
        return False
    listed = _call(socket, "list-sessions", "-F", "#{session_id}")
    if listed is None or listed.returncode != 0:
        return False
    ended = [_call(socket, "kill-session", "-t", name) for name in listed.stdout.split()]
    return None not in ended


def is_watched(socket: Path) -> bool:
    """Whether somebody is attached to the session on ``socket``."""
    result = _call(socket, "display-message", "-p", _ATTACHED)
    return result is not None and result.stdout.strip() not in ("", "0")


def resume(socket: Path) -> None:
    """Let the server go on, where it has been stopped (Linux)."""
    for pid in _processes(socket):
        _send(pid, signal.SIGCONT)


def kill(socket: Path) -> None:
    """Kill the server, also one that cannot be reached, unless it leaves by itself (Linux)."""
    deadline = time.monotonic() + _LEAVING
    while left := _processes(socket):
        late = time.monotonic() - deadline
        for pid in left if late > 0 else ():
            _send(pid, signal.SIGKILL)
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


def _processes(socket: Path) -> list[int]:
    """The server that was started on ``socket``, its clients, and the shell of its first window.

    No other process has this argument.
    """
    found, path = [], os.fsencode(socket)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            name = (entry / "comm").read_text(errors="replace")
            ours = entry.stat().st_uid == os.getuid() and name.startswith(("tmux", "sh"))
            # A session of an earlier lc has the two in one word.
            if ours and ((b"-S", path) in itertools.pairwise(words) or b"-S" + path in words):
                found.append(int(entry.name))
    return found


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _call(socket: Path, *command: str) -> subprocess.CompletedProcess[str] | None:
    """What the server on ``socket`` answers; None where it does not, or cannot be asked."""
    with contextlib.suppress(SessionError):
        return _run(_line(socket, *command), _PATIENCE)
    return None


def _line(socket: Path, *command: str) -> list[str]:
    return ["tmux", "-S", str(socket), "-f", str(_CONFIGURATION), *command]


def _run(
    program: list[str], patience: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    # Not through libtmux: it waits for ever for a server that has been stopped, and its import
    # takes fifty times what asking tmux does, while nothing else is being done for the session.
    import subprocess

    try:
        return subprocess.run(
            program,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=patience,
            check=False,
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None
    except OSError as error:
        raise SessionError(f"tmux cannot be run ({error.strerror}): {ENOUGH}.") from error
