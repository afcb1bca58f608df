"""Which context a call is in: what a session belongs to, and where its files are."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lightcone.errors import SessionError, SpecError
from lightcone.files import check_directory, check_locks, private_directory
from lightcone.settings import Settings, load_settings

__all__ = [
    "ADDRESS_VARIABLE",
    "SPEC_FILE",
    "Context",
    "boot_id",
    "external_address",
    "find_root",
    "here",
    "of",
    "runtime_directory",
]

SPEC_FILE = "astra.yaml"
ADDRESS_VARIABLE = "DASK_SCHEDULER_ADDRESS"
# sockaddr_un.sun_path, less the final NUL; macOS has four bytes fewer than Linux.
_SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107


@dataclass(frozen=True)
class Context:
    """What a session belongs to: a project directory on this host.

    Attributes:
        key: short, unique and the same for every caller of the context.
        kind: ``"project"``.
        root: the project's directory, its real path.
        settings: the settings in force.
        scratch: the directory that holds sessions, locks and logs.
        runtime: the directory that holds the session's sockets, on this host.
    """

    key: str
    kind: str
    root: Path
    settings: Settings
    scratch: Path
    runtime: Path

    @property
    def name(self) -> str:
        """The session's name for people, also that of its terminal session."""
        directory = re.sub(r"[^A-Za-z0-9_-]+", "-", self.root.name).strip("-")[:40] or "root"
        return f"lc-{directory}-{self.key}"

    @property
    def state(self) -> Path:
        """Where the session keeps its locks, record, keys, logs and spilled data.

        The boot id is part of the name: scratch may be shared by hosts that each have a session
        for a project at the same path.
        """
        return self.scratch / ".lightcone" / "sessions" / f"{self.key}-{boot_id()[:8]}"

    @property
    def claims(self) -> Path:
        """Where the locks on outputs are."""
        return self.scratch / ".lightcone" / "claims"

    @property
    def hashes(self) -> Path:
        """Where the hashes of large inputs are kept, so that each is read once."""
        return self.scratch / ".lightcone" / "hashes"

    @property
    def control_socket(self) -> Path:
        """The socket that the living session answers on."""
        return self.runtime / "control"

    @property
    def tmux_socket(self) -> Path:
        """The socket of the session's own terminal server."""
        return self.runtime / "tmux"

    @property
    def owner_lock(self) -> Path:
        """Held by the scheduler for as long as it lives."""
        return self.state / "owner.lock"

    @property
    def members_lock(self) -> Path:
        """Held, shared, by every guard and program of the session for as long as they live."""
        return self.state / "members.lock"

    @property
    def spawn_lock(self) -> Path:
        """Held by whoever starts or ends the session."""
        return self.state / "spawn.lock"

    @property
    def record(self) -> Path:
        """``session.json``: what the scheduler published about itself."""
        return self.state / "session.json"

    def prepare(self) -> None:
        """Make the directories, private to this user, and check that locks work in them.

        Raises:
            SessionError: where a directory or the locks in it cannot be had.
        """
        remedy = "set LIGHTCONE_RUNTIME_DIR to a short path that is yours"
        if self.settings.runtime_dir is None:
            private_directory(self.runtime.parent, remedy)
        else:  # it may be a directory that the user has for other things too
            check_directory(self.runtime.parent, remedy)
        private_directory(self.runtime, remedy)
        longest = len(os.fsencode(self.control_socket))
        if longest > _SOCKET_PATH_MAX:
            raise SessionError(
                f"The socket path {self.control_socket} has {longest} bytes, more than the "
                f"{_SOCKET_PATH_MAX} that this system allows: {remedy}."
            )
        remedy = "set LIGHTCONE_SCRATCH to a directory that is yours"
        if self.settings.scratch is None:  # its name can be guessed, in a directory open to all
            private_directory(self.scratch, remedy)
        private_directory(self.scratch / ".lightcone", remedy)
        for path in (self.state, self.state / "logs", self.state / "tls", self.state / "spill"):
            private_directory(path, remedy)
        private_directory(self.claims, remedy)
        check_locks(self.state)


def find_root(start: Path) -> Path:
    """The real path of the nearest directory, at or above ``start``, with a spec in it.

    Raises:
        SpecError: where there is none.
    """
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / SPEC_FILE).is_file():
            return directory
    raise SpecError(
        f"There is no {SPEC_FILE} in {start} or above it: go to the project's directory."
    )


def here(start: Path | None = None) -> Context:
    """The context of a call made in ``start`` (default: the working directory).

    Raises:
        SpecError: outside any project.
        SettingsError: where a setting cannot be used.
    """
    try:
        start = start or Path.cwd()
    except FileNotFoundError as error:
        raise SpecError(
            "The working directory no longer exists: go to the project's directory."
        ) from error
    return of(find_root(start))


def of(root: Path) -> Context:
    """The context of a directory, given as its real path, whether or not there is a project.

    Raises:
        SettingsError: where a setting cannot be used.
    """
    settings = load_settings(root)
    key = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return Context(
        key=key,
        kind="project",
        root=root,
        settings=settings,
        scratch=settings.scratch or Path(f"/var/tmp/lightcone-{os.getuid()}"),  # noqa: S108 (checked)
        runtime=runtime_directory(settings) / key,
    )


def external_address() -> str | None:
    """The address of the cluster that the user wants used instead of a session, if any."""
    return os.environ.get(ADDRESS_VARIABLE) or None


def runtime_directory(settings: Settings) -> Path:
    """The directory of all this user's session sockets on this host."""
    # Not XDG_RUNTIME_DIR: it differs between shells of one user and vanishes at logout.
    return settings.runtime_dir or Path(f"/tmp/lightcone-{os.getuid()}")  # noqa: S108 (checked)


@cache
def boot_id() -> str:
    """What tells this running host from every other and from itself before a reboot, in hex."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        text = socket.gethostname() + result.stdout
    return hashlib.sha256(text.strip().encode()).hexdigest()
