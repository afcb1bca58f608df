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

from lightcone.cluster import command
from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.files import Lock, write_atomically
from lightcone.session import credentials, tmux

__all__ = ["certificate", "failure", "start", "tidy", "wait_for_remains"]

_LAST_LINES = 8
_MARGIN = 15.0


def certificate(state: Path) -> Path:
    """The file with the key and certificate of the session at ``state``."""
    return state / "tls" / "session.pem"


def start(context: Context) -> None:
    """Start the session's programs; the caller holds the spawn lock and has tidied."""
    grace = context.settings.grace
    pem = certificate(context.state)
    credentials.create(pem)
    instructions = {
        "instance": secrets.token_hex(8),
        "key": context.key,
        "kind": context.kind,
        "name": context.name,
        "root": str(context.root),
        "state_dir": str(context.state),
        "runtime_dir": str(context.runtime),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "idle_timeout_s": context.settings.idle_timeout,
        "grace_s": grace,
    }
    _write(context.state / "engine.json", command.engine_settings(context.state, pem))
    _write(context.state / "spawn.json", instructions)
    windows = {
        "scheduler": command.scheduler(context.state, grace),
        "worker": command.worker(context.state, grace, socket.gethostname()),
    }
    for role in windows:
        log = context.state / "logs" / f"{role}.log"
        with contextlib.suppress(FileNotFoundError):
            log.rename(log.with_suffix(".previous.log"))
    context.record.unlink(missing_ok=True)  # the worker waits for the new one
    tmux.start(context.tmux_socket, context.name, windows, context.state)


def _write(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=1).encode())


def wait_for_remains(context: Context) -> None:
    """Wait until every process of the session has ended; its guards see to that."""
    patience = 2 * context.settings.grace + _MARGIN
    members = Lock(context.members_lock)
    if not members.acquire(timeout=patience):
        raise SessionError(
            f"Some process of the session {context.name} has not ended within {patience:.0f} s: "
            f"find it with 'fuser {context.members_lock}'."
        )
    members.release()


def tidy(context: Context) -> None:
    """Remove what a dead session left; its logs and the record of its end stay."""
    for path in (context.control_socket, context.tmux_socket):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for name in ("spawn.json", "engine.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(context.state / name)
    for name in ("tls", "spill"):
        shutil.rmtree(context.state / name, ignore_errors=True)
        (context.state / name).mkdir(mode=0o700, exist_ok=True)


def failure(context: Context) -> str:
    """One sentence on why the session that was just started is gone, with its last lines."""
    lines: list[str] = []
    for role in ("scheduler", "worker"):
        with contextlib.suppress(OSError):
            log = (context.state / "logs" / f"{role}.log").read_text(errors="replace")
            lines += [f"  {role}: {line}" for line in log.splitlines()[-_LAST_LINES:]]
    return (
        f"The session {context.name} ended while it was starting: its last lines stand below, "
        f"its logs in {context.state / 'logs'}.\n" + "\n".join(lines)
    )
