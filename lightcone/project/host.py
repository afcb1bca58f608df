"""This host: its boot id, its address, its directories for this user."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from functools import cache
from pathlib import Path

from lightcone.project.settings import Settings

__all__ = [
    "SOCKET_PATH_MAX",
    "address_facing",
    "boot_id",
    "machine_id",
    "own_scratch",
    "runtime_directory",
]

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


# The kernel's numbers of the namespaces that it starts with, of host names and of processes.
_FIRST_NAMESPACES = {"uts": 0xEFFFFFFE, "pid": 0xEFFFFFFC}


@cache
def machine_id() -> str | None:
    """Return a hex id of this host that outlasts its boots, or None where none is certain.

    A name alone is not certain, because hosts may share one. Neither is anything in a container,
    because containers of one image look alike on every host.
    """
    if sys.platform == "darwin":
        from lightcone.system.processes import run_quiet

        registry = run_quiet("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice") or ""
        match = re.search(r'"IOPlatformUUID" = "([^"]+)"', registry)
        installed = match[1] if match else ""
    else:
        try:
            for name, number in _FIRST_NAMESPACES.items():
                if os.stat(f"/proc/self/ns/{name}").st_ino != number:
                    return None
            installed = Path("/etc/machine-id").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    if not re.fullmatch(r"[0-9A-Fa-f-]{32,36}", installed):
        return None
    # Nodes of a cluster that start from one image have one machine id, but each its name.
    return hashlib.sha256(f"{installed} {socket.gethostname()}".encode()).hexdigest()


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
