"""The terminal server of a session: the only module that talks to tmux.

Each context has a server of its own, on a socket of its own, with our configuration. A server
shared with others would keep its first caller's environment and share their fate.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lightcone.errors import SessionError

__all__ = ["attach", "attach_command", "check", "end", "is_up", "start"]

_CONFIGURATION = Path(__file__).with_name("tmux.conf")
_MINIMUM = "3.2"


def check() -> str:
    """The version of tmux.

    Raises:
        SessionError: where there is none that can host a session.
    """
    from libtmux.common import get_version
    from libtmux.exc import LibTmuxException

    remedy = f"install tmux {_MINIMUM} or newer (apt, dnf, brew or conda install tmux)"
    if shutil.which("tmux") is None:
        raise SessionError(f"A session needs tmux, which is not on the PATH: {remedy}.")
    try:
        found = get_version()
    except (LibTmuxException, LookupError, ValueError) as error:
        raise SessionError(f"The version of tmux cannot be told ({error}): {remedy}.") from error
    # "3.3a" and "next-3.6" are versions too.
    numbers = tuple(map(int, re.findall(r"\d+", str(found))[:2]))
    if numbers and numbers < tuple(map(int, _MINIMUM.split("."))):
        raise SessionError(f"A session needs tmux {_MINIMUM}, and {found} is installed: {remedy}.")
    return str(found)


def start(socket: Path, name: str, windows: Mapping[str, Sequence[str]], directory: Path) -> bool:
    """Start a detached session with one program a window, all in one call.

    Args:
        socket: the server's socket; a server is started there.
        name: the session's name.
        windows: each window's name and the argument list of its program.
        directory: the programs' working directory.

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
    result = _server(socket).cmd(*command)
    message = " ".join(result.stderr)
    # A socket that cannot be made is told and yet a success.
    if result.returncode == 0 and "error creating" not in message:
        return True
    if "duplicate session" in message:
        return False
    raise SessionError(f"tmux could not start the session: {message or 'no reason given'}.")


def is_up(socket: Path) -> bool:
    """Whether a server with a session answers on ``socket``."""
    return socket.exists() and _server(socket).is_alive()


def end(socket: Path) -> None:
    """End every session on ``socket``, by id; the server leaves with its last one."""
    if not socket.exists():
        return
    server = _server(socket)
    listed = server.cmd("list-sessions", "-F", "#{session_id}")
    for session_id in listed.stdout:
        server.cmd("kill-session", "-t", session_id)


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


def _server(socket: Path):  # type: ignore[no-untyped-def]  # importing the type takes 0.1 s
    from libtmux import Server

    return Server(socket_path=str(socket), config_file=str(_CONFIGURATION))
