"""The journal of a claim: what was set aside for a recipe, for whoever has to put it back.

It lies beside the results, and is written before anything is moved. Who finds one whose writer is
gone knows by it what became of the output:

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
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.errors import SessionError
from lightcone.project.host import boot_id
from lightcone.slurm import controller, jobs
from lightcone.slurm.allocation import job_id
from lightcone.slurm.jobs import JobState
from lightcone.spec.output import MANIFEST, Output
from lightcone.state.manifest import read_manifest
from lightcone.state.partial import NEXT, discard_partial, keep_partial, set_partial_aside
from lightcone.system.files import flush_to_disk, read_object, remove, write_new
from lightcone.system.locks import Lock
from lightcone.system.units import format_moment

__all__ = [
    "JOURNAL",
    "JOURNAL_VERSION",
    "Journal",
    "describe_holder",
    "good_log",
    "is_proved_dead",
    "read_journal",
]

JOURNAL = "journal.json"
JOURNAL_VERSION = 1
# All the outputs that a run makes there ask the same, and each would wait for SLURM's answer.
_FRESH = 2.0
_answers: dict[tuple[int, str], tuple[bool, float]] = {}
_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


def read_journal(state_dir: Path) -> dict[str, Any] | None:
    """What the journal in ``state_dir`` says, or None where there is none.

    One that cannot be read, or that a newer ``lc`` has written, is somebody's still, whoever that
    is: ``held`` says so in words that follow "waiting for".
    """
    file = state_dir / JOURNAL
    try:
        told = read_object(file)
    except OSError as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        if gone and not file.is_symlink():
            return None
        why = f"{file}, which cannot be read ({error.strerror})"
        return {"held": f"whoever wrote {why}", "unreadable": why}
    except ValueError:
        # Written atomically, so this is damage; it is safe to look for what was set aside.
        return {"had_output": True}
    version = told.get("version")
    if isinstance(version, int) and version > JOURNAL_VERSION:
        return {"held": f"a newer lc, which wrote {file}: upgrade lc"}
    return told


class Journal:
    """The journal of one output, and the previous result that it is about."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.file = output.state_dir / JOURNAL
        self._previous = output.state_dir / "previous"
        self._manifest = output.state_dir / MANIFEST

    def read(self) -> dict[str, Any] | None:
        """What it says, or None where there is none."""
        return read_journal(self._output.state_dir)

    def begin(
        self, attempt: str, run: str, lock: Path, identity: str, *, had_output: bool, umask: int
    ) -> bool:
        """Write it, unless there is one: contexts that share no lock share its name.

        Raises:
            OSError: where it cannot be written.
        """
        told = {
            "version": JOURNAL_VERSION,
            "attempt": attempt,
            "run": run,
            "lock": str(lock),
            "host": socket.gethostname(),
            "boot_id": boot_id(),
            "job": job_id(os.environ),
            "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "had_output": had_output,
            "identity": identity,
            "name": self._output.path.name,
        }
        new = self.file.with_name(f".{JOURNAL}.{attempt}.new")
        write_new(new, json.dumps(told).encode(), 0o666, durable=had_output, umask=umask)
        try:
            os.link(new, self.file)
        except (FileExistsError, FileNotFoundError):
            return False  # somebody was quicker, and may have cleared this away as unfinished
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            os.rename(new, self.file)
        finally:
            new.unlink(missing_ok=True)
        if had_output:
            flush_to_disk(self.file.parent)
        return True

    def set_aside(self, *, had_output: bool) -> None:
        """Move the result there is out of the way; the journal has begun.

        Raises:
            OSError: where that cannot be done; :meth:`settle` puts back what was moved.
        """
        for leftover in (self._previous, self._output.state_dir / NEXT):
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

    def settle(self, told: Mapping[str, Any]) -> None:
        """Make the path what it has to be now that the writer of ``told`` is done or gone.

        Raises:
            OSError: where that cannot be done; it can be tried again.
        """
        recorded = read_manifest(self._output.state_dir)
        committed = recorded is not None and recorded.made.get("attempt") == told.get("attempt")
        if committed:
            self.forget()
            return
        if not os.path.lexists(self._manifest):
            self._restore(bool(told.get("had_output")))
        if not os.path.lexists(self._output.log):
            # Nothing has been run: the good result's log is the last one again.
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._output.good_log, self._output.log)
        keep_partial(self._output, self.file)
        remove(self._previous)
        self.end()

    def forget(self) -> None:
        """The result is made: remove what is left of those before it, and then the journal.

        Raises:
            OSError: where something cannot be removed; it can be tried again.
        """
        remove(self._output.good_log)
        discard_partial(self._output)
        remove(self._previous)
        self.end()

    def end(self) -> None:
        """Remove it; the path is then the next one's.

        Raises:
            OSError: where it cannot be removed; it can be tried again.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)

    def _keep_log(self) -> None:
        """Let the good result's log stay when the next attempt has one of its own."""
        recorded = read_manifest(self._output.state_dir)
        if recorded is None or "attempt" not in recorded.made:
            self._output.good_log.unlink(missing_ok=True)
        elif not self._output.good_log.exists():
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._output.log, self._output.good_log)

    def _restore(self, had_output: bool) -> None:
        path, kept = self._output.path, self._previous / "output"
        if os.path.lexists(path) and (not had_output or os.path.lexists(kept)):
            set_partial_aside(self._output)
        if os.path.lexists(kept):
            os.rename(kept, path)
            flush_to_disk(path.parent)
        with contextlib.suppress(FileNotFoundError):
            # Whoever has read the output meanwhile sees by the time that it was away.
            os.utime(self._previous / MANIFEST)
            os.rename(self._previous / MANIFEST, self._manifest)
        flush_to_disk(self.file.parent)


