"""Fingerprints of files and trees: their hashes, and checks for changes.

A file whose size, times and inode match is not read again. The time of its last status change
(ctime) counts beside that of its last modification, because ``cp -p``, ``touch -d`` and the like
set the latter as they please, while only the kernel sets the former. ``chmod``, a rename or a new
hard link change it too: then the bytes decide. That is safe only where the file could not have
been written once more within the tick of the file system's clock in which it was hashed, so a
stamp taken that soon carries ``UNTRUSTED`` as its time, and a comparison with it reads the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from lightcone.state.trees import Entry, does_count, hash_link, walk

__all__ = [
    "LARGE",
    "REFUTED",
    "UNTRUSTED",
    "Data",
    "Stamp",
    "StampCache",
    "difference",
    "fingerprint",
    "fingerprint_foreign",
    "unchanged",
]

UNTRUSTED = -1
"""The modification time of a stamp that cannot prove a file unchanged."""

REFUTED = -2
"""The modification time of a stamp whose file has other bytes although it matched.

``lc verify`` records it. Whatever the file's status, its bytes are read.
"""

LARGE = 16 << 20
"""Above this many bytes, waiting for a coarse tick costs less than reading at every plan."""

# Longer than the coarsest clock of a file system in use (2 s on FAT, 1 s on Lustre).
_COARSEST_TICK_NS = 2_100_000_000
# Longer than the tick of a kernel's own file systems (10 ms with 100 Hz).
_USUAL_TICK = 0.03


class Stamp(NamedTuple):
    """The size in bytes, times, inode and hash of one hashed file.

    A stamp without a ctime, as manifests of version 1 have, matches no file.
    """

    size: int
    mtime_ns: int
    inode: int
    sha256: str
    ctime_ns: int = UNTRUSTED

    def matches(self, status: os.stat_result) -> bool:
        """Return whether a file with ``status`` surely has the hashed bytes."""
        return (
            status.st_ctime_ns == self.ctime_ns != UNTRUSTED
            and status.st_mtime_ns == self.mtime_ns not in (UNTRUSTED, REFUTED)
            and status.st_size == self.size
            and status.st_ino == self.inode
        )


class StampCache(Protocol):
    """Stamps of files whose bytes were read although there was a record of them."""

    def find(self, path: str, status: os.stat_result) -> Stamp | None:
        """Return the cached stamp of the file at ``path`` if it matches."""

    def keep(self, path: str, stamp: Stamp) -> None:
        """Cache the stamp of the file at ``path``, unless it is untrusted."""


@dataclass(frozen=True, slots=True)
class Data:
    """The fingerprint of an output or an input.

    Attributes:
        version: SHA-256 in hexadecimal: of the file's bytes, or over a tree's names and bytes.
        files: the stamp of each file by its path within the tree, with ``/``; under ``""`` where
            the path is itself a file.
    """

    version: str
    files: dict[str, Stamp] = field(default_factory=dict)


def fingerprint(
    path: Path,
    known: Data | Mapping[str, Stamp] | None = None,
    clock: Path | None = None,
    recorded: Data | None = None,
) -> Data:
    """Hash a file or a tree, except files that match ``known`` stamps.

    What a link leads to counts, as :func:`lightcone.state.trees.walk` has it. Modes, times, owners
    and empty directories do not count. Waits until the clock of the file system has passed the last
    write (a few milliseconds; up to 2 s for large outputs on file systems with coarse clocks), so
    that the stamps can be trusted. Flush them first.

    Of files that do not count (:func:`lightcone.state.trees.does_count`), those are left out that
    ``recorded`` lacks: they came after it. Without it all are hashed.

    That clock is read by setting the times of ``clock``, a file of the caller's on the same file
    system whose times mean nothing, or else by making a file for a moment.

    Raises:
        FileNotFoundError: where there is nothing.
        OSError: where a file cannot be read.
    """
    stamps = known.files if isinstance(known, Data) else known or {}
    files = _files(path)
    if recorded is not None:
        files = [each for each in files if each[0] in recorded.files or does_count(each[0])]
    fresh = [status for name, _, status in files if not _matches(stamps.get(name), status)]
    device = os.stat(path).st_dev
    settled = _wait_for_tick(path, fresh, device, clock) if fresh else 0
    return _hash_files(files, stamps, settled, device)


def fingerprint_foreign(
    path: Path,
    known: Callable[[str, os.stat_result], Stamp | None],
    ignore: Callable[[str], object] | None = None,
) -> Data:
    """Hash foreign files, writing nothing beside them.

    Otherwise as :func:`fingerprint`. ``known`` returns a stamp that matches a file, by its path
    within the tree and its status, or None. Files within a tree that do not count are left out
    (:func:`lightcone.state.trees.does_count`).

    Raises:
        FileNotFoundError: where there is nothing.
        OSError: where a file cannot be read.
    """
    files = _files(path, lambda name: does_count(name, ignore))
    stamps = {name: known(name, status) for name, _, status in files}
    fresh = [status for name, _, status in files if stamps[name] is None]
    settled = time.time_ns() - _COARSEST_TICK_NS
    if fresh and sum(status.st_size for status in fresh) > LARGE:
        newest = max(map(_last_change, fresh))
        if settled <= newest < settled + _COARSEST_TICK_NS:
            time.sleep((newest + 1 - settled) / 1e9)
            settled = time.time_ns() - _COARSEST_TICK_NS
    return _hash_files(files, stamps, settled)


def unchanged(path: Path, data: Data) -> bool:
    """Return whether the bytes at ``path`` are those of ``data``.

    False where they are missing.

    Reads only files whose size, times or inode differ from what was recorded.
    """
    return not difference(path, data)


def difference(path: str | Path, data: Data, cache: StampCache | None = None) -> str:
    """Describe how ``path`` differs from ``data``; "" if it does not.

    The description follows the name of the path.

    For instance ``"is missing"``, ``"was changed"``, ``"lacks a/b.csv"``, ``"cannot be read"``.
    Files that match a stamp in ``cache`` are not read, and those that are read are kept there.
    """
    single = data.files.get("")
    try:
        top = os.stat(path)
        if not stat.S_ISDIR(top.st_mode):
            if single is None:
                return "is no longer a directory"
            return "" if _same(os.fspath(path), top, single, cache) else "was changed"
        if single is not None:
            return "is now a directory"
        present = set()
        for name, full, status in walk(os.fspath(path)):
            stamp = data.files.get(name)
            if stamp is None:
                if not does_count(name):
                    # Left there by another program that used the result.
                    continue
                lost = [each for each in data.files if each.startswith(f"{name}/")]
                return f"lacks {min(lost)}" if lost else f"has a new file {name}"
            if not _same(full, status, stamp, cache):
                return f"has a changed file {name}"
            present.add(name)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(present) == len(data.files):
        return ""
    return f"lacks {min(set(data.files) - present)}"


def _files(path: Path, counts: Callable[[str], object] | None = None) -> list[Entry]:
    top = os.stat(path)
    if stat.S_ISDIR(top.st_mode):
        return list(walk(os.fspath(path), counts))
    return [("", os.fspath(path), top)]


def _matches(stamp: Stamp | None, status: os.stat_result) -> bool:
    # A link may lead elsewhere although it is the same, through another link.
    return stamp is not None and stamp.matches(status) and not stat.S_ISLNK(status.st_mode)


def _wait_for_tick(path: Path, fresh: list[os.stat_result], device: int, clock: Path | None) -> int:
    """Return the time of the file system ``device`` once it has passed all of ``fresh``.

    In nanoseconds; earlier than that where waiting longer is not worth it.
    """
    newest = max(map(_last_change, fresh))
    now = _clock(path, device, clock)
    large = sum(status.st_size for status in fresh) > LARGE
    timeout = _COARSEST_TICK_NS / 1e9 if large else _USUAL_TICK
    deadline = time.monotonic() + timeout
    while now <= newest < now + _COARSEST_TICK_NS and time.monotonic() < deadline:
        time.sleep(0.001)
        now = _clock(path, device, clock)
    return now


def _clock(path: Path, device: int, file: Path | None) -> int:
    """Return the time, in nanoseconds, of a file written at ``path`` now."""
    import tempfile

    try:
        if file is not None:
            os.utime(file)
            status = os.stat(file)
            if status.st_dev == device:
                return status.st_mtime_ns
        directory = os.path.realpath(path)
        if not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        with tempfile.TemporaryFile(dir=directory, prefix=".lightcone-") as probe:
            return os.fstat(probe.fileno()).st_mtime_ns
    except OSError:
        return time.time_ns() - _COARSEST_TICK_NS


def _hash_files(
    files: list[Entry],
    known: Mapping[str, Stamp | None],
    settled: int,
    device: int | None = None,
) -> Data:
    """Hash what does not match ``known``; ``settled`` is the time of ``device``, or of all."""
    elsewhere = settled if device is None else min(settled, time.time_ns() - _COARSEST_TICK_NS)
    stamps = {}
    for name, full, status in files:
        stamp = known.get(name)
        if stamp is None or not _matches(stamp, status):
            by = settled if status.st_dev == device else elsewhere
            stamp = _take_stamp(full, status, by)
        stamps[name] = stamp
    if "" in stamps:
        return Data(stamps[""].sha256, stamps)
    digest_of_all = hashlib.sha256(b"tree\0")
    for name in sorted(stamps):
        entry = os.fsencode(name) + b"\0" + stamps[name].sha256.encode() + b"\n"
        digest_of_all.update(entry)
    return Data(digest_of_all.hexdigest(), stamps)


def _take_stamp(path: str, before: os.stat_result, settled: int) -> Stamp:
    """Hash a file; the stamp is trusted if it last changed before ``settled``."""
    digest = _hash(path, before)
    after = os.stat(path, follow_symlinks=not stat.S_ISLNK(before.st_mode))
    trusted = (
        _last_change(after) < settled
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
        and before.st_ino == after.st_ino
    )
    mtime_ns = after.st_mtime_ns if trusted else UNTRUSTED
    return Stamp(after.st_size, mtime_ns, after.st_ino, digest, after.st_ctime_ns)


def _last_change(status: os.stat_result) -> int:
    """Return the later of a file's times, in nanoseconds."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _same(path: str, status: os.stat_result, stamp: Stamp, cache: StampCache | None) -> bool:
    if _matches(stamp, status):
        return True
    if stat.S_ISLNK(status.st_mode):
        return hash_link(path) == stamp.sha256
    if status.st_size != stamp.size:
        return False
    if cache is None:
        return _hash(path, status) == stamp.sha256
    found = None if stamp.mtime_ns == REFUTED else cache.find(path, status)
    if found is None:
        found = _take_stamp(path, status, time.time_ns() - _COARSEST_TICK_NS)
        cache.keep(path, found)
    return found.sha256 == stamp.sha256


def _hash(path: str, status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        return hash_link(path)
    return hashlib.sha256(b"special\0%o" % stat.S_IFMT(status.st_mode)).hexdigest()
