"""The journal of a claim, which records the previous result set aside.

It is beside the results, and is written before anything is moved. Once its writer is gone, it
shows what became of the output:

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
import json
import math
import os
import secrets
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.project.host import boot_id, machine_id
from lightcone.slurm import controller, jobs
from lightcone.slurm.allocation import job_id
from lightcone.slurm.jobs import JobState
from lightcone.spec.output import MANIFEST, Output
from lightcone.state.manifest import read_manifest
from lightcone.state.partial import (
    PARTIAL_NEXT,
    discard_partial,
    keep_partial,
    measure,
    set_partial_aside,
)
from lightcone.state.tokens import describe_changes_since
from lightcone.system.files import flush_to_disk, read_object, remove, write_new
from lightcone.system.locks import Lock
from lightcone.system.units import format_bytes, format_moment

__all__ = [
    "JOURNAL",
    "JOURNAL_VERSION",
    "Journal",
    "describe_holder",
    "good_log",
    "is_committed",
    "is_lock_of",
    "is_proved_dead",
    "open_lock",
    "read_journal",
]

JOURNAL = "journal.json"
JOURNAL_VERSION = 2
# Cached, because every output of a run asks the same, and each would wait for SLURM's reply.
_CACHE_SECONDS = 2.0
_ended_jobs: dict[tuple[int, str], tuple[bool, float]] = {}
_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


def read_journal(state_dir: Path) -> dict[str, Any] | None:
    """Read the journal in ``state_dir``, or return None if there is none.

    A journal that cannot be read, or that a newer ``lc`` has written, still has a holder:
    ``held`` is a phrase for it that follows "waiting for".
    """
    file = state_dir / JOURNAL
    try:
        record = read_object(file)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        if is_missing and not file.is_symlink():
            return None
        reason = f"{file}, which cannot be read ({error.strerror})"
        return {"held": f"whoever wrote {reason}", "unreadable": reason}
    except ValueError:
        # Written atomically, so this is damage; it is safe to look for what was set aside.
        return {"had_output": True}
    version = record.get("version")
    if isinstance(version, int) and version > JOURNAL_VERSION:
        return {"held": f"a newer lc, which wrote {file}: upgrade lc"}
    return record


class Journal:
    """The journal of one output, and the previous result it describes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.file = output.state_dir / JOURNAL
        self._previous = output.state_dir / "previous"
        self._manifest = output.state_dir / MANIFEST

    def read(self) -> dict[str, Any] | None:
        """Read the journal, or return None if there is none."""
        return read_journal(self._output.state_dir)

    @property
    def has_previous(self) -> bool:
        """Whether a result is set aside."""
        return os.path.lexists(self._previous)

    def begin(
        self,
        attempt: str,
        run: str,
        lock: Lock,
        identity: str,
        *,
        had_output: bool,
        umask: int,
        found: Sequence[str] = (),
        tokens: Mapping[str, Mapping[str, str]] | None = None,
    ) -> bool:
        """Create the journal, unless there is one; return whether it did.

        Contexts that share no lock share the name of the journal. The lock file gets the attempt
        as its mark, by which :func:`is_lock_of` knows it. ``found`` are the files that the command
        names and its recipe finds, and that are not its products; ``tokens`` those of its sources
        and inputs (:func:`lightcone.state.tokens.take_tokens`).

        Raises:
            OSError: where it cannot be written.
        """
        record = {
            "version": JOURNAL_VERSION,
            "attempt": attempt,
            "run": run,
            **_writer(lock),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "had_output": had_output,
            "identity": identity,
            "name": self._output.path.name,
            "template": self._output.template,
            "found": list(found),
            "tokens": tokens,
        }
        lock.mark(attempt)
        draft = self.file.with_name(f".{JOURNAL}.{attempt}.new")
        write_new(draft, json.dumps(record).encode(), 0o666, durable=had_output, umask=umask)
        try:
            os.link(draft, self.file)
        except (FileExistsError, FileNotFoundError):
            return False  # somebody was quicker, and may have cleared this away as unfinished
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            os.rename(draft, self.file)
        finally:
            draft.unlink(missing_ok=True)
        if had_output:
            flush_to_disk(self.file.parent)
        return True

    def take_over(self, record: Mapping[str, Any], lock: Lock) -> Mapping[str, Any] | None:
        """Make the caller the writer of a dead writer's journal, to settle it.

        Several contexts that share no lock may find the same writer dead; whoever comes later finds
        a living one. Returns the new record, or None where the journal has changed meanwhile.

        Raises:
            OSError: where it cannot be written; it can be tried again.
        """
        attempt = str(record.get("attempt", ""))
        lock.mark(attempt)
        mine = {**record, **_writer(lock)}
        draft = self.file.with_name(f".{JOURNAL}.{secrets.token_hex(8)}.new")
        mode = stat.S_IMODE(os.lstat(self.file).st_mode)
        write_new(draft, json.dumps(mine).encode(), mode, durable=True, umask=0)
        try:
            if self.read() != record:
                return None
            os.rename(draft, self.file)
        finally:
            draft.unlink(missing_ok=True)
        return mine if self.read() == mine else None

    def set_aside(self, *, had_output: bool) -> None:
        """Move the present result aside; the journal has begun.

        Raises:
            OSError: where that cannot be done; :meth:`settle` puts back what was moved.
        """
        for leftover in (self._previous, self._output.state_dir / PARTIAL_NEXT):
            remove(leftover)  # nobody's: there was no journal
        if not had_output:
            self._manifest.unlink(missing_ok=True)  # of a result that is not there
        self._keep_log()
        if not had_output:
            return
        self._previous.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._manifest, self._previous / MANIFEST)
        os.rename(self._output.path, self._previous / "output")
        for directory in (self._previous, self.file.parent, self._output.path.parent):
            flush_to_disk(directory)

    def settle(self, record: Mapping[str, Any], disturbed: str | None = None) -> list[str]:
        """Settle the path once the writer of ``record`` is done or gone.

        ``disturbed`` is what changed of the sources and inputs while its recipe ran, as a clause;
        None where those were not compared. Returns remarks about partial work that had to go.

        Raises:
            OSError: where that cannot be done; it can be tried again.
        """
        if is_committed(record, self._output):
            return self.discard_previous()
        remarks = []
        if not os.path.lexists(self._manifest):
            remarks.append(self._restore(bool(record.get("had_output"))))
        if not os.path.lexists(self._output.log):
            # Nothing has been run: the good result's log is the last one again.
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._output.good_log, self._output.log)
        if disturbed is None and os.path.lexists(self._output.state_dir / PARTIAL_NEXT):
            disturbed = describe_changes_since(self._output, record.get("tokens"))
        remarks.append(keep_partial(self._output, self.file, disturbed or ""))
        remove(self._previous)
        self.end()
        return [remark for remark in remarks if remark]

    def discard_previous(self) -> list[str]:
        """Remove the remains of previous results, and then the journal.

        Returns a remark about partial work that goes with them.

        Raises:
            OSError: where something cannot be removed; it can be tried again.
        """
        remove(self._output.good_log)
        size = discard_partial(self._output)
        remove(self._previous)
        self.end()
        return [f"{format_bytes(size)} of older partial work was removed"] if size else []

    def unfinished(self, record: Mapping[str, Any]) -> int:
        """Return the bytes that a dead writer has left at the output's path."""
        if os.path.lexists(self._manifest) or not os.path.lexists(self._output.place):
            return 0
        if record.get("had_output") and not os.path.lexists(self._previous / "output"):
            return 0  # that is the previous result still
        return measure(self._output.path)

    def end(self) -> None:
        """Remove the journal, which frees the path for the next claim.

        Raises:
            OSError: where it cannot be removed; it can be tried again.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)

    def _keep_log(self) -> None:
        """Preserve the good result's log before the next attempt writes one."""
        manifest = read_manifest(self._output.state_dir)
        if manifest is None or "attempt" not in manifest.made:
            self._output.good_log.unlink(missing_ok=True)
        elif not self._output.good_log.exists():
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._output.log, self._output.good_log)

    def _restore(self, had_output: bool) -> str:
        """Put the previous result back; return a remark about partial work, or ""."""
        path, kept = self._output.path, self._previous / "output"
        remark = ""
        if os.path.lexists(path) and (not had_output or os.path.lexists(kept)):
            remark = set_partial_aside(self._output)
        if os.path.lexists(kept):
            os.rename(kept, path)
            flush_to_disk(path.parent)
        with contextlib.suppress(FileNotFoundError):
            # Whoever has read the output meanwhile sees by the time that it was away.
            os.utime(self._previous / MANIFEST)
            os.rename(self._previous / MANIFEST, self._manifest)
        flush_to_disk(self.file.parent)
        return remark


