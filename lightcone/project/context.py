"""The context of a call: its project or allocation, and their directories."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from lightcone.errors import SessionError, SpecError
from lightcone.project.host import SOCKET_PATH_MAX, boot_id, own_scratch, runtime_directory
from lightcone.project.settings import Settings, load_settings
from lightcone.project.sites import site_scratch
from lightcone.project.variables import ADDRESS_VARIABLE, OWN_ADDRESS_VARIABLE
from lightcone.slurm.allocation import job_id
from lightcone.slurm.allocation_file import live_allocation
from lightcone.system.files import check_directory, check_own, private_directory
from lightcone.system.locks import check_locks

__all__ = [
    "SPEC_FILE",
    "Context",
    "allocation_file",
    "context_of",
    "current_context",
    "external_address",
    "find_root",
]

SPEC_FILE = "astra.yaml"
_REMEDY_FOR_SOCKETS = "set LIGHTCONE_RUNTIME_DIR to a short path that is yours"
_REMEDY_FOR_SCRATCH = "set LIGHTCONE_SCRATCH to a directory that is yours"


@dataclass(frozen=True)
class Context:
    """The project on this host, or the allocation, that a session serves.

    Attributes:
        key: short, unique and the same for every caller of the context.
        kind: ``"project"`` or ``"allocation"``.
        root: the real path of the project's directory.
        settings: the settings in force.
        scratch: the directory that holds sessions, locks and logs.
        runtime: the directory that holds the session's sockets, on this host.
        job: the allocation's number.
    """

    key: str
    kind: str
    root: Path
    settings: Settings
    scratch: Path
    runtime: Path
    job: int | None = None

    @property
    def name(self) -> str:
        """The session's name for people, also that of its terminal session."""
        if self.job is not None:
            return f"lc-{self.key}"
        directory = re.sub(r"[^A-Za-z0-9_-]+", "-", self.root.name).strip("-")[:40] or "root"
        return f"lc-{directory}-{self.key}"

    @property
    def state(self) -> Path:
        """The directory of the session's locks, record, keys, logs and spilled data.

        The boot id is part of a project's: scratch may be shared by hosts that each have a session
        for a project at the same path. An allocation's is found from all of its hosts.
        """
        if self.job is not None:
            return self.scratch / ".lightcone" / "sessions" / self.key
        return self.scratch / ".lightcone" / "sessions" / f"{self.key}-{boot_id()[:8]}"

    @property
    def claims(self) -> Path:
        """The directory of the locks on outputs."""
        return self.scratch / ".lightcone" / "claims"

    @property
    def hashes(self) -> Path:
        """The directory of the cached hashes of large inputs."""
        return self.scratch / ".lightcone" / "hashes"

    @property
    def control_socket(self) -> Path:
        """The socket on which the scheduler serves requests."""
        return self.runtime / "control"

    @property
    def tmux_socket(self) -> Path:
        """The socket of the session's own terminal server."""
        return self.runtime / "tmux"

    @property
    def owner_lock(self) -> Path:
        """The lock that the scheduler holds for its lifetime."""
        return self.state / "owner.lock"

    @property
    def members_lock(self) -> Path:
        """The lock that all guards and programs of the session share."""
        return self.state / "members.lock"

    @property
    def spawn_lock(self) -> Path:
        """The lock that a call holds while it starts or ends the session."""
        return self.state / "spawn.lock"

    @property
    def record(self) -> Path:
        """``session.json``: the scheduler's published record of itself."""
        return self.state / "session.json"

    def check(self) -> None:
        """Raise where an existing directory belongs to another user.

        Other users can create theirs first. Changes nothing, and passes where there are none.

        Raises:
            SessionError: where one is a link or another user's.
        """
        for path, remedy in self._exposed():
            check_own(path, remedy)

    def create_directories(self) -> None:
        """Create the directories, private to this user, before others can.

        Raises:
            SessionError: where one is a link or another user's, or cannot be made.
        """
        for path, remedy in self._exposed():
            private_directory(path, remedy)

    def _exposed(self) -> list[tuple[Path, str]]:
        """List the directories in places open to other users, each with its remedy."""
        sockets = [self.runtime]
        if self.settings.runtime_dir is None:  # its name can be guessed, in a place open to all
            sockets.insert(0, self.runtime.parent)
        scratch = [self.scratch / ".lightcone"]
        if self.scratch == own_scratch():
            scratch.insert(0, self.scratch)
        return [
            *((path, _REMEDY_FOR_SOCKETS) for path in sockets),
            *((path, _REMEDY_FOR_SCRATCH) for path in scratch),
        ]

    def prepare(self) -> None:
        """Create all that a session needs, private to this user; check its locks.

        Raises:
            SessionError: where a directory or the locks in it cannot be had.
        """
        if self.settings.runtime_dir is not None:
            # It may be a directory that the user has for other things too.
            check_directory(self.runtime.parent, _REMEDY_FOR_SOCKETS)
        length = len(os.fsencode(self.control_socket))
        if length > SOCKET_PATH_MAX:
            raise SessionError(
                f"The socket path {self.control_socket} has {length} bytes, more than the "
                f"{SOCKET_PATH_MAX} that this system allows: {_REMEDY_FOR_SOCKETS}."
            )
        self.create_directories()
        remedy = _REMEDY_FOR_SCRATCH
        for path in (self.state, self.state / "logs", self.state / "tls", self.state / "spill"):
            private_directory(path, remedy)
        private_directory(self.claims, remedy)
        for path in (self.owner_lock, self.members_lock, self.spawn_lock):
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise SessionError(
                    f"The lock file {path} is not a file but a link or a directory: remove it."
                )
        check_locks(self.state)


