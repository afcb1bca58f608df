"""This host: what tells it from others, and where a user's files are on it alone."""

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
    """What tells this running host from every other and from itself before a reboot, in hex."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        from lightcone.system.processes import run_quiet

        text = socket.gethostname() + (run_quiet("/usr/sbin/sysctl", "-n", "kern.boottime") or "")
    return hashlib.sha256(text.strip().encode()).hexdigest()


def address_facing(host: str) -> str:
    """The address of this host on its way to another, which is not asked for it.

    Raises:
        OSError: where there is no way.
    """
    family, kind, _, _, where = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(where)  # sends nothing: it only chooses the way
        return str(probe.getsockname()[0])


def runtime_directory(settings: Settings) -> Path:
    """The directory of all this user's session sockets on this host."""
    # Not XDG_RUNTIME_DIR: it differs between shells of one user and vanishes at logout.
    return settings.runtime_dir or Path(f"/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)


def own_scratch() -> Path:
    """The scratch directory where none is named: this user's, on this host."""
    return Path(f"/var/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)