def _writer(lock: Lock) -> dict[str, Any]:
    """Return what tells whether the present writer of a journal is alive."""
    status = os.fstat(lock.fd)
    return {
        "lock": str(lock.path),
        "lock_device": status.st_dev,
        "lock_inode": status.st_ino,
        "host": socket.gethostname(),
        "machine": machine_id(),
        "boot_id": boot_id(),
        "job": job_id(os.environ),
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
    }


def is_committed(record: Mapping[str, Any], output: Output) -> bool:
    """Return whether the attempt of a journal has made the output's present manifest."""
    attempt = record.get("attempt")
    if not isinstance(attempt, str):
        return False  # damaged; nor has a result that was made elsewhere or adopted an attempt
    manifest = read_manifest(output.state_dir)
    return manifest is not None and manifest.made.get("attempt") == attempt


def good_log(output: Output) -> Path | None:
    """Return the log of the present result, or None without one.

    None also where the result was made elsewhere.
    """
    journal, manifest = Journal(output).read(), read_manifest(output.state_dir)
    attempt = manifest.made.get("attempt") if manifest is not None else None
    if output.good_log.exists() and (journal is None or journal.get("attempt") != attempt):
        return output.good_log
    return output.log if attempt is not None and output.log.exists() else None


def is_proved_dead(record: Mapping[str, Any]) -> bool:
    """Return whether a journal's writer and its processes are proved dead.

    The proof is its lock, found free; a later boot of the same host; or SLURM, which reports that
    its job has ended. That the lock cannot be found proves nothing: another user, container or
    mount namespace may have it.
    """
    if "held" in record:
        return False
    if not isinstance(record.get("lock"), str):
        return True
    lock = open_lock(record)
    if lock is None:
        return _has_host_rebooted(record) or _has_job_ended(record)
    try:
        return lock.take()
    except OSError:
        return False
    finally:
        lock.close()


