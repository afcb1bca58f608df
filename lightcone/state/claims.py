"""Claims: the exclusive right to make one output.

A claim is a kernel lock on scratch, named after the output's path, and a journal beside the
results. The lock says who may write and is shared by the processes of the recipe, so it lasts as
long as any of them, whatever became of the worker. The journal says what had been set aside, so
that the next holder of the claim can restore it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightcone.errors import UsageError
from lightcone.spec.output import MANIFEST, Output
from lightcone.state.journal import (
    JOURNAL,
    Journal,
    describe_holder,
    is_committed,
    is_lock_of,
    is_proved_dead,
    open_lock,
    read_journal,
)
from lightcone.state.manifest import (
    Manifest,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)
from lightcone.state.partial import (
    PartialWork,
    describe_partial,
    find_partial,
    has_partial,
    measure,
    restore_partial,
    write_failure,
)
from lightcone.state.products import products_left
from lightcone.system.files import make_directory, private_directory
from lightcone.system.locks import Lock, refresh_lock_file
from lightcone.system.mounts import mount_point_in
from lightcone.system.units import format_bytes

__all__ = [
    "Busy",
    "Claim",
    "acquire",
    "holder",
    "is_interrupted",
    "lock_inputs",
    "lock_path",
    "recover_output",
    "unfinished_work",
    "wait_for",
]

_logger = logging.getLogger("lightcone")

_RETRY_ELSEWHERE = 2.0


@dataclass(frozen=True)
class Busy:
    """The refusal of a claim that another process holds.

    Attributes:
        by: a description of the holder.
        lock: the lock to wait for; None where it cannot be waited for from here.
        shared: whether a shared lock is enough, as for an input.
    """

    by: str
    lock: Path | None
    shared: bool = False


def lock_path(claims: Path, path: Path, real_path: Callable[[str], str] = os.path.realpath) -> Path:
    """Return the path of the lock of the output at ``path``.

    It is the same for every name of the output's directory. ``real_path`` may cache its results,
    for as long as no directory is moved.
    """
    directory, name = os.path.split(path)
    canonical = os.path.join(real_path(directory), name)
    return claims / f"{hashlib.sha256(os.fsencode(canonical)).hexdigest()[:32]}.lock"


def acquire(lock: Lock, *, shared: bool = False) -> bool:
    """Take an output's lock if it is free, and refresh its times.

    Raises:
        SessionError: where it cannot be had.
    """
    while lock.acquire(shared=shared):
        status = os.fstat(lock.fd)
        with contextlib.suppress(OSError):
            if os.path.samestat(status, os.stat(lock.path, follow_symlinks=False)):
                refresh_lock_file(lock.fd, status)
                return True
        lock.close()  # a cleaner has removed it meanwhile, and somebody may have the next one
    return False


def lock_inputs(
    claims: Path,
    inputs: Sequence[tuple[Path, Path]],
    real_path: Callable[[str], str] = os.path.realpath,
) -> list[Lock] | Busy:
    """Take shared locks on outputs, so that no recipe remakes them meanwhile.

    They do not bind contexts with locks of their own, but one that is making an input now gives
    ``Busy``.

    Args:
        claims: the directory of the locks.
        inputs: the path and the state directory of each output.
        real_path: see :func:`lock_path`.

    Raises:
        SessionError: where a lock cannot be had.
    """
    with contextlib.ExitStack() as stack:
        locks: list[Lock] = []
        for path, state in inputs:
            lock = Lock(lock_path(claims, path, real_path))
            taken = acquire(lock, shared=True)
            if taken:
                stack.callback(lock.close)
                locks.append(lock)
                journal = read_journal(state)
                if journal is None or is_lock_of(journal, lock) or is_proved_dead(journal):
                    continue
            description = f"its input {path.name}, which is being made"
            return Busy(description, None if taken else lock.path, shared=True)
        stack.pop_all()
        return locks


def wait_for(lock: Path | None, shared: bool) -> None:
    """Wait until a retry after :class:`Busy` is worthwhile.

    Raises:
        SessionError: where the lock cannot be asked.
    """
    if lock is None:
        time.sleep(_RETRY_ELSEWHERE)
        return
    waiter = Lock(lock)
    waiter.acquire(shared=shared, timeout=None)
    waiter.release()


def holder(output: Output) -> Busy | None:
    """Return the current maker of ``output``, or None.

    ``Busy.lock`` of the result is always None.

    The lock that the journal names decides, so the result is right for every context that shares
    the results. Changes nothing.
    """
    journal = Journal(output).read() if _has_journal(output) else None
    if journal is None or is_proved_dead(journal):
        return None
    return Busy(describe_holder(journal, output), None)


def is_interrupted(output: Output) -> bool:
    """Return whether a run left ``output`` unfinished, to be recovered."""
    journal = Journal(output).read() if _has_journal(output) else None
    return journal is not None and not is_committed(journal, output)


def unfinished_work(output: Output) -> int:
    """Return the bytes that an interrupted recipe has left, for the next run to keep."""
    journal = Journal(output)
    record = journal.read()
    return 0 if record is None else journal.unfinished(record)


def _has_journal(output: Output) -> bool:
    # Called for every output of a plan: a check that raises no exception is quicker.
    if os.access(f"{output.state}/{JOURNAL}", os.F_OK):
        return True
    if os.access(output.state, os.X_OK):
        return False
    try:
        os.stat(output.state)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True  # perhaps: in a directory that this user may not enter, it cannot be seen


class Claim:
    """The claim of one output, held from :meth:`take` to :meth:`release`.

    Attributes:
        attempt: tells it from all others.
        is_first: whether nothing is kept of the output, not even the directory for it, which is
            made when the result is set aside; so nothing need be looked for in there.
        is_recovered: whether a dead holder had left the output unfinished.
        remarks: what became of partial work, in sentences without a beginning and a full stop.
    """

    def __init__(self, output: Output, lock: Lock) -> None:
        self.output = output
        self.lock = lock
        self.attempt = secrets.token_hex(8)
        self.is_first = not os.path.isdir(output.state)
        self.is_recovered = False
        self.remarks: list[str] = []
        self._journal = Journal(output)
        self._resumed: PartialWork | None = None

    @staticmethod
    def take(
        output: Output, claims: Path, real_path: Callable[[str], str] = os.path.realpath
    ) -> Claim | Busy:
        """Take the claim, after recovering from a dead holder.

        For ``real_path`` see :func:`lock_path`.

        Raises:
            OSError: where the results cannot be read or written.
            SessionError: where the directory of the claims cannot be used.
        """
        private_directory(claims, "set LIGHTCONE_SCRATCH to a directory that is yours")
        lock = Lock(lock_path(claims, output.path, real_path))
        if not acquire(lock):
            record = Journal(output).read()
            by = describe_holder(record, output) if record else "a recipe that reads it"
            return Busy(by, lock.path)
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
        self,
        run: str,
        umask: int,
        identity: str,
        *,
        resume: bool = False,
        found: Sequence[str] = (),
        tokens: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Busy | None:
        """Move the present result aside and give the path to the recipe.

        Returns the holder of the path, where a context with locks of its own began at the same
        moment; nothing has then been moved.

        Args:
            run: what the claim's journal calls its holder.
            umask: the recipe's file mode creation mask.
            identity: the identity of the output to be made.
            resume: whether partial work of the same identity is put in place for the recipe.
            found: the files that the recipe finds; see :meth:`Products.found`.
            tokens: those of its sources and inputs; see :meth:`Products.take_tokens`.

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
            self.attempt,
            run,
            self.lock,
            identity,
            had_output=had_output,
            umask=umask,
            found=found,
            tokens=tokens,
        ):
            record = self._journal.read()
            by = describe_holder(record, self.output) if record else "another run"
            return Busy(by, None)
        try:
            if not self.is_first:
                self._journal.set_aside(had_output=had_output)
            if not self.is_first:
                self._resume(identity, resume)
            if self.output.is_directory and self._resumed is None:
                path.mkdir()
                path.chmod(0o777 & ~umask)
        except BaseException:
            self.restore()
            raise
        return None

    def _resume(self, identity: str, resume: bool) -> None:
        """Put partial work in place if wanted, and say what is done with it."""
        self._resumed = restore_partial(self.output, identity) if resume else None
        if self._resumed is not None:
            self.remarks.append(f"goes on from {format_bytes(self._resumed.size)} of partial work")
        elif has_partial(self.output):
            by = "it" if resume else "'--resume'"
            text = describe_partial(find_partial(self.output, identity), by)
            self.remarks += [f"begins anew, and keeps {text}"] if text else []

    def _check_movable(self, had_output: bool) -> None:
        path, state = self.output.path, self.output.state_dir
        manifest = inspect_manifest(state)
        if isinstance(manifest, Unusable) and manifest.is_newer:
            raise UsageError(f"{state / MANIFEST} {manifest.reason}: upgrade lc")
        if not had_output:
            return
        mount = mount_point_in(path)
        if mount is not None:
            raise UsageError(
                f"{mount} is a mount point, and what is there could not be set aside meanwhile: "
                "unmount it, or mount a directory around the results instead"
            )
        if os.lstat(path).st_dev != os.stat(state).st_dev:
            raise UsageError(
                f"{path} is on another file system than {state}, where it would be set aside "
                "meanwhile: move one of them"
            )

    def commit(self, manifest: Manifest, umask: int | None = None) -> None:
        """Make the flushed data at the path the output's good result, durably.

        ``manifest.made["attempt"]`` must be this claim's attempt; ``umask`` is the recipe's. Once
        the manifest is there the output is made: remains of the previous result that cannot be
        removed are logged and left to the next holder of the claim.

        Raises:
            OSError: where the manifest cannot be written.
        """
        try:
            write_manifest(self.output.state_dir, manifest, umask)
            if self.is_first:
                self._journal.end()
            else:
                self.remarks += self._journal.discard_previous()
        except OSError as error:
            written = read_manifest(self.output.state_dir)
            if written is None or written.made.get("attempt") != self.attempt:
                raise
            _logger.warning("%s: what is left of its making: %s", self.output.name, error)

    def restore(self, disturbed: str | None = None) -> None:
        """Undo :meth:`set_aside`, keeping the recipe's data as partial work.

        For ``disturbed`` see :meth:`Journal.settle`.
        """
        record = self._journal.read()
        if record is None:
            return
        before, self._resumed = self._resumed, None
        if before is not None:
            left = measure(self.output.path) if os.path.lexists(self.output.path) else 0
            if left < before.size:
                self.remarks.append(
                    f"the recipe has reduced the {format_bytes(before.size)} of partial work that "
                    f"it went on from to {format_bytes(left)}"
                )
        self.remarks += self._journal.settle(record, disturbed)

    def release(self) -> None:
        """Release the claim, for the recipe's processes too."""
        self.lock.release()

    def _recover(self) -> Busy | None:
        """Settle the journal of a dead holder, or return the living one."""
        record = self._journal.read()
        if record is None:
            if self._journal.has_previous:  # the journal was removed by hand
                self.remarks += self._journal.settle({"had_output": True})
            return None
        if "unreadable" in record:
            raise UsageError(
                f"Nobody can tell who is making {self.output.name} from {record['unreadable']}: "
                "make it readable, or remove it when no run is going."
            )
        if "held" not in record and is_lock_of(record, self.lock):
            self._settle(record)
            return None
        if not is_proved_dead(record):
            return Busy(describe_holder(record, self.output), None)
        return self._recover_from(record)

    def _recover_from(self, dead: Mapping[str, Any]) -> Busy | None:
        """Settle the journal of another context's dead holder, unless a third one does."""
        with contextlib.ExitStack() as stack:
            lock = open_lock(dead)
            if lock is not None:
                stack.callback(lock.close)
                if not lock.take():
                    return Busy(describe_holder(dead, self.output), None)
            if "lock" not in dead:
                self._settle(dead)  # damaged: it names no holder
                return None
            record = self._journal.take_over(dead, self.lock)
            if record is not None:
                self._settle(record)
                return None
            found = self._journal.read()
            return None if found is None else Busy(describe_holder(found, self.output), None)

    def _settle(self, record: Mapping[str, Any]) -> None:
        """Settle a dead holder's journal, and record its end, which it did not live to do."""
        products = products_left(self.output, record)
        if products is not None and not is_committed(record, self.output):
            write_failure(
                self.output,
                str(record.get("identity")),
                f"{record.get('run', 'a run')} was killed before it was done",
                exit_code=None,
                interrupted=True,
                products=products,
            )
        self.is_recovered = True
        self.remarks += self._journal.settle(record)


def recover_output(output: Output, claims: Path) -> list[str]:
    """Recover ``output`` from a dead holder, if there is one.

    A living holder keeps its claim. Returns remarks about partial work that had to go.

    Raises:
        OSError: where the results cannot be written.
        SessionError: where the directory of the claims cannot be used.
    """
    if _has_journal(output) and holder(output) is None:
        claim = Claim.take(output, claims)
        if isinstance(claim, Claim):
            claim.release()
            return claim.remarks
    return []
