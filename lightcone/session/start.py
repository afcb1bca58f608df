"""A session's beginning: the one that lives, or one that is started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.session import spawn
from lightcone.session.allocation import end_steps, live_job, prune_old_allocations
from lightcone.session.lease import own_lease
from lightcone.session.liveness import (
    START_DEADLINE,
    Life,
    Notify,
    Progress,
    is_outdated,
    probe,
    recorded_end,
    wait_until_ready,
)
from lightcone.session.spawn_lock import spawn_lock_timeout, take_spawn_lock, wait_for_spawn_lock
from lightcone.session.stop import LEFTOVER_DEADLINE, end_session, unknown_liveness
from lightcone.session.terminal import tmux
from lightcone.system.files import FULL_DISK
from lightcone.system.units import format_seconds
from lightcone.wire.control_client import ask_session

__all__ = ["Ensured", "ensure_session"]

# What holds no lock of a session by then is none that is starting.
_EMPTY_DEADLINE = 3.0
_TICK = 0.02
# Seconds after which those who wait for another call look whether that is of use.
_WAITING = 1.0


@dataclass(frozen=True)
class Ensured:
    """A living session: what it says of itself, and whether this call started it."""

    description: dict[str, Any]
    spawned: bool


def ensure_session(
    context: Context,
    notify: Notify = lambda _: None,
    while_waiting: Callable[[], None] = lambda: None,
    lease: str | None = None,
) -> Ensured:
    """The living session of ``context``, started if there is none; any number may call at once.

    Args:
        context: whose session.
        notify: is told, in a line, what takes time.
        while_waiting: is called while a session is starting, for what the caller will need anyway.
        lease: the lease to take; by default that of this process's environment, if any.

    Raises:
        SessionError: where there is none and none can be started, or whether there is one cannot
            be told.
    """
    lease = lease or own_lease()
    ensured = _ensured(context, notify, while_waiting)
    if lease is not None:
        with contextlib.suppress(OSError):
            ask_session(context, "lease", lease=lease)
    return ensured


def _ensured(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    description = wait_until_ready(context, notify)
    if description is not None:
        return Ensured(description, spawned=False)
    try:
        return _ensure(context, notify, while_waiting)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise SessionError(
            f"The session {context.name} cannot be started, as there is no room left on the disk "
            f"of {error.filename or context.state}: make some, or set LIGHTCONE_SCRATCH to a "
            "directory on another."
        ) from error


def _ensure(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    context.prepare()
    deadline = time.monotonic() + START_DEADLINE
    progress = Progress(notify, "waiting for another call that is starting or ending the session")
    while (lock := take_spawn_lock(context)) is None:
        # Shared with all that wait, so that they go on at once and not one after the other.
        wait_for_spawn_lock(context, _WAITING)
        description = wait_until_ready(context, notify)
        if description is not None:
            return Ensured(description, spawned=False)
        progress.show()
        if time.monotonic() > deadline:
            raise spawn_lock_timeout(context)
        time.sleep(_TICK)  # one of those that share it may have been suspended with it
    try:
        return _ensure_locked(context, notify, while_waiting)
    finally:
        lock.release()


def _ensure_locked(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    description = wait_until_ready(context, notify)
    if description is not None:
        return Ensured(description, spawned=False)
    tmux.check()
    found = probe(context)
    if found.life is Life.ALIVE and is_outdated(found.description):
        notify("replacing a session of another version")
        with contextlib.suppress(OSError):
            ask_session(context, "reason", reason="replaced by another version")
        end_session(context)
    elif found.life is not Life.DEAD or found.remains or tmux.is_up(context.tmux_socket):
        # One that somebody began to start and left, or one that is about to be gone.
        notify("waiting for a session that is starting or ending")
        empty = found.life is Life.DEAD and not found.remains
        description = _await(context, notify, _EMPTY_DEADLINE if empty else LEFTOVER_DEADLINE)
        if description is not None:
            return Ensured(description, spawned=False)
    ended = recorded_end(context)
    if ended is not None:
        ago = (datetime.now(UTC) - datetime.fromisoformat(ended["at"])).total_seconds()
        # The clock may have been put back since.
        notify(f"the last session ended {format_seconds(max(ago, 0.0))} ago: {ended['reason']}")
    job = None if context.job is None else live_job(context)
    notify(f"starting the session {context.name}")
    spawn.tidy(context)
    if job is not None:
        end_steps(context)
    try:
        spawn.start_programs(context, job)
    except BaseException:
        end_session(context)
        raise
    while_waiting()
    if job is not None:
        prune_old_allocations(context)
    description = _await(context, notify, START_DEADLINE)
    if description is None:
        raise SessionError(spawn.describe_failed_start(context))
    return Ensured(description, spawned=True)


def _await(context: Context, notify: Notify, patience: float) -> dict[str, Any] | None:
    """The session's description once it is ready, or None once nothing of it is left.

    The spawn lock is held, so nobody else is starting one: what is there without an owner after
    ``patience`` seconds will never be one, and is ended.
    """
    deadline = time.monotonic() + patience
    next_look = time.monotonic() + 0.2
    progress = Progress(notify, "still waiting for the session to be ready")
    while time.monotonic() < deadline:
        description = wait_until_ready(context, notify)
        if description is not None:
            return description
        progress.show()
        if time.monotonic() > next_look:
            next_look = time.monotonic() + 0.2
            # Asking the terminal server starts a process; most often some other is there already.
            if _is_gone(context) and not tmux.is_up(context.tmux_socket):
                spawn.wait_for_remains(context)
                tmux.kill(context.tmux_socket)  # it answers no more, and may not have left yet
                return None
        time.sleep(_TICK)
    if not _is_dead(context):
        raise unknown_liveness(context, f"it has not become ready within {patience:.0f} s")
    end_session(context)
    return None


def _is_gone(context: Context) -> bool:
    found = probe(context, timeout=0.5)
    return found.life is Life.DEAD and not found.remains


def _is_dead(context: Context) -> bool:
    return probe(context, timeout=0.5).life is Life.DEAD