def open_lock(record: Mapping[str, Any]) -> Lock | None:
    """Open the lock of a journal's writer; None where it cannot be reached from here.

    That of another host is not opened: whether its locks reach this host is not certain.
    """
    path = record.get("lock")
    if not isinstance(path, str) or record.get("boot_id") != boot_id():
        return None
    lock = Lock.open_existing(Path(path))
    if lock is not None and not is_lock_of(record, lock):
        lock.close()
        return None
    return lock


def is_lock_of(record: Mapping[str, Any], lock: Lock) -> bool:
    """Return whether an open lock is the one that the writer of a journal holds.

    Its path alone is no proof: other hosts, containers and mount namespaces have a file of their
    own at the same path. The attempt is in the file, unless its disk was full; in one boot, its
    device and inode tell too.
    """
    attempt = record.get("attempt")
    if isinstance(attempt, str) and attempt and lock.marks(len(attempt)) == attempt:
        return True
    if record.get("boot_id") != boot_id():
        return False
    if "lock_inode" not in record:
        return record.get("lock") == str(lock.path)  # version 1
    status = os.fstat(lock.fd)
    return (record.get("lock_device"), record["lock_inode"]) == (status.st_dev, status.st_ino)


def _has_host_rebooted(record: Mapping[str, Any]) -> bool:
    """Return whether the writer ran on this very host, before its last boot."""
    machine, boot = record.get("machine"), record.get("boot_id")
    is_here = isinstance(machine, str) and machine == machine_id()
    is_here = is_here and record.get("host") == socket.gethostname()
    return is_here and isinstance(boot, str) and boot != boot_id()


def _has_job_ended(record: Mapping[str, Any]) -> bool:
    """Return whether SLURM reports that the writer's allocation has ended."""
    job, cluster = record.get("job"), record.get("cluster")
    if not isinstance(job, int) or not isinstance(cluster, str):
        return False
    ended, until = _ended_jobs.get((job, cluster), (False, -math.inf))
    if time.monotonic() >= until:
        # Another cluster may have a job of that number, or never have had one.
        known = controller.cluster_name() == cluster
        ended = known and jobs.job_state(job).state is JobState.ENDED
        _ended_jobs[job, cluster] = ended, time.monotonic() + _CACHE_SECONDS
    return ended


def describe_holder(record: Mapping[str, Any], output: Output) -> str:
    """Describe the writer of the journal of ``output`` in a phrase."""
    if "held" in record:
        return str(record["held"])
    host = record.get("host", "another host")
    started = format_moment(str(record.get("started", "")))
    description = f"{record.get('run', 'a run')} on {host} since {started}"
    lock = open_lock(record)
    if lock is not None:
        lock.close()
    elif not is_proved_dead(record):
        description += f", {_why_unknown(record, output)}"
    return description


def _why_unknown(record: Mapping[str, Any], output: Output) -> str:
    """Explain why it is unknown whether a writer is alive, and what to do."""
    host = record.get("host", "another host")
    # The journal of a maker that lives is what protects it.
    remove = (
        f"if you are sure that none of its processes lives, remove {output.state_dir / JOURNAL}"
    )
    if record.get("boot_id") != boot_id():
        remedy = f"start 'lc run' on {host} once"
        if host == socket.gethostname():  # which does not tell where that is
            remedy += f"; or, {remove}"
        return f"whose end is only known there: if it has ended, {remedy}"
    try:
        os.stat(str(record.get("lock")))
    except FileNotFoundError:
        why = "is not to be found from here"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        why = f"cannot be reached from here ({reason})"
    else:
        why = "is not the file that is at its path here"
    return (
        f"whose end is unknown, as its lock {why}: if it has ended, have its user start 'lc run' "
        f"where it ran; or, {remove}"
    )
