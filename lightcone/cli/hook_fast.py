"""The hooks of an agent: name a conversation's lease, and release it.

An agent waits for its hooks. So this needs the standard library alone, puts what takes time into
a process of its own, prints nothing and succeeds, whatever it is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import stat
import time
from collections.abc import Mapping

from lightcone.project.variables import LEASE_VARIABLE

__all__ = ["EVENTS", "lease_name", "read_input", "run"]

EVENTS = ("session-start", "session-end")
# Of the reasons that an agent gives, those after which the conversation does not go on.
_FINAL_REASONS = frozenset({"logout", "prompt_input_exit", "other"})
_INPUT_SECONDS = 0.5
_INPUT_BYTES = 65536
_TOTAL_SECONDS = 1
_RELEASE_SECONDS = 30


def run(event: str) -> None:
    """Handle one of ``EVENTS``, with the agent's JSON on standard input.

    Ends the process, with 0, where that takes a second; otherwise returns.
    """
    with contextlib.suppress(Exception):
        # What ends the terminal comes here too, just when there is something to be done.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.alarm(_TOTAL_SECONDS)
        message = read_input(0)
        lease = lease_name(message.get("session_id"))
        if lease is None:
            return
        reason, directory = message.get("reason"), message.get("cwd")
        if event == "session-start":
            _name(lease)
        elif isinstance(reason, str) and reason in _FINAL_REASONS:
            _release_detached(lease, directory if isinstance(directory, str) else "/")


def read_input(descriptor: int, seconds: float = _INPUT_SECONDS) -> Mapping[str, object]:
    """Read a JSON object within ``seconds``; an empty one where there is none.

    Input longer than 64 KiB is ignored, as no agent sends that.
    """
    deadline = time.monotonic() + seconds
    data = b""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        while len(data) <= _INPUT_BYTES:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                break
            chunk = os.read(descriptor, _INPUT_BYTES)
            if not chunk:
                break
            data += chunk
        if len(data) <= _INPUT_BYTES:
            value = json.loads(data)
            if isinstance(value, dict):
                return value
    return {}


def lease_name(session_id: object) -> str | None:
    """The lease name of a conversation: always the same, and safe in a shell."""
    if not isinstance(session_id, str) or not session_id:
        return None
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", session_id):
        return f"claude-{session_id}"
    from hashlib import sha256

    return f"claude-{sha256(session_id.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _name(lease: str) -> None:
    """Export the lease's name to the conversation's shells."""
    path = os.environ.get("CLAUDE_ENV_FILE")
    if not path:
        return
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        # Another program may have left the last line open.
        closed = status.st_size == 0 or os.pread(descriptor, 1, status.st_size - 1) == b"\n"
        line = f"export {LEASE_VARIABLE}={lease}\n"
        os.write(descriptor, (line if closed else f"\n{line}").encode())
    finally:
        os.close(descriptor)


def _release_detached(lease: str, directory: str) -> None:
    """Release the lease in a process that survives the agent and its terminal."""
    if os.fork():
        return
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_RELEASE_SECONDS)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, 4096)
        from lightcone.session.lease import release_lease

        release_lease(lease, directory)
    finally:
        os._exit(0)
