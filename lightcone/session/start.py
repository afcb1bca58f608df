"""Getting the session of a context: the living one, or a new one."""

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

# Seconds after which a session without any lock held is taken for dead, not starting.
_EMPTY_DEADLINE = 3.0
_TICK = 0.02
# Seconds between checks, by a call that waits for the lock, whether the session is ready.
_LOCK_WAIT = 1.0


@dataclass(frozen=True)
class Ensured:
    """A living session: its description, and whether this call started it."""

    description: dict[str, Any]
    spawned: bool


def ensure_session(
    context: Context,
    notify: Notify = lambda _: None,
    while_waiting: Callable[[], None] = lambda: None,
    lease: str | None = None,
) -> Ensured:
    """Return the living session of ``context``, starting one if there is none.

    Any number of processes may call it at once.

    Args:
        context: whose session.
        notify: called with a line of text about each step that takes time.
        while_waiting: called while a session is starting, for work that the caller needs anyway.
        lease: the lease to take; by default that of this process's environment, if any.

    Raises:
        SessionError: where no session can be started, or it is unknown whether one is alive.
    """
    lease = lease or own_lease()
    ensured = _reuse_or_start(context, notify, while_waiting)
    if lease is not None:
        with contextlib.suppress(OSError):
            ask_session(context, "lease", lease=lease)
    return ensured


def _reuse_or_start(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    description = wait_until_ready(context, notify)
    if description is not None:
        return Ensured(description, spawned=False)
    try:
        return _start_in_turn(context, notify, while_waiting)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise SessionError(
            f"The session {context.name} cannot be started, as there is no room left on the disk "
            f"of {error.filename or context.state}: make some, or set LIGHTCONE_SCRATCH to a "
            "directory on another."
        ) from error


def _start_in_turn(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    context.prepare()
    deadline = time.monotonic() + START_DEADLINE
    progress = Progress(notify, "waiting for another call that is starting or ending the session")
    while (lock := take_spawn_lock(context)) is None:
        # Shared with all that wait, so that they go on at once and not one after the other.
        wait_for_spawn_lock(context, _LOCK_WAIT)
        description = wait_until_ready(context, notify)
        if description is not None:
            return Ensured(description, spawned=False)
        progress.show()
        if time.monotonic() > deadline:
            raise spawn_lock_timeout(context)
        time.sleep(_TICK)  # another call that shares it may have been suspended with it
    try:
        return _start_locked(context, notify, while_waiting)
    finally:
        lock.release()


def _start_locked(context: Context, notify: Notify, while_waiting: Callable[[], None]) -> Ensured:
    description = wait_until_ready(context, notify)
    if description is not None:
        return Ensured(description, spawned=False)
    tmux.check()
    liveness = probe(context)
    if liveness.life is Life.ALIVE and is_outdated(liveness.description):
        notify("replacing a session of another version")
        with contextlib.suppress(OSError):
            ask_session(context, "reason", reason="replaced by another version")
        end_session(context)
    elif liveness.life is not Life.DEAD or liveness.is_ending or tmux.is_up(context.tmux_socket):
        # A start that was interrupted, or a session that is about to end.
        notify("waiting for a session that is starting or ending")
        empty = liveness.life is Life.DEAD and not liveness.is_ending
        description = _wait_for_session(
            context, notify, _EMPTY_DEADLINE if empty else LEFTOVER_DEADLINE
        )
        if description is not None:
            return Ensured(description, spawned=False)
    ended = recorded_end(context)
    if ended is not None:
        seconds_ago = (datetime.now(UTC) - datetime.fromisoformat(ended["at"])).total_seconds()
        # The clock may have been put back since.
        notify(
            f"the last session ended {format_seconds(max(seconds_ago, 0.0))} ago: {ended['reason']}"
        )
    job = None if context.job is None else live_job(context)
    notify(f"starting the session {context.name}")
    spawn.remove_leftovers(context)
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
    description = _wait_for_session(context, notify, START_DEADLINE)
    if description is None:
        raise SessionError(spawn.describe_failed_start(context))
    return Ensured(description, spawned=True)


def _wait_for_session(context: Context, notify: Notify, timeout: float) -> dict[str, Any] | None:
    """The session's description once it is ready, or None once it has ended.

    The spawn lock is held, so no other call is starting one: programs that have no scheduler after
    ``timeout`` seconds will never have one, and are ended.
    """
    deadline = time.monotonic() + timeout
    next_probe = time.monotonic() + 0.2
    progress = Progress(notify, "still waiting for the session to be ready")
    while time.monotonic() < deadline:
        description = wait_until_ready(context, notify)
        if description is not None:
            return description
        progress.show()
        if time.monotonic() > next_probe:
            next_probe = time.monotonic() + 0.2
            # Asking the terminal server starts a process; most often some other is there already.
            if _is_gone(context) and not tmux.is_up(context.tmux_socket):
                spawn.wait_until_ended(context)
                tmux.kill(context.tmux_socket)  # it answers no more, and may not have left yet
                return None
        time.sleep(_TICK)
    if not _is_dead(context):
        raise unknown_liveness(context, f"it has not become ready within {timeout:.0f} s")
    end_session(context)
    return None


def _is_gone(context: Context) -> bool:
    liveness = probe(context, timeout=0.5)
    return liveness.life is Life.DEAD and not liveness.is_ending


def _is_dead(context: Context) -> bool:
    return probe(context, timeout=0.5).life is Life.DEAD