def good_log(output: Output) -> Path | None:
    """What the recipe printed that made the result there is; None where none has made it here."""
    told, recorded = Journal(output).read(), read_manifest(output.state_dir)
    attempt = recorded.made.get("attempt") if recorded is not None else None
    if output.good_log.exists() and (told is None or told.get("attempt") != attempt):
        return output.good_log
    return output.log if attempt is not None and output.log.exists() else None


def is_proved_dead(told: Mapping[str, Any]) -> bool:
    """Whether the writer of a journal is known to be gone, with all its processes."""
    lock = told.get("lock")
    if "held" in told:
        return False
    if not isinstance(lock, str):
        return True
    if not _is_seen(told, lock):
        # This host's before it was started anew or its scratch was cleaned; or another host's.
        return told.get("host") == socket.gethostname() or _has_ended(told)
    try:
        return Lock.is_free(Path(lock), including_shared=True)
    except (OSError, SessionError):
        return False  # another user's, say: it cannot be asked, so it is not known to be gone


def _has_ended(told: Mapping[str, Any]) -> bool:
    """Whether the writer was in an allocation that SLURM says has ended."""
    job, cluster = told.get("job"), told.get("cluster")
    if not isinstance(job, int) or not isinstance(cluster, str):
        return False
    ended, until = _answers.get((job, cluster), (False, -math.inf))
    if time.monotonic() >= until:
        # Another cluster may have a job of that number, or never have had one.
        known = controller.cluster_name() == cluster
        ended = known and jobs.job_state(job).state is JobState.ENDED
        _answers[job, cluster] = ended, time.monotonic() + _FRESH
    return ended


def describe_holder(told: Mapping[str, Any]) -> str:
    """The writer of a journal, in words."""
    if "held" in told:
        return str(told["held"])
    host, lock = told.get("host", "another host"), told.get("lock")
    started = format_moment(str(told.get("started", "")))
    who = f"{told.get('run', 'a run')} on {host} since {started}"
    if isinstance(lock, str) and not _is_seen(told, lock) and not is_proved_dead(told):
        who += f", whose end is only known there: if it has ended, start 'lc run' on {host} once"
    return who


def _is_seen(told: Mapping[str, Any], lock: str) -> bool:
    """Whether the writer's lock can be asked: not another host's, nor that of a container here."""
    return told.get("boot_id") == boot_id() and os.path.exists(lock)
