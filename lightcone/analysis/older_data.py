"""The bytes of results and inputs, compared with what the older tool recorded of them.

A directory it recorded by a hash over the names and bytes of its files, a file by its time and
size, or by a hash of its bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from lightcone.analysis.output import OLD_MANIFEST
from lightcone.files import read_object

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["is_made_as", "is_same"]

_NOT_HASHED = frozenset({OLD_MANIFEST, ".snakemake_timestamp"})
# An output's directory is written to once more after its record, by what called the older tool.
_AFTERWARDS_NS = 60 * 10**9
_CHUNK = 1 << 20


def is_same(path: Path | None, version: str, since_ns: int, versions: dict[str, str]) -> bool:
    """Whether what lies at ``path`` is still what was recorded as ``version``.

    A directory without anything newer than ``since_ns`` is not read; -1 has it read always.
    ``versions`` has the hashes that were computed already, by path.
    """
    if path is None:
        return False
    try:
        top = os.stat(path)
        if version.startswith("mtime-size:"):
            return version == f"mtime-size:{top.st_mtime_ns}-{top.st_size}"
        is_tree = stat.S_ISDIR(top.st_mode)
        if is_tree and _newest(path, top) <= since_ns:
            return True
        key = os.fspath(path)
        if key not in versions:
            versions[key] = _hash_tree(key) if is_tree else _hash_file(key)
        return versions[key] == version
    except OSError:
        return version == "missing" and not os.path.lexists(path)


def is_made_as(path: Path | None, version: str, versions: dict[str, str]) -> bool:
    """Whether an output that is known to be good has the bytes recorded as ``version``."""
    if path is None:
        return False
    with contextlib.suppress(OSError, ValueError, KeyError):
        # Its record goes with it when it is made again, so what is there is about these bytes.
        if read_object(path / OLD_MANIFEST)["data_version"] == version:
            return True
    return is_same(path, version, -1, versions)


def _newest(path: Path, top: os.stat_result) -> int:
    """The time of the latest change within a directory, as far as times tell, in nanoseconds."""
    newest = top.st_mtime_ns - _AFTERWARDS_NS
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            if name not in _NOT_HASHED:
                full = os.path.join(directory, name)
                found = os.stat(full) if os.path.exists(full) else os.lstat(full)
                newest = max(newest, found.st_mtime_ns)
    return newest


def _hash_tree(top: str) -> str:
    """Over each file in the order of their names: its name, and its bytes."""
    files = {}
    for directory, _, names in os.walk(top):
        for name in names:
            full = os.path.join(directory, name)
            if name not in _NOT_HASHED and os.path.isfile(full):
                files[os.path.relpath(full, top)] = full
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(b"path:" + os.fsencode(name) + b"\0data:")
        _add(digest, files[name])
        digest.update(b"\0")
    return f"sha256:{digest.hexdigest()}"


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    _add(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _add(digest: _Hash, path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
