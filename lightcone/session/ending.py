"""A session's end, in good order, whether its terminal server can be reached or not."""

from __future__ import annotations

import contextlib
import time

from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session import allocated, control, members, spawn, spawn_lock, tmux
from lightcone.session.liveness import Life, Liveness, probe, record_end

__all__ = ["LEFTOVER_DEADLINE", "end", "stop", "unknown"]

LEFTOVER_DEADLINE = 20.0
"""Seconds that a session which is starting or ending is given to show which."""
_TICK = 0.02


def stop(
    context: Context, reason: str = "stopped by 'lc session stop'", *, force: bool = False
) -> bool:
    """End the session of ``context`` and everything of it; False when there was nothing to end.

    Recipes are asked to end and, after their grace, ended; on return no process, socket or key of
    the session is left. Its programs are reached even where its terminal server is not.

    Args:
        context: whose session.
        reason: what is recorded.
        force: also end it where whether it lives cannot be told.

    Raises:
        SessionError: where whether it lives cannot be told, or something of it did not end.
    """
    if not context.state.is_dir():
        return False
    context.take()  # what is connected to and removed below has to be ours, and stay so
    with spawn_lock.held(context):
        found = probe(context) if force else _settled(context)
        if found.life is Life.UNKNOWN and not force:
            raise unknown(context, found.why)
        was_there = found.life is not Life.DEAD or found.remains or tmux.is_up(context.tmux_socket)
        if found.life is Life.ALIVE:
            with contextlib.suppress(OSError):
                # Its terminal server may be on another host of an allocation.
                control.ask(context, "reason" if context.job is None else "end", reason=reason)
        if force and found.life is not Life.ALIVE:
            members.kill(context)
        # Workers that have a scheduler end in order, and a step that is cancelled is soon killed.
        if context.job is not None and (force or found.life is not Life.ALIVE):
            allocated.end_steps(context)
        end(context)
        if context.job is not None:
            allocated.end_steps(context)
        record_end(context, reason)
        spawn.tidy(context)
        return was_there


def end(context: Context) -> None:
    """End the session's programs in good order, its terminal server reachable or not."""
    terminal = members.resume(context)
    if not tmux.end(context.tmux_socket):
        members.ask(context)
    spawn.wait_for_remains(context)
    tmux.kill(context.tmux_socket, terminal)


def _settled(context: Context) -> Liveness:
    """Whether the session lives; one that is starting or ending is given time to show it."""
    deadline = time.monotonic() + LEFTOVER_DEADLINE
    while True:
        found = probe(context)
        if found.life is not Life.UNKNOWN or time.monotonic() > deadline:
            return found
        time.sleep(_TICK)


def unknown(context: Context, why: str) -> SessionError:
    """The error of a call that would have to know whether the session is alive."""
    return SessionError(
        f"Whether the session {context.name} is alive cannot be told, because {why}: run again "
        "when it answers or has ended, or end it with all that it runs by 'lc session stop "
        f"--force'; its logs are in {context.state / 'logs'}."
    )
