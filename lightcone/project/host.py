"""This host: its boot id, its address, its directories for this user."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from functools import cache
from pathlib import Path

from lightcone.project.settings import Settings

__all__ = ["SOCKET_PATH_MAX", "address_facing", "boot_id", "own_scratch", "runtime_directory"]

_ANY_PORT = 9
# sockaddr_un.sun_path, less the final NUL; macOS has four bytes fewer than Linux.
SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107


@cache
def boot_id() -> str:
    """Return a hex id unique to this host since its last boot."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        from lightcone.system.processes import run_quiet

        text = socket.gethostname() + (run_quiet("/usr/sbin/sysctl", "-n", "kern.boottime") or "")
    return hashlib.sha256(text.strip().encode()).hexdigest()


def address_facing(host: str) -> str:
    """Return this host's address on the route to another.

    Nothing is sent to the other host.

    Raises:
        OSError: where there is no route.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing: it only chooses the route
        return str(probe.getsockname()[0])


def runtime_directory(settings: Settings) -> Path:
    """Return the directory of this user's session sockets on this host."""
    # Not XDG_RUNTIME_DIR: it differs between shells of one user and vanishes at logout.
    return settings.runtime_dir or Path(f"/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)


def own_scratch() -> Path:
    """Return this user's default scratch directory on this host."""
    return Path(f"/var/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)