def find_root(start: Path) -> Path:
    """Find the nearest directory with a spec, at or above ``start``.

    The result is its real path.

    Raises:
        SpecError: where there is none, one that is a link to nothing, or one that another user has
            put where all may write.
    """
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / SPEC_FILE).is_file():
            _check_spec(directory)
            return directory
        if (directory / SPEC_FILE).is_symlink():
            # Not to be passed over for the project of a directory above.
            raise SpecError(
                f"{directory / SPEC_FILE} is a link to '{os.readlink(directory / SPEC_FILE)}', "
                "which is no file: restore that, or remove the link."
            )
    raise SpecError(
        f"There is no {SPEC_FILE} in {start} or above it: go to the project's directory."
    )


def _check_spec(directory: Path) -> None:
    """Refuse another user's spec in a directory open to all.

    It may be there so that this user runs it unawares.
    """
    owner = (directory / SPEC_FILE).stat().st_uid
    if owner not in (0, os.getuid()) and directory.stat().st_mode & stat.S_IWOTH:
        raise SpecError(
            f"The project in {directory} is not used, as {SPEC_FILE} belongs to another user and "
            "all users may write there: copy the project to a directory of yours."
        )


def current_context(start: Path | None = None) -> Context:
    """Return the context of a call in ``start`` (default: the working directory).

    Raises:
        SpecError: outside any project.
        SettingsError: where a setting cannot be used.
        SessionError: where its directories are another user's.
    """
    try:
        start = start or Path.cwd()
    except FileNotFoundError as error:
        raise SpecError(
            "The working directory no longer exists: go to the project's directory."
        ) from error
    context = context_of(find_root(start))
    context.check()
    return context


def context_of(root: Path) -> Context:
    """Return the context of a directory's real path, with or without a project.

    Raises:
        SettingsError: where a setting cannot be used.
    """
    settings = load_settings(root)
    job = job_id(os.environ) or live_allocation(allocation_file(root, settings))
    key = _project_key(root) if job is None else f"slurm-{job}"
    shared = _shared_scratch(settings)
    return Context(
        key=key,
        kind="project" if job is None else "allocation",
        root=root,
        settings=settings,
        scratch=shared if job is not None else settings.scratch or site_scratch() or own_scratch(),
        runtime=runtime_directory(settings) / key,
        job=job,
    )


def allocation_file(root: Path, settings: Settings) -> Path:
    """Return the file that records a project's allocation from ``lc run --allocate``."""
    directory = _shared_scratch(settings) / ".lightcone" / "allocations"
    return directory / f"{_project_key(root)}.json"


def _project_key(root: Path) -> str:
    """The key of a project outside any allocation."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def _shared_scratch(settings: Settings) -> Path:
    """Return a directory that the nodes of an allocation share.

    Home is one nearly everywhere.
    """
    return settings.scratch or site_scratch() or Path.home()


def external_address() -> str | None:
    """Return the address of the user's own cluster, used instead of a session."""
    address = os.environ.get(ADDRESS_VARIABLE) or None
    return None if address == os.environ.get(OWN_ADDRESS_VARIABLE) else address
