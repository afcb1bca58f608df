"""Graceful shutdown of a session, with or without its terminal server."""

from __future__ import annotations

import contextlib
import time

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.session import members, spawn
from lightcone.session.allocation import end_steps
from lightcone.session.liveness import Life, Liveness, probe, record_end
from lightcone.session.spawn_lock import spawn_lock_held
from lightcone.session.terminal import tmux
from lightcone.wire.control_client import ask_session

__all__ = ["LEFTOVER_DEADLINE", "end_session", "stop_session", "unknown_liveness"]

LEFTOVER_DEADLINE = 20.0
"""Seconds that a session which is starting or ending is given to show which."""
_TICK = 0.02


def stop_session(
    context: Context, reason: str = "stopped by 'lc session stop'", *, force: bool = False
) -> bool:
    """End the session of ``context``; False when there was nothing to end.

    Recipes are asked to end and, after their grace, ended; on return no process, socket or key of
    the session is left. Its programs are reached even where its terminal server is not.

    Args:
        context: whose session.
        reason: the reason to record.
        force: also end it where it is unknown whether it is alive.

    Raises:
        SessionError: where it is unknown whether it is alive, or a process of it did not end.
    """
    if not context.state.is_dir():
        return False
    # What is connected to and removed below has to be ours, and stay so.
    context.create_directories()
    with spawn_lock_held(context):
        liveness = probe(context) if force else _probe_until_settled(context)
        if liveness.life is Life.UNKNOWN and not force:
            raise unknown_liveness(context, liveness.why)
        existed = (
            liveness.life is not Life.DEAD or liveness.is_ending or tmux.is_up(context.tmux_socket)
        )
        if liveness.life is Life.ALIVE:
            with contextlib.suppress(OSError):
                # Its terminal server may be on another host of an allocation.
                ask_session(context, "reason" if context.job is None else "end", reason=reason)
        if force and liveness.life is not Life.ALIVE:
            members.kill(context)
        # Workers that have a scheduler end in order, and a step that is cancelled is soon killed.
        if context.job is not None and (force or liveness.life is not Life.ALIVE):
            end_steps(context)
        end_session(context)
        if context.job is not None:
            end_steps(context)
        record_end(context, reason)
        spawn.remove_leftovers(context)
        return existed


def end_session(context: Context) -> None:
    """End the session's programs gracefully, its terminal server reachable or not."""
    terminal = members.resume(context)
    if not tmux.end(context.tmux_socket):
        members.ask(context)
    spawn.wait_until_ended(context)
    tmux.kill(context.tmux_socket, terminal)


def _probe_until_settled(context: Context) -> Liveness:
    """Probe the session until it is alive or dead, within a deadline."""
    deadline = time.monotonic() + LEFTOVER_DEADLINE
    while True:
        liveness = probe(context)
        if liveness.life is not Life.UNKNOWN or time.monotonic() > deadline:
            return liveness
        time.sleep(_TICK)


def unknown_liveness(context: Context, why: str) -> SessionError:
    """The error of a call that needs to know whether the session is alive."""
    return SessionError(
        f"Whether the session {context.name} is alive cannot be told, because {why}: run again "
        "when it answers or has ended, or end it with all that it runs by 'lc session stop "
        f"--force'; its logs are in {context.state / 'logs'}."
    )
