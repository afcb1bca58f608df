"""Claims: the exclusive right to make one output.

A claim is a kernel lock on scratch, named after the output's path, and a journal beside the
results. The lock says who may write and is shared by the processes of the recipe, so it lasts as
long as any of them, whatever became of the worker. The journal says what had been set aside, so
that whoever takes the claim next can put it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightcone.errors import UsageError
from lightcone.spec.output import MANIFEST, Output
from lightcone.state.journal import JOURNAL, Journal, describe_holder, is_proved_dead, read_journal
from lightcone.state.manifest import (
    Manifest,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)
from lightcone.state.partial import restore_partial
from lightcone.system.files import make_directory, private_directory
from lightcone.system.locks import Lock, refresh_lock_file
from lightcone.system.mounts import mount_point_in

__all__ = [
    "Busy",
    "Claim",
    "acquire",
    "holder",
    "is_interrupted",
    "lock_inputs",
    "lock_path",
    "recover_output",
    "wait_for",
]

_RETRY_ELSEWHERE = 2.0


@dataclass(frozen=True)
class Busy:
    """Somebody else has the claim.

    Attributes:
        by: who, in words.
        lock: the lock to wait for; None where it cannot be waited for from here.
        shared: whether it is enough that nobody has it to himself, as for an input.
    """

    by: str
    lock: Path | None
    shared: bool = False


def lock_path(claims: Path, path: Path, real_path: Callable[[str], str] = os.path.realpath) -> Path:
    """The lock of the output at ``path``, the same for every name of its directory.

    ``real_path`` may remember what it has said, for as long as no directory is moved.
    """
    directory, name = os.path.split(path)
    place = os.path.join(real_path(directory), name)
    return claims / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.lock"


def acquire(lock: Lock, *, shared: bool = False) -> bool:
    """Take an output's lock, unless somebody has it, and keep it from looking old.

    Raises:
        SessionError: where it cannot be had.
    """
    while lock.acquire(shared=shared):
        held = os.fstat(lock.fd)
        with contextlib.suppress(OSError):
            if os.path.samestat(held, os.stat(lock.path, follow_symlinks=False)):
                refresh_lock_file(lock.fd, held)
                return True
        lock.close()  # a cleaner has removed it meanwhile, and somebody may have the next one
    return False


def lock_inputs(
    claims: Path,
    inputs: Sequence[tuple[Path, Path]],
    real_path: Callable[[str], str] = os.path.realpath,
) -> list[Lock] | Busy:
    """Locks that keep outputs from being remade while they are read.

    Contexts with locks of their own are not kept from it, but one that is at it now is ``Busy``.

    Args:
        claims: the directory of the locks.
        inputs: the path and the state directory of each output.
        real_path: see :func:`lock_path`.

    Raises:
        SessionError: where a lock cannot be had.
    """
    with contextlib.ExitStack() as until_all:
        locks: list[Lock] = []
        for path, state in inputs:
            lock = Lock(lock_path(claims, path, real_path))
            taken = acquire(lock, shared=True)
            if taken:
                until_all.callback(lock.close)
                locks.append(lock)
                told = read_journal(state)
                if told is None or told.get("lock") == str(lock.path) or is_proved_dead(told):
                    continue
            who = f"its input {path.name}, which is being made"
            return Busy(who, None if taken else lock.path, shared=True)
        until_all.pop_all()
        return locks


def wait_for(lock: Path | None, shared: bool) -> None:
    """Return when it is worth trying again to have what was :class:`Busy`.

    Raises:
        SessionError: where the lock cannot be asked.
    """
    if lock is None:
        time.sleep(_RETRY_ELSEWHERE)
        return
    held = Lock(lock)
    held.acquire(shared=shared, timeout=None)
    held.release()


def holder(output: Output) -> Busy | None:
    """Who is making ``output`` now, or None; ``Busy.lock`` is then always None.

    Asked of the lock that the journal names, so right for every context that shares the results;
    changes nothing.
    """
    journal = Journal(output).read() if _has_journal(output) else None
    if journal is None or is_proved_dead(journal):
        return None
    return Busy(describe_holder(journal), None)


def is_interrupted(output: Output) -> bool:
    """Whether somebody began to make ``output`` and left it, for the next run to put right."""
    journal = Journal(output).read() if _has_journal(output) else None
    if journal is None:
        return False
    recorded = read_manifest(output.state_dir)
    return recorded is None or recorded.made.get("attempt") != journal.get("attempt")


def _has_journal(output: Output) -> bool:
    # Asked of every output of a plan: what raises no exception where there is none is quicker.
    return os.access(f"{output.state}/{JOURNAL}", os.F_OK)


class Claim:
    """The claim of one output, held from :meth:`take` to :meth:`release`.

    Attributes:
        attempt: tells it from all others.
        is_first: whether nothing is kept of the output, not even the directory for it, which is
            made when the result is set aside; so nothing need be looked for in there.
    """

    def __init__(self, output: Output, lock: Lock) -> None:
        self.output = output
        self.lock = lock
        self.attempt = secrets.token_hex(8)
        self.is_first = not os.path.isdir(output.state)
        self._journal = Journal(output)

    @staticmethod
    def take(
        output: Output, claims: Path, real_path: Callable[[str], str] = os.path.realpath
    ) -> Claim | Busy:
        """Take the claim, after putting right what a dead holder left behind.

        For ``real_path`` see :func:`lock_path`.

        Raises:
            OSError: where the results cannot be read or written.
            SessionError: where the directory of the claims cannot be used.
        """
        private_directory(claims, "set LIGHTCONE_SCRATCH to a directory that is yours")
        lock = Lock(lock_path(claims, output.path, real_path))
        if not acquire(lock):
            told = Journal(output).read()
            return Busy(describe_holder(told) if told else "a recipe that reads it", lock.path)
        claim = Claim(output, lock)
        if claim.is_first:
            return claim
        try:
            busy = claim._recover()
            if busy is None:
                for unfinished in output.state_dir.glob(".*.new"):
                    unfinished.unlink(missing_ok=True)
                return claim
        except BaseException:
            claim.release()
            raise
        claim.release()
        return busy

    def set_aside(
        self, run: str, umask: int, identity: str, *, resume: bool = False
    ) -> Busy | None:
        """Move the result there is out of the way; from here on the path belongs to the recipe.

        Returns who has the path, where that is a context with locks of its own which began at the
        same moment; nothing has then been moved.

        Args:
            run: what the claim's journal calls its holder.
            umask: the recipe's file mode creation mask.
            identity: what is about to be made.
            resume: whether partial work of the same identity is put in place for the recipe.

        Raises:
            OSError: where that cannot be done; what was there is then still there.
            UsageError: where it could not be done by renaming; nothing has been moved.
        """
        state, path = self.output.state_dir, self.output.path
        if self.is_first:
            self.is_first = make_directory(state)
            state.chmod(0o777 & ~umask)
        if not path.parent.is_dir():
            make_directory(path.parent)
        had_output = os.path.lexists(path)
        self.is_first &= not had_output
        if not self.is_first:
            self._check_movable(had_output)
        if not self._journal.begin(
            self.attempt, run, self.lock.path, identity, had_output=had_output, umask=umask
        ):
            told = self._journal.read()
            return Busy(describe_holder(told) if told else "another run", None)
        try:
            if not self.is_first:
                self._journal.set_aside(had_output=had_output)
            resumed = resume and restore_partial(self.output, identity)
            if self.output.is_directory and not resumed:
                path.mkdir()
                path.chmod(0o777 & ~umask)
        except BaseException:
            self.restore()
            raise
        return None

    def _check_movable(self, had_output: bool) -> None:
        place, state = self.output.path, self.output.state_dir
        recorded = inspect_manifest(state)
        if isinstance(recorded, Unusable) and recorded.is_newer:
            raise UsageError(f"{state / MANIFEST} {recorded.reason}: upgrade lc")
        if not had_output:
            return
        mount = mount_point_in(place)
        if mount is not None:
            raise UsageError(
                f"{mount} is a mount point, and what is there could not be set aside meanwhile: "
                "unmount it, or mount a directory around the results instead"
            )
        if os.lstat(place).st_dev != os.stat(state).st_dev:
            raise UsageError(
                f"{place} is on another file system than {state}, where it would be set aside "
                "meanwhile: move one of them"
            )

    def commit(self, manifest: Manifest, umask: int | None = None) -> None:
        """Make what lies at the path, flushed already, the output's good result, durably.

        ``manifest.made["attempt"]`` must be this claim's attempt; ``umask`` is the recipe's.
        """
        write_manifest(self.output.state_dir, manifest, umask)
        if self.is_first:
            self._journal.end()
        else:
            self._journal.forget()

    def restore(self) -> None:
        """Undo :meth:`set_aside`, keeping apart what the recipe had written."""
        told = self._journal.read()
        if told is not None:
            self._journal.settle(told)

    def release(self) -> None:
        """Give the claim up, for the recipe's processes too."""
        self.lock.release()

    def _recover(self) -> Busy | None:
        """Settle what a dead holder left; or say who holds the path, where that one lives."""
        told = self._journal.read()
        if told is None:
            return None
        if "unreadable" in told:
            raise UsageError(
                f"Nobody can tell who is making {self.output.name} from {told['unreadable']}: make "
                "it readable, or remove it when no run is going."
            )
        if "held" not in told and told.get("lock") == str(self.lock.path):
            self._journal.settle(told)
            return None
        if not is_proved_dead(told):
            return Busy(describe_holder(told), None)
        # Several contexts may want to put this right: the dead one's lock says which of them does.
        with contextlib.ExitStack() as stack:
            if isinstance(told.get("lock"), str) and os.path.exists(told["lock"]):
                lock = Lock(Path(told["lock"]))
                if not lock.acquire():
                    return Busy(describe_holder(told), None)
                stack.callback(lock.release)
            if self._journal.read() == told:
                self._journal.settle(told)
        return None


def recover_output(output: Output, claims: Path) -> None:
    """Put right what a dead holder left of ``output``, if anything, and let the living go on.

    Raises:
        OSError: where the results cannot be written.
        SessionError: where the directory of the claims cannot be used.
    """
    if _has_journal(output) and holder(output) is None:
        claim = Claim.take(output, claims)
        if isinstance(claim, Claim):
            claim.release()
