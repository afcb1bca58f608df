"""Starting the programs of a session, and clearing up after them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone import sites
from lightcone.cluster import command
from lightcone.cluster.protocol import PROTOCOL, PYTHON
from lightcone.cluster.tls import key_file
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.files import FULL_DISK, is_full, remove, write_atomically
from lightcone.locks import Lock
from lightcone.session import allocated, credentials, tmux
from lightcone.slurm.jobs import Job

__all__ = ["failure", "start", "tidy", "wait_for_remains"]

_LAST_LINES = 8
_MARGIN = 15.0


def start(context: Context, job: Job | None) -> None:
    """Start the session's programs; the caller holds the spawn lock and has tidied.

    Args:
        context: whose session.
        job: its allocation, where it has one.

    Raises:
        SessionError: where they cannot be started; some may have been.
        OSError: where that is for want of room on the disk.
    """
    environment = os.environ if job is None else allocated.environment()
    try:
        windows, instructions = _prepare(context, job)
        overview = command.overview(context.runtime)
        tmux.start(context.tmux_socket, context.name, windows, overview, context.state, environment)
        # Both while the programs, which wait for the instructions, import the engine. They give up
        # when the spawn lock, which the caller holds, is free and there are none.
        credentials.create(key_file(context.state))
        _write(context.state / "spawn.json", instructions)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise  # the caller says so
        raise SessionError(
            f"The session {context.name} cannot be started, as {context.state} cannot be written "
            f"to ({error.strerror}): make room there, or set LIGHTCONE_SCRATCH to a directory "
            "elsewhere."
        ) from error


def _prepare(context: Context, job: Job | None) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The programs' command lines, by their part in the session, and what they are to be told."""
    grace = context.settings.grace
    pem = key_file(context.state)
    instructions: dict[str, Any] = {
        "protocol": PROTOCOL,
        "python": PYTHON,
        "instance": secrets.token_hex(8),
        "key": context.key,
        "kind": context.kind,
        "name": context.name,
        "root": str(context.root),
        "state_dir": str(context.state),
        "runtime_dir": str(context.runtime),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "idle_timeout_s": context.settings.idle_timeout,
        "forgotten_timeout_s": context.settings.forgotten_timeout,
        "grace_s": grace,
        "nodes": 1,
    }
    if job is None:
        windows = {
            "scheduler": command.scheduler(context.state, pem, grace),
            "worker": command.worker(context.state, grace, socket.gethostname(), *_limits()),
        }
    else:
        host = allocated.address(job)
        windows = allocated.windows(context, job, pem, host)
        instructions |= {"job": job.id, "listen": host, "nodes": len(job.nodes)}
        instructions["ends_at"] = job.end_time
    settings = command.engine_settings(context.state, pem, nodes=job is not None)
    _write(context.state / "engine.json", settings)
    for role in windows:
        log = context.state / "logs" / f"{role}.log"
        with contextlib.suppress(FileNotFoundError):
            log.rename(log.with_suffix(".previous.log"))
    remove(context.record)  # the worker waits for the new one
    return windows, instructions


def _limits() -> tuple[int | None, int | None]:
    """The processors and bytes that a session here may have at most: on login nodes, few."""
    site = sites.here()
    if site is None or site.login is None:
        return None, None
    return min(int(site.login.cpus), os.cpu_count() or 1), site.login.memory


def _write(path: Path, value: dict[str, Any]) -> None:
    # No session outlives a loss of power, so none of its files has to.
    write_atomically(path, json.dumps(value, indent=1).encode(), durable=False)


def wait_for_remains(context: Context) -> None:
    """Wait until every process of the session has ended; its guards see to that."""
    patience = 2 * context.settings.grace + _MARGIN
    members = Lock(context.members_lock)
    if not members.acquire(timeout=patience):
        raise SessionError(
            f"Some process of the session {context.name} has not ended within {patience:.0f} s: "
            f"find it with 'fuser {context.members_lock}', or end it by 'lc session stop --force'."
        )
    members.release()


def tidy(context: Context) -> None:
    """Remove what a dead session left; its logs and the record of its end stay."""
    for path in (context.control_socket, context.tmux_socket):
        remove(path)
    for name in ("spawn.json", "engine.json"):
        remove(context.state / name)
    for name in ("tls", "spill"):
        shutil.rmtree(context.state / name, ignore_errors=True)
        (context.state / name).mkdir(mode=0o700, exist_ok=True)


def failure(context: Context) -> str:
    """One sentence on why the session that was just started is gone, with its last lines."""
    lines: list[str] = []
    for role in ("scheduler", "worker"):
        with contextlib.suppress(OSError):
            text = (context.state / "logs" / f"{role}.log").read_text(errors="replace")
            log = text.splitlines()
            # What was ended while it wrote a traceback has told no more than that one begins.
            told = [line for line in log if not line.startswith("Traceback (")]
            lines += [f"  {role}: {line}" for line in told[-_LAST_LINES:]]
            for line in log:
                if line.startswith("The ") and "set LIGHTCONE_SCRATCH to" in line:
                    return line  # a sentence of a node's
    if is_full(context.state):
        return (
            f"The session {context.name} ended while it was starting, as there is no room left on "
            f"the disk of {context.state}: make some, or set LIGHTCONE_SCRATCH to a directory on "
            "another."
        )
    if not lines:
        return (
            f"The session {context.name} ended while it was starting, and left nothing in its logs "
            f"in {context.state / 'logs'}: run 'lc doctor'."
        )
    return (
        f"The session {context.name} ended while it was starting: its last lines stand below, "
        f"its logs in {context.state / 'logs'}.\n" + "\n".join(lines)
    )
