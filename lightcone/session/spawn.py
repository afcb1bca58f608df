"""Starting the programs of a session, and removing its files after its end."""

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

from lightcone.engine.command_lines import (
    engine_settings,
    overview_command,
    scheduler_command,
    worker_command,
)
from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.project.sites import current_site
from lightcone.session.allocation import address_for_nodes, allocation_windows, program_environment
from lightcone.session.terminal import tmux
from lightcone.slurm.jobs import Job
from lightcone.system.files import FULL_DISK, is_full, remove, write_atomically
from lightcone.system.locks import Lock
from lightcone.wire.protocol import PROTOCOL, PYTHON
from lightcone.wire.tls import key_file

__all__ = [
    "create_key",
    "describe_failed_start",
    "remove_leftovers",
    "start_programs",
    "wait_until_ended",
]

# Valid whatever the clock says, which may be put right in the lifetime of the session.
# RFC 5280, 4.1.2.5: this end stands for none.
_VALIDITY = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def create_key(path: Path) -> None:
    """Write a new private key and its certificate to ``path``, as one PEM.

    The file has mode 0600. The certificate is self-signed, and its own authority: a program
    belongs to the session if it has the file.
    EC P-256 (FIPS 186-5), X.509 v3 (RFC 5280).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lightcone session")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALIDITY[0])
        .not_valid_after(_VALIDITY[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem += certificate.public_bytes(serialization.Encoding.PEM)
    write_atomically(path, pem, durable=False)


_LAST_LINES = 8

_END_MARGIN = 15.0


def start_programs(context: Context, job: Job | None) -> None:
    """Start the session's programs, with the spawn lock held and leftovers removed.

    Args:
        context: whose session.
        job: its allocation, where it has one.

    Raises:
        SessionError: where they cannot be started; some may have been.
        OSError: where that is for want of room on the disk.
    """
    environment = os.environ if job is None else program_environment()
    try:
        windows, instructions = _prepare(context, job)
        overview = overview_command(context.runtime)
        tmux.start(context.tmux_socket, context.name, windows, overview, context.state, environment)
        # Both while the programs, which wait for the instructions, import the engine. They give up
        # when the spawn lock, which the caller holds, is free and there are none.
        create_key(key_file(context.state))
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
    """The programs' command lines by role, and the session's instructions."""
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
            "scheduler": scheduler_command(context.state, pem, grace),
            "worker": worker_command(context.state, grace, socket.gethostname(), *_limits()),
        }
    else:
        host = address_for_nodes(job)
        windows = allocation_windows(context, job, pem, host)
        instructions |= {"job": job.id, "listen": host, "nodes": len(job.nodes)}
        instructions["ends_at"] = job.end_time
    settings = engine_settings(context.state, pem, nodes=job is not None)
    _write(context.state / "engine.json", settings)
    for role in windows:
        log = context.state / "logs" / f"{role}.log"
        with contextlib.suppress(FileNotFoundError):
            log.rename(log.with_suffix(".previous.log"))
    remove(context.record)  # the worker waits for the new one
    return windows, instructions


def _limits() -> tuple[int | None, int | None]:
    """The most processors and bytes that a session may use on this host."""
    site = current_site()
    if site is None or site.login is None:
        return None, None
    return min(int(site.login.cpus), os.cpu_count() or 1), site.login.memory


def _write(path: Path, value: dict[str, Any]) -> None:
    # No session outlives a loss of power, so none of its files has to.
    write_atomically(path, json.dumps(value, indent=1).encode(), durable=False)


def wait_until_ended(context: Context) -> None:
    """Wait until every process of the session has ended."""
    timeout = 2 * context.settings.grace + _END_MARGIN
    members = Lock(context.members_lock)
    if not members.acquire(timeout=timeout):
        raise SessionError(
            f"Some process of the session {context.name} has not ended within {timeout:.0f} s: "
            f"find it with 'fuser {context.members_lock}', or end it by 'lc session stop --force'."
        )
    members.release()


def remove_leftovers(context: Context) -> None:
    """Remove a dead session's files, except its logs and record."""
    for path in (context.control_socket, context.tmux_socket):
        remove(path)
    for name in ("spawn.json", "engine.json"):
        remove(context.state / name)
    for name in ("tls", "spill"):
        shutil.rmtree(context.state / name, ignore_errors=True)
        (context.state / name).mkdir(mode=0o700, exist_ok=True)


def describe_failed_start(context: Context) -> str:
    """Explain why the session ended while starting, with its last log lines."""
    lines: list[str] = []
    for role in ("scheduler", "worker"):
        with contextlib.suppress(OSError):
            content = (context.state / "logs" / f"{role}.log").read_text(errors="replace")
            log = content.splitlines()
            # A program that was ended while it wrote a traceback has logged its first line alone.
            complete = [line for line in log if not line.startswith("Traceback (")]
            lines += [f"  {role}: {line}" for line in complete[-_LAST_LINES:]]
            for line in log:
                if line.startswith("The ") and "set LIGHTCONE_SCRATCH to" in line:
                    return line  # a node has logged what to do
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
