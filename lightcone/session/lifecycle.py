"""A session's life: found, started, ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from lightcone.cluster.control import PROTOCOL, PYTHON
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session import control, spawn, tmux
from lightcone.session.liveness import Life, Liveness, probe, recorded_end
from lightcone.units import format_seconds

__all__ = ["Ensured", "ensure", "stop"]

_START_DEADLINE = 60.0
_LEFTOVER_DEADLINE = 20.0
_TICK = 0.02
Say = Callable[[str], None]


@dataclass(frozen=True)
class Ensured:
    """A living session: what it says of itself, and whether this call started it."""

    description: dict[str, Any]
    spawned: bool


def ensure(
    context: Context,
    say: Say = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Ensured:
    """The living session of ``context``, started if there is none; any number may call at once.

    Args:
        context: whose session.
        say: is told, in a line, what takes time.
        meanwhile: is called while a session is starting, for what the caller will need anyway.

    Raises:
        SessionError: where there is none and none can be started, or whether there is one cannot
            be told.
    """
    description = _ready(context)
    if description is not None:
        return Ensured(description, spawned=False)
    tmux.check()
    context.prepare()
    lock = _spawn_lock(context)
    deadline = time.monotonic() + _START_DEADLINE
    while True:
        # Whoever waits for the lock while another starts the session looks too, so that all go
        # on at once when it is there and not one after the other.
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.1, poll_interval=_TICK)
            break
        description = _ready(context)
        if description is not None:
            return Ensured(description, spawned=False)
        if time.monotonic() > deadline:
            raise SessionError(
                f"Somebody has been starting or ending this session for {_START_DEADLINE:.0f} s "
                f"(lock {context.spawn_lock}): look at 'lc session status', and run again."
            )
    try:
        return _ensure_locked(context, say, meanwhile)
    finally:
        lock.release()


def stop(context: Context, reason: str = "stopped by 'lc session stop'") -> bool:
    """End the session of ``context`` and everything of it; False when there was nothing to end.

    Recipes are asked to end and, after their grace, ended; on return no process, socket or key of
    the session is left.

    Raises:
        SessionError: where whether it lives cannot be told, or something of it did not end.
    """
    if not context.state.is_dir():
        return False
    with _held(_spawn_lock(context)):
        found = _settled(context)
        if found.life is Life.UNKNOWN:
            raise _unknown(context, found.why)
        if found.life is Life.ALIVE:
            with contextlib.suppress(OSError):
                control.ask(context.control_socket, "reason", reason=reason)
        was_there = found.life is Life.ALIVE or found.remains or tmux.is_up(context.tmux_socket)
        tmux.end(context.tmux_socket)
        spawn.wait_for_remains(context)
        spawn.tidy(context)
        return was_there


def _ready(context: Context) -> dict[str, Any] | None:
    """What the session says of itself once it has a worker, or None where nobody answers."""
    try:
        description = control.ask(context.control_socket, "describe")
    except OSError:
        return None
    if description.get("key") != context.key or _is_outdated(description):
        return None
    if description["ready"]:
        return description
    try:
        return control.ask(context.control_socket, "ready", _START_DEADLINE)
    except TimeoutError as error:
        raise SessionError(
            f"The session {context.name} has no worker and got none within "
            f"{_START_DEADLINE:.0f} s: look at 'lc session logs worker', or end it with "
            "'lc session stop'."
        ) from error
    except OSError:
        return None


def _is_outdated(description: dict[str, Any]) -> bool:
    """Whether this version cannot talk to the session, which is then to be replaced.

    Raises:
        SessionError: where it can neither be used nor, being in use, be replaced.
    """
    if (description["protocol"], description["python"]) == (PROTOCOL, PYTHON):
        return False
    if description["idle"]:
        return True
    users = ", ".join(run["name"] for run in description["runs"]) or "a program that holds results"
    raise SessionError(
        f"The session {description['name']} was started by lightcone {description['version']} with "
        f"Python {description['python']}, which this one cannot use, and replacing it would end "
        f"{users}: wait for that, or run 'lc session stop'."
    )


def _ensure_locked(context: Context, say: Say, meanwhile: Callable[[], None]) -> Ensured:
    description = _ready(context)
    if description is not None:
        return Ensured(description, spawned=False)
    found = probe(context)
    if found.life is Life.ALIVE and _is_outdated(found.description):
        say("replacing a session of another version")
        with contextlib.suppress(OSError):
            control.ask(context.control_socket, "reason", reason="replaced by another version")
        tmux.end(context.tmux_socket)
        spawn.wait_for_remains(context)
    elif found.life is not Life.DEAD or found.remains or tmux.is_up(context.tmux_socket):
        # One that somebody began to start and left, or one that is about to be gone.
        say("waiting for a session that is starting or ending")
        description = _await(context, _LEFTOVER_DEADLINE)
        if description is not None:
            return Ensured(description, spawned=False)
    ended = recorded_end(context)
    if ended is not None:
        ago = datetime.now(UTC) - datetime.fromisoformat(ended["at"])
        say(f"the last session ended {format_seconds(ago.total_seconds())} ago: {ended['reason']}")
    say(f"starting the session {context.name}")
    spawn.tidy(context)
    spawn.start(context)
    meanwhile()
    description = _await(context, _START_DEADLINE)
    if description is None:
        raise SessionError(spawn.failure(context))
    return Ensured(description, spawned=True)


def _await(context: Context, patience: float) -> dict[str, Any] | None:
    """The session's description once it is ready, or None once nothing of it is left.

    The spawn lock is held, so nobody else is starting one: what is there without an owner after
    ``patience`` seconds will never be one, and is ended.
    """
    deadline = time.monotonic() + patience
    next_look = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        description = _ready(context)
        if description is not None:
            return description
        if time.monotonic() > next_look:
            # Looking starts a process, so less often.
            next_look = time.monotonic() + 0.2
            if _is_dead(context) and not tmux.is_up(context.tmux_socket):
                spawn.wait_for_remains(context)
                return None
        time.sleep(_TICK)
    if not _is_dead(context):
        raise _unknown(context, f"it has not become ready within {patience:.0f} s")
    tmux.end(context.tmux_socket)
    spawn.wait_for_remains(context)
    return None


def _settled(context: Context) -> Liveness:
    """Whether the session lives; one that is starting or ending is given time to show it."""
    deadline = time.monotonic() + _LEFTOVER_DEADLINE
    while True:
        found = probe(context)
        if found.life is not Life.UNKNOWN or time.monotonic() > deadline:
            return found
        time.sleep(_TICK)


def _is_dead(context: Context) -> bool:
    return probe(context, timeout=0.5).life is Life.DEAD


def _unknown(context: Context, why: str) -> SessionError:
    return SessionError(
        f"Whether the session {context.name} is alive cannot be told, because {why}: look at "
        f"{context.state / 'logs'}, and run again when it answers or has ended."
    )


def _spawn_lock(context: Context) -> FileLock:
    return FileLock(context.spawn_lock, mode=0o600, fallback_to_soft=False)


@contextlib.contextmanager
def _held(lock: FileLock) -> Iterator[None]:
    try:
        lock.acquire(timeout=_START_DEADLINE, poll_interval=_TICK)
    except Timeout as error:
        raise SessionError(
            f"Somebody has been starting or ending this session for {_START_DEADLINE:.0f} s "
            f"(lock {lock.lock_file}): look at 'lc session status', and run again."
        ) from error
    try:
        yield
    finally:
        lock.release()
