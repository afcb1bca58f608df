"""A terminal server of libtmux with a time limit on every call.

The import of libtmux takes a tenth of a second: import this module only where a terminal server is
started, ended, asked or attached to, and beside something else that takes time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from libtmux.common import tmux_cmd
from libtmux.exc import LibTmuxException, TmuxCommandNotFound
from libtmux.server import Server
from libtmux.session import Session

from lightcone.session.terminal.call import Call

if TYPE_CHECKING:
    from libtmux._internal.query_list import QueryList

__all__ = ["Answer", "LibTmuxException", "TerminalServer", "Unanswered"]


class Unanswered(LibTmuxException):
    """The server did not answer in time; it may have been stopped."""


class Answer(tmux_cmd):
    """The result of a call, with the attributes that libtmux reads.

    Raises:
        Unanswered: where tmux has not ended within ``timeout`` seconds.
    """

    def __init__(self, call: Call, timeout: float) -> None:
        # Not super().__init__(): it runs the command itself, and waits for it without a limit.
        try:
            self.returncode, out, errors = call.result(timeout)
        except TimeoutError as error:
            raise Unanswered(str(error)) from error
        self.process = call.process
        self.cmd = call.words
        self.stdout = out.rstrip("\n").split("\n") if out.strip("\n") else []
        self.stderr = [line for line in errors.split("\n") if line]


class TerminalServer(Server):
    """The server on one socket.

    libtmux waits for a stopped server without a limit. :meth:`cmd` waits for ``timeout`` seconds,
    and every session, window and pane under this object acts through it.

    libtmux reads lists of objects past :meth:`cmd` (in ``neo.fetch_objs``). :attr:`sessions` is
    replaced here; ``windows``, ``panes``, ``clients``, ``refresh`` and ``raise_if_dead`` have no
    time limit, so the package uses none of them.

    Args:
        socket: the path of the socket.
        configuration: the file that a server reads when a call starts it.
        timeout: the time limit of a call, in seconds.
    """

    def __init__(self, socket: Path, configuration: Path, timeout: float) -> None:
        super().__init__(socket_path=str(socket), config_file=str(configuration))
        self.timeout = timeout

    def cmd(self, cmd: str, *args: Any, target: str | int | None = None) -> tmux_cmd:
        """Call the server and return its answer.

        Raises:
            Unanswered: where it does not answer in time.
            TmuxCommandNotFound: where tmux is not installed.
            OSError: where tmux cannot be run.
        """
        aim = () if target is None else ("-t", target)
        words = ("-S", self.socket_path, "-f", self.config_file, cmd, *aim, *args)
        try:
            call = Call([str(word) for word in words])
        except FileNotFoundError:
            raise TmuxCommandNotFound from None
        with call:
            return Answer(call, self.timeout)

    @property
    def sessions(self) -> QueryList[Session]:
        """The sessions, each with no attribute but its id; none where there is no server.

        Raises:
            Unanswered: where the server does not answer in time.
        """
        from libtmux._internal.query_list import QueryList

        listed = self.cmd("list-sessions", "-F", "#{session_id}")
        ids = listed.stdout if listed.returncode == 0 else []
        return QueryList([Session(server=self, session_id=each) for each in ids])
