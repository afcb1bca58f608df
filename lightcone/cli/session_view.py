"""``lc session`` verbs that watch a session: attach, top, logs, wait."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable

import click

from lightcone.cli.streams import notify
from lightcone.errors import SessionError, UsageError
from lightcone.project.context import Context, current_context
from lightcone.session.liveness import Life, Liveness, probe
from lightcone.system.units import parse_seconds
from lightcone.wire.control_client import ask_session, hold_session

__all__ = ["attach", "show_logs", "top", "wait"]


def _require_alive(context: Context, purpose: str) -> Liveness:
    """Return the liveness of the session of ``context``, which is alive.

    Args:
        context: whose session.
        purpose: the action that needs the session, as in ``attach to``.

    Raises:
        SessionError: where it is dead, or it is unknown whether it is alive.
    """
    liveness = probe(context)
    if liveness.life is Life.DEAD:
        raise SessionError(
            f"There is nothing to {purpose}, {liveness.why}: start it with 'lc run'."
        )
    if liveness.life is Life.UNKNOWN:
        raise SessionError(
            f"There is nothing to {purpose}, because {liveness.why}: look at 'lc session logs'."
        )
    return liveness


@click.command("attach")
def attach() -> None:
    """Watch the session's programs: read-only; q or Ctrl-C leaves, and harms nothing."""
    from lightcone.session.terminal import tmux

    context = current_context()
    liveness = _require_alive(context, "attach to")
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError("Attaching needs a terminal: use 'lc session logs' to read instead.")
    host = liveness.description["host"]
    if host != socket.gethostname():
        raise SessionError(
            f"The session {context.name} is on {host}: attach there, or use 'lc session logs'."
        )
    if not tmux.answers(context.tmux_socket):
        raise SessionError(
            f"The session {context.name} is alive, but its terminal server does not answer on "
            f"{context.tmux_socket}: use 'lc session logs', or end it with 'lc session stop'."
        )
    tmux.attach(context.tmux_socket, context.name)


@click.command("top")
@click.option("--once", is_flag=True, help="Print how it is now, and leave.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def top(once: bool, as_json: bool) -> None:
    """Show the session: workers, running, waiting and failed outputs, with the reasons.

    Looking does not keep a session from ending as idle. On the screen, the arrow keys or j and k
    choose an output, Enter shows its log, / filters by name, s sorts, c cancels the run it belongs
    to (after a question), and q or Ctrl-C leaves.
    """
    context = current_context()
    _require_alive(context, "look at")
    from lightcone.view.screen import show, snapshot

    if as_json:
        click.echo(json.dumps(snapshot(context)))
    elif once:
        from lightcone.view.picture import plain

        click.echo(plain(snapshot(context)))
    elif not (os.isatty(0) and os.isatty(1)):
        raise UsageError("The screen needs a terminal: use '--once' or '--json' instead.")
    else:
        try:
            ended = show(context, interactive=True)
        except OSError as error:
            raise SessionError(
                "The session ended as it was about to be looked at: see 'lc session status'."
            ) from error
        if ended is not None:
            click.echo(f"{context.name}: ended{f', {ended}' if ended else ''}")


_ROLES = ("scheduler", "worker")


@click.command("logs")
@click.argument("program", required=False, type=click.Choice(_ROLES))
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many of the last lines of each.",
)
def show_logs(program: str | None, follow: bool, lines: int) -> None:
    """Show the logs of the session's programs, also after their end."""
    context = current_context()
    roles = _ROLES if program is None else (program,)
    files = [context.state / "logs" / f"{role}.log" for role in roles]
    files = [file for file in files if file.exists()]
    if not files:
        raise SessionError("There are no logs, as no session was started here: use 'lc run'.")
    arguments = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    os.execvp("tail", arguments)  # noqa: S606 (no shell; the system's own tail)


@click.command("wait")
@click.option(
    "--for",
    "condition",
    type=click.Choice(["ready", "idle", "end"]),
    default="ready",
    show_default=True,
    help="Until the session can be used, nobody uses it, or it has ended.",
)
@click.option("--timeout", help="Give up after this long, with exit code 1; for example 10m.")
def wait(condition: str, timeout: str | None) -> int:
    """Wait until the session is ready, idle or ended."""
    try:
        seconds = None if timeout is None else parse_seconds(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from error
    context = current_context()
    waits: dict[str, Callable[[Context, float | None], bool]] = {
        "ready": _wait_ready,
        "idle": _wait_idle,
        "end": _wait_end,
    }
    if waits[condition](context, seconds):
        return 0
    notify(f"{context.name}: not {'ended' if condition == 'end' else condition} within {timeout}")
    return 1


def _wait_ready(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        remaining = None if deadline is None else deadline - time.monotonic()
        try:
            ask_session(context, "ready", None if remaining is None else max(remaining, 0.1))
        except OSError:
            # A session that does not exist yet cannot report its start.
            if remaining is not None and remaining <= 0:
                return False
            time.sleep(0.1)
        else:
            return True


def _wait_idle(context: Context, seconds: float | None) -> bool:
    try:
        limit = None if seconds is None else max(seconds, 0.1)
        ask_session(context, "idle", limit)
    except TimeoutError:
        return False
    except OSError:
        pass  # no session is as idle as can be
    return True


def _wait_end(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        liveness = probe(context)
        if liveness.life is Life.DEAD and not liveness.is_ending:
            return True
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        if liveness.life is Life.ALIVE:
            with (
                contextlib.suppress(OSError),
                hold_session(context) as hold,
            ):
                hold.wait_for_end(remaining)
        else:
            time.sleep(0.1)
