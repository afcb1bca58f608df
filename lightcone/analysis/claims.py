"""Claims: the exclusive right to make one output, and what becomes of the result before it.

A claim is a kernel lock on scratch, named after the output's path, and a journal beside the
results. The lock says who may write and is shared by the processes of the recipe, so it lasts as
long as any of them, whatever became of the worker. The journal says what had been set aside, so
that whoever takes the claim next can put it back:

==========================  =====================  ==============================================
manifest                    in ``previous/``       what lies at the output's path
==========================  =====================  ==============================================
of the journal's attempt    anything               the new result: forget the previous one
another one's               nothing                the previous result, untouched or put back
none                        manifest, no output    the previous result, its manifest to be put back
none                        output                 partial work: keep it apart, put both back
none                        nothing                partial work of an output that had no result
==========================  =====================  ==============================================

Every step is a rename within one file system, and recovery can itself be interrupted and repeated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.analysis import manifest as manifests
from lightcone.analysis.manifest import MANIFEST, Manifest
from lightcone.analysis.output import Output
from lightcone.context import boot_id
from lightcone.errors import SessionError
from lightcone.files import Lock, flush_to_disk, private_directory, write_atomically
from lightcone.units import format_moment

__all__ = [
    "Busy",
    "Claim",
    "discard_partial",
    "holder",
    "is_interrupted",
    "lock_path",
    "put_right",
    "read_inputs",
]

JOURNAL = "journal.json"
PARTIAL = "partial"
_MADE_FOR = ".identity"
VERSION = 1
_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


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


def lock_path(claims: Path, path: Path) -> Path:
    """The lock of the output at ``path``, the same for every name of its directory."""
    place = os.path.join(os.path.realpath(path.parent), path.name)
    return claims / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.lock"


def holder(output: Output) -> Busy | None:
    """Who is making ``output`` now, or None; ``Busy.lock`` is then always None.

    Asked of the lock that the journal names, so right for every context that shares the results;
    changes nothing.
    """
    journal = _read_journal(output.state_dir)
    if journal is None or _is_over(journal):
        return None
    return Busy(_who(journal), None)


def is_interrupted(output: Output) -> bool:
    """Whether somebody began to make ``output`` and left it, for the next run to put right."""
    journal = _read_journal(output.state_dir)
    if journal is None:
        return False
    recorded = manifests.read(output.state_dir)
    return recorded is None or recorded.made.get("attempt") != journal.get("attempt")


def read_inputs(claims: Path, paths: list[Path]) -> list[Lock] | Busy:
    """Locks that keep the outputs at ``paths`` from being remade while they are read."""
    locks: list[Lock] = []
    for path in paths:
        lock = Lock(lock_path(claims, path))
        if not lock.acquire(shared=True):
            for taken in locks:
                taken.close()
            return Busy(f"its input {path.name}, which is being made", lock.path, shared=True)
        locks.append(lock)
    return locks


class Claim:
    """The claim of one output, held from :meth:`take` to :meth:`release`."""

    def __init__(self, output: Output, lock: Lock) -> None:
        self.output = output
        self.lock = lock
        self.attempt = secrets.token_hex(8)
        self._previous = output.state_dir / "previous"
        self._manifest = output.state_dir / MANIFEST
        self._journal = output.state_dir / JOURNAL

    @staticmethod
    def take(output: Output, claims: Path) -> Claim | Busy:
        """Take the claim, after putting right what a dead holder left behind.

        Raises:
            OSError: where the results cannot be read or written.
        """
        private_directory(claims, "set LIGHTCONE_SCRATCH to a directory that is yours")
        lock = Lock(lock_path(claims, output.path))
        if not lock.acquire():
            journal = _read_journal(output.state_dir)
            return Busy(_who(journal) if journal else "a recipe that reads it", lock.path)
        claim = Claim(output, lock)
        try:
            busy = claim._put_right()
        except BaseException:
            claim.release()
            raise
        if busy is not None:
            claim.release()
            return busy
        for unfinished in output.state_dir.glob(".*.new"):
            unfinished.unlink(missing_ok=True)
        return claim

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
            OSError: where that cannot be done; nothing has then been moved.
        """
        state, path = self.output.state_dir, self.output.path
        if not state.is_dir():
            state.mkdir(parents=True, exist_ok=True)
            state.chmod(0o777 & ~umask)
        path.parent.mkdir(parents=True, exist_ok=True)
        had_output = os.path.lexists(path)
        if had_output and os.lstat(path).st_dev != os.stat(state).st_dev:
            raise OSError(errno.EXDEV, "it is on another file system than its directory", str(path))
        journal = {
            "version": VERSION,
            "attempt": self.attempt,
            "run": run,
            "lock": str(self.lock.path),
            "host": socket.gethostname(),
            "boot_id": boot_id(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "had_output": had_output,
            "identity": identity,
        }
        if not self._begin(json.dumps(journal).encode(), umask, durable=had_output):
            other = _read_journal(state)
            return Busy(_who(other) if other else "another run", None)
        _remove(self._previous)  # nobody's: there was no journal
        if had_output:
            self._previous.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._manifest, self._previous / MANIFEST)
            os.rename(path, self._previous / "output")
            for directory in (self._previous, state, path.parent):
                flush_to_disk(directory)
        else:
            self._manifest.unlink(missing_ok=True)  # of a result that is not there
        partial = state / PARTIAL / path.name
        if resume and os.path.lexists(partial) and _made_for(state) == identity:
            os.rename(partial, path)
        elif self.output.is_directory:
            path.mkdir()
            path.chmod(0o777 & ~umask)
        return None

    def commit(self, manifest: Manifest) -> None:
        """Make what lies at the path, flushed already, the output's good result, durably.

        ``manifest.made["attempt"]`` must be this claim's attempt.
        """
        manifests.write(self.output.state_dir, manifest)
        self._forget()
        _remove(self.output.state_dir / PARTIAL)

    def put_back(self) -> None:
        """Undo :meth:`set_aside`, keeping apart what the recipe had written."""
        journal = _read_journal(self.output.state_dir)
        if journal is not None:
            self._settle(journal)

    def release(self) -> None:
        """Give the claim up, for the recipe's processes too."""
        self.lock.release()

    def _begin(self, journal: bytes, umask: int, *, durable: bool) -> bool:
        """Write the journal unless there is one: contexts that share no lock share that name."""
        new = self._journal.with_name(f".{JOURNAL}.{self.attempt}.new")
        write_atomically(new, journal, mode=0o666, durable=durable)
        new.chmod(0o666 & ~umask)
        try:
            os.link(new, self._journal)
        except (FileExistsError, FileNotFoundError):
            return False  # somebody was quicker, and may have cleared this away as unfinished
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            os.rename(new, self._journal)
        finally:
            new.unlink(missing_ok=True)
        if durable:
            flush_to_disk(self._journal.parent)
        return True

    def _put_right(self) -> Busy | None:
        """Settle what a dead holder left; or say who holds the path, where that one lives."""
        journal = _read_journal(self.output.state_dir)
        if journal is None:
            return None
        if journal.get("lock") == str(self.lock.path):
            self._settle(journal)
            return None
        if not _is_over(journal):
            return Busy(_who(journal), None)
        # Several contexts may want to put this right: the dead one's lock says which of them does.
        with contextlib.ExitStack() as stack:
            if isinstance(journal.get("lock"), str) and os.path.exists(journal["lock"]):
                lock = Lock(Path(journal["lock"]))
                if not lock.acquire():
                    return Busy(_who(journal), None)
                stack.callback(lock.release)
            if _read_journal(self.output.state_dir) == journal:
                self._settle(journal)
        return None

    def _settle(self, journal: dict[str, Any]) -> None:
        recorded = manifests.read(self.output.state_dir)
        committed = recorded is not None and recorded.made.get("attempt") == journal.get("attempt")
        if not committed and not os.path.lexists(self._manifest):
            self._restore(bool(journal.get("had_output")), str(journal.get("identity")))
        self._forget()

    def _restore(self, had_output: bool, identity: str) -> None:
        state, path = self.output.state_dir, self.output.path
        kept = self._previous / "output"
        if os.path.lexists(path) and (not had_output or os.path.lexists(kept)):
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
            else:
                self._keep_partial(identity)
        if os.path.lexists(kept):
            os.rename(kept, path)
            flush_to_disk(path.parent)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._previous / MANIFEST, self._manifest)
        flush_to_disk(state)

    def _keep_partial(self, identity: str) -> None:
        partial, path = self.output.state_dir / PARTIAL, self.output.path
        _remove(partial)
        try:
            partial.mkdir()
            os.rename(path, partial / path.name)
        except OSError:
            # On a full disk there may be no room for it, and the result before it comes first.
            _remove(path)
            return
        with contextlib.suppress(OSError):
            write_atomically(partial / _MADE_FOR, identity.encode(), mode=0o666, durable=False)

    def _forget(self) -> None:
        # The journal last: without it the name is the next holder's, and with it, whoever comes
        # sees that there is something to be cleared away.
        _remove(self._previous)
        self._journal.unlink(missing_ok=True)


