"""This host: what tells it from others, and where a user's files are on it alone."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from functools import cache
from pathlib import Path

from lightcone.settings import Settings

__all__ = ["SOCKET_PATH_MAX", "boot_id", "own_scratch", "runtime_directory"]

# sockaddr_un.sun_path, less the final NUL; macOS has four bytes fewer than Linux.
SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107


@cache
def boot_id() -> str:
    """What tells this running host from every other and from itself before a reboot, in hex."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
        import subprocess

        result = subprocess.run(command, capture_output=True, text=True, check=False)
        text = socket.gethostname() + result.stdout
    return hashlib.sha256(text.strip().encode()).hexdigest()


def runtime_directory(settings: Settings) -> Path:
    """The directory of all this user's session sockets on this host."""
    # Not XDG_RUNTIME_DIR: it differs between shells of one user and vanishes at logout.
    return settings.runtime_dir or Path(f"/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)


def own_scratch() -> Path:
    """The scratch directory where none is named: this user's, on this host."""
    return Path(f"/var/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)
