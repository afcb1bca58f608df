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
from lightcone.files import FULL_DISK
from lightcone.session import allocated, control, members, past, spawn, tmux
from lightcone.session.lease import own
from lightcone.session.liveness import Life, Liveness, probe, record_end, recorded_end
from lightcone.units import format_seconds

__all__ = ["Ensured", "ensure", "stop"]

_START_DEADLINE = 60.0
_LEFTOVER_DEADLINE = 20.0
# What holds no lock of a session by then is none that is starting.
_EMPTY_DEADLINE = 3.0
_PROGRESS = 5.0
_TICK = 0.02
# Of each of those who wait for another call, who may be many.
_WAITING_TICK = 0.05
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
    lease: str | None = None,
) -> Ensured:
    """The living session of ``context``, started if there is none; any number may call at once.

    Args:
        context: whose session.
        say: is told, in a line, what takes time.
        meanwhile: is called while a session is starting, for what the caller will need anyway.
        lease: the lease to take; by default that of this process's environment, if any.

    Raises:
        SessionError: where there is none and none can be started, or whether there is one cannot
            be told.
    """
    lease = lease or own()
    ensured = _ensured(context, say, meanwhile)
    if lease is not None:
        with contextlib.suppress(OSError):
            control.ask(context, "lease", lease=lease)
    return ensured


def _ensured(context: Context, say: Say, meanwhile: Callable[[], None]) -> Ensured:
    description = _ready(context, say)
    if description is not None:
        return Ensured(description, spawned=False)
    try:
        return _ensure(context, say, meanwhile)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise SessionError(
            f"The session {context.name} cannot be started, as there is no room left on the disk "
            f"of {error.filename or context.state}: make some, or set LIGHTCONE_SCRATCH to a "
            "directory on another."
        ) from error


def _ensure(context: Context, say: Say, meanwhile: Callable[[], None]) -> Ensured:
    context.prepare()
    lock = _spawn_lock(context)
    deadline = time.monotonic() + _START_DEADLINE
    progress = _Progress(say, "waiting for another call that is starting or ending the session")
    while True:
        # Whoever waits for the lock while another starts the session looks too, so that all go
        # on at once when it is there and not one after the other.
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            break
        description = _ready(context, say)
        if description is not None:
            return Ensured(description, spawned=False)
        progress.show()
        if time.monotonic() > deadline:
            raise _locked(context)
        time.sleep(_WAITING_TICK)
    try:
        return _ensure_locked(context, say, meanwhile)
    finally:
        lock.release()


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
    with _held(context):
        found = probe(context) if force else _settled(context)
        if found.life is Life.UNKNOWN and not force:
            raise _unknown(context, found.why)
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
        _end(context)
        if context.job is not None:
            allocated.end_steps(context)
        record_end(context, reason)
        spawn.tidy(context)
        return was_there


def _ready(context: Context, say: Say) -> dict[str, Any] | None:
    """What the session says of itself once it has a worker, or None where nobody answers."""
    try:
        description = control.ask(context, "describe")
    except OSError:
        return None
    if description.get("key") != context.key or _is_outdated(description):
        return None
    deadline = time.monotonic() + _START_DEADLINE
    progress = _Progress(say, "waiting for the session's worker")
    while True:
        left = deadline - time.monotonic()
        try:
            if not description["ready"]:
                description = control.ask(context, "ready", max(min(left, _PROGRESS), _TICK))
            workers, nodes = len(description["workers"]), description.get("nodes", 1)
            if workers < nodes:
                say(f"{workers} of {nodes} nodes have a worker: see 'lc session logs worker'")
            return description
        except TimeoutError as error:
            if left <= _PROGRESS:
                raise SessionError(
                    f"The session {context.name} has no worker and got none within "
                    f"{_START_DEADLINE:.0f} s: look at 'lc session logs worker', or end it with "
                    "'lc session stop'."
                ) from error
            progress.show()
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
    description = _ready(context, say)
    if description is not None:
        return Ensured(description, spawned=False)
    tmux.check()
    found = probe(context)
    if found.life is Life.ALIVE and _is_outdated(found.description):
        say("replacing a session of another version")
        with contextlib.suppress(OSError):
            control.ask(context, "reason", reason="replaced by another version")
        _end(context)
    elif found.life is not Life.DEAD or found.remains or tmux.is_up(context.tmux_socket):
        # One that somebody began to start and left, or one that is about to be gone.
        say("waiting for a session that is starting or ending")
        empty = found.life is Life.DEAD and not found.remains
        description = _await(context, say, _EMPTY_DEADLINE if empty else _LEFTOVER_DEADLINE)
        if description is not None:
            return Ensured(description, spawned=False)
    ended = recorded_end(context)
    if ended is not None:
        ago = (datetime.now(UTC) - datetime.fromisoformat(ended["at"])).total_seconds()
        # The clock may have been put back since.
        say(f"the last session ended {format_seconds(max(ago, 0.0))} ago: {ended['reason']}")
    job = None if context.job is None else allocated.granted(context)
    say(f"starting the session {context.name}")
    spawn.tidy(context)
    if job is not None:
        allocated.end_steps(context)
    try:
        spawn.start(context, job)
    except BaseException:
        _end(context)
        raise
    meanwhile()
    if job is not None:
        past.prune(context)
    description = _await(context, say, _START_DEADLINE)
    if description is None:
        raise SessionError(spawn.failure(context))
    return Ensured(description, spawned=True)