def put_right(output: Output, claims: Path) -> None:
    """Put right what a dead holder left of ``output``, if anything, and let the living go on.

    Raises:
        OSError: where the results cannot be written.
        SessionError: where the directory of the claims cannot be used.
    """
    if os.path.lexists(output.state_dir / JOURNAL) and holder(output) is None:
        claim = Claim.take(output, claims)
        if isinstance(claim, Claim):
            claim.release()


def discard_partial(output: Output) -> int:
    """Remove what an interrupted or failed recipe had written; the bytes that it took."""
    partial = output.state_dir / PARTIAL
    size = 0
    for directory, _, names in os.walk(partial):
        for name in set(names) - {_MADE_FOR}:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(directory, name)).st_size
    _remove(partial)
    return size


def _made_for(state: Path) -> str | None:
    try:
        return (state / PARTIAL / _MADE_FOR).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def _read_journal(state: Path) -> dict[str, Any] | None:
    try:
        content = (state / JOURNAL).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(ValueError):
        journal = json.loads(content)
        if isinstance(journal, dict):
            return journal
    # Written atomically, so this is damage; it is safe to look for what was set aside.
    return {"had_output": True}


def _is_over(journal: dict[str, Any]) -> bool:
    """Whether the holder that wrote ``journal`` is known to be gone, with all its processes."""
    lock = journal.get("lock")
    if not isinstance(lock, str):
        return True
    if journal.get("boot_id") != boot_id() or not os.path.exists(lock):
        # This host's before it was started anew or its scratch was cleaned; else another host's,
        # or that of a container on this one, whose scratch is not seen from here.
        return bool(journal.get("host") == socket.gethostname())
    try:
        return Lock.is_free(Path(lock), of_all=True)
    except (OSError, SessionError):
        return False  # another user's, say: it cannot be asked, so it is not known to be gone


def _who(journal: dict[str, Any]) -> str:
    started = format_moment(str(journal.get("started", "")))
    return f"{journal.get('run', 'a run')} on {journal.get('host', 'another host')} since {started}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
