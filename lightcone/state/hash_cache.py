"""Cache of the stamps of files, from one plan to the next.

A good result's manifest has the stamps of the result and of its sources, so a plan reads no file
that matches. The cache has those of files that match no manifest: inputs of outputs that were never
made, and files whose status alone changed, by a clone, ``chmod`` or a restore. Such a file is read
once. The stamp of each large file is in a small file of its own, named after its path; those of
all others of a project are in one table. Each file is replaced whole, so any number of plans may
share them, and nothing but time is lost with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lightcone.errors import LightconeError
from lightcone.state.fingerprint import LARGE, UNTRUSTED, Stamp
from lightcone.system.files import private_directory, read_object, write_atomically

__all__ = ["HASH_VERSION", "HashCache"]

HASH_VERSION = 2


class HashCache:
    """Cache of stamps in ``directory``, made when needed; None disables it.

    Nothing is raised: a stamp that cannot be kept or read costs a hash.

    Args:
        directory: where the stamps are kept.
        root: the project whose small files are cached too; :meth:`save` writes their table.
    """

    def __init__(self, directory: Path | None, root: Path | None = None) -> None:
        self._directory = directory
        self._root = None if directory is None else root
        self._table: dict[str, Stamp] | None = None
        self._used: set[str] = set()
        self._is_dirty = False

    @property
    def directory(self) -> Path | None:
        """The directory of the cache, where other caches may have files, too."""
        return self._directory

    def find(self, path: str, status: os.stat_result) -> Stamp | None:
        """Return the cached stamp of the file at ``path`` if it matches."""
        if self._directory is None:
            return None
        if status.st_size < LARGE:
            stamp = None if self._root is None else self._small(self._root).get(path)
            self._used.add(path)
        else:
            stamp = self._large(path)
        return stamp if stamp is not None and stamp.matches(status) else None

    def keep(self, path: str, stamp: Stamp) -> None:
        """Cache the stamp of a file, unless it is untrusted."""
        if self._directory is None or stamp.mtime_ns == UNTRUSTED:
            return
        if stamp.size < LARGE:
            if self._root is not None:
                self._small(self._root)[path] = stamp
                self._used.add(path)
                self._is_dirty = True
            return
        self._write(path, {"path": path} | stamp._asdict())

    def save(self) -> None:
        """Write the table of the small files, if anything in it is new.

        Files that are gone are dropped.
        """
        if self._root is None or self._table is None or not self._is_dirty:
            return
        files = {
            path: stamp
            for path, stamp in self._table.items()
            if path in self._used or os.path.lexists(path)
        }
        self._write(os.fspath(self._root), {"path": os.fspath(self._root), "files": files})
        self._is_dirty = False

    def _small(self, root: Path) -> dict[str, Stamp]:
        if self._table is None:
            self._table = {}
            table = self._read(os.fspath(root))
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                for path, fields in table.get("files", {}).items():
                    stamp = Stamp(*fields)
                    if isinstance(stamp.sha256, str):
                        self._table[path] = stamp
        return self._table

    def _large(self, path: str) -> Stamp | None:
        table = self._read(path)
        try:
            stamp = Stamp(*(table[name] for name in Stamp._fields))
        except KeyError:
            return None
        return stamp if isinstance(stamp.sha256, str) else None

    def _read(self, path: str) -> dict[str, Any]:
        """Return the content of the cache file for ``path``, empty where none is usable."""
        assert self._directory is not None
        file = self._file(self._directory, path)
        try:
            if file.stat().st_uid != os.getuid():
                return {}
            table = read_object(file)
        except (OSError, ValueError):
            return {}
        usable = (table.get("version"), table.get("path")) == (HASH_VERSION, path)
        return table if usable else {}

    def _write(self, path: str, table: dict[str, Any]) -> None:
        assert self._directory is not None
        content = json.dumps({"version": HASH_VERSION} | table).encode()
        with contextlib.suppress(OSError, LightconeError):
            private_directory(self._directory, "")
            write_atomically(self._file(self._directory, path), content, durable=False)

    @staticmethod
    def _file(directory: Path, path: str) -> Path:
        return directory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
