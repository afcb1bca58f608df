"""Which context a call is in: what a session belongs to, and where its files are."""

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
    """What a session belongs to: a project directory on this host, or a SLURM allocation.

    Attributes:
        key: short, unique and the same for every caller of the context.
        kind: ``"project"`` or ``"allocation"``.
        root: the project's directory, its real path.
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
        """Where the session keeps its locks, record, keys, logs and spilled data.

        The boot id is part of a project's: scratch may be shared by hosts that each have a session
        for a project at the same path. An allocation's is found from all of its hosts.
        """
        if self.job is not None:
            return self.scratch / ".lightcone" / "sessions" / self.key
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

    def check(self) -> None:
        """Refuse directories that are not this user's, as others can make theirs first.

        Changes nothing, and passes where there are none.

        Raises:
            SessionError: where one is a link or another user's.
        """
        for path, remedy in self._exposed():
            check_own(path, remedy)

    def take(self) -> None:
        """Make the directories, private to this user, so that nobody else can make them any more.

        Raises:
            SessionError: where one is a link or another user's, or cannot be made.
        """
        for path, remedy in self._exposed():
            private_directory(path, remedy)

    def _exposed(self) -> list[tuple[Path, str]]:
        """The directories in places that others may write to, and what to do where they did."""
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
        """Make all that a session needs, private to this user, and check that locks work there.

        Raises:
            SessionError: where a directory or the locks in it cannot be had.
        """
        if self.settings.runtime_dir is not None:
            # It may be a directory that the user has for other things too.
            check_directory(self.runtime.parent, _REMEDY_FOR_SOCKETS)
        longest = len(os.fsencode(self.control_socket))
        if longest > SOCKET_PATH_MAX:
            raise SessionError(
                f"The socket path {self.control_socket} has {longest} bytes, more than the "
                f"{SOCKET_PATH_MAX} that this system allows: {_REMEDY_FOR_SOCKETS}."
            )
        self.take()
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
    """The real path of the nearest directory, at or above ``start``, with a spec in it.

    Raises:
        SpecError: where there is none, or one that another user has put where all may write.
    """
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / SPEC_FILE).is_file():
            _check_spec(directory)
            return directory
    raise SpecError(
        f"There is no {SPEC_FILE} in {start} or above it: go to the project's directory."
    )


def _check_spec(directory: Path) -> None:
    """A spec above some directory of this user's could be there for him to run it unawares."""
    owner = (directory / SPEC_FILE).stat().st_uid
    if owner not in (0, os.getuid()) and directory.stat().st_mode & stat.S_IWOTH:
        raise SpecError(
            f"The project in {directory} is not used, as {SPEC_FILE} belongs to another user and "
            "all users may write there: copy the project to a directory of yours."
        )


def current_context(start: Path | None = None) -> Context:
    """The context of a call made in ``start`` (default: the working directory).

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
    """The context of a directory, given as its real path, whether or not there is a project.

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
    """The file that names the allocation which ``lc run --allocate`` got for a project."""
    directory = _shared_scratch(settings) / ".lightcone" / "allocations"
    return directory / f"{_project_key(root)}.json"


def _project_key(root: Path) -> str:
    """The key of a project outside any allocation."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def _shared_scratch(settings: Settings) -> Path:
    """A directory that the nodes of an allocation share; home is one nearly everywhere."""
    return settings.scratch or site_scratch() or Path.home()


def external_address() -> str | None:
    """The address of the cluster that the user wants used instead of a session, if any."""
    address = os.environ.get(ADDRESS_VARIABLE) or None
    return None if address == os.environ.get(OWN_ADDRESS_VARIABLE) else address