def _await(context: Context, say: Say, patience: float) -> dict[str, Any] | None:
    """The session's description once it is ready, or None once nothing of it is left.

    The spawn lock is held, so nobody else is starting one: what is there without an owner after
    ``patience`` seconds will never be one, and is ended.
    """
    deadline = time.monotonic() + patience
    next_look = time.monotonic() + 0.2
    progress = _Progress(say, "still waiting for the session to be ready")
    while time.monotonic() < deadline:
        description = _ready(context, say)
        if description is not None:
            return description
        progress.show()
        if time.monotonic() > next_look:
            next_look = time.monotonic() + 0.2
            # Asking the terminal server starts a process; most often some other is there already.
            if _is_gone(context) and not tmux.is_up(context.tmux_socket):
                spawn.wait_for_remains(context)
                return None
        time.sleep(_TICK)
    if not _is_dead(context):
        raise _unknown(context, f"it has not become ready within {patience:.0f} s")
    _end(context)
    return None


def _end(context: Context) -> None:
    """End the session's programs in good order, its terminal server reachable or not."""
    members.resume(context)
    if not tmux.end(context.tmux_socket):
        members.ask(context)
    spawn.wait_for_remains(context)
    tmux.kill(context.tmux_socket)


def _settled(context: Context) -> Liveness:
    """Whether the session lives; one that is starting or ending is given time to show it."""
    deadline = time.monotonic() + _LEFTOVER_DEADLINE
    while True:
        found = probe(context)
        if found.life is not Life.UNKNOWN or time.monotonic() > deadline:
            return found
        time.sleep(_TICK)


def _is_gone(context: Context) -> bool:
    found = probe(context, timeout=0.5)
    return found.life is Life.DEAD and not found.remains


def _is_dead(context: Context) -> bool:
    return probe(context, timeout=0.5).life is Life.DEAD


def _unknown(context: Context, why: str) -> SessionError:
    return SessionError(
        f"Whether the session {context.name} is alive cannot be told, because {why}: run again "
        "when it answers or has ended, or end it with all that it runs by 'lc session stop "
        f"--force'; its logs are in {context.state / 'logs'}."
    )


def _locked(context: Context) -> SessionError:
    who = " and ".join(f"process {pid}" for pid in members.holders(context.spawn_lock))
    return SessionError(
        f"Somebody has been starting or ending this session for {_START_DEADLINE:.0f} s "
        f"({f'{who} holds ' if who else ''}{context.spawn_lock}): look at 'lc session status', "
        "and run again."
    )


class _Progress:
    """Says now and then how long something has taken."""

    def __init__(self, say: Say, what: str) -> None:
        self._say = say
        self._what = what
        self._begun = time.monotonic()
        self._next = _PROGRESS

    def show(self) -> None:
        passed = time.monotonic() - self._begun
        if passed >= self._next:
            self._next += _PROGRESS
            self._say(f"{self._what} ({passed:.0f} s)")


def _spawn_lock(context: Context) -> FileLock:
    return FileLock(context.spawn_lock, mode=0o600, fallback_to_soft=False)


@contextlib.contextmanager
def _held(context: Context) -> Iterator[None]:
    lock = _spawn_lock(context)
    try:
        lock.acquire(timeout=_START_DEADLINE, poll_interval=_TICK)
    except Timeout as error:
        raise _locked(context) from error
    try:
        yield
    finally:
        lock.release()
