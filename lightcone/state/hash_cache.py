"""Cache of the stamps of large files, from one plan to the next.

A good result's manifest has the stamps of what it was made from. Until there is one, a plan would
read every large input again; here its stamp is kept, in a small file of its own, named after the
input's path. Each is replaced whole, so any number of plans may share them, and nothing but time
is lost with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from lightcone.errors import LightconeError
from lightcone.state.fingerprint import LARGE, UNTRUSTED, Stamp
from lightcone.system.files import private_directory, read_object, write_atomically

__all__ = ["HASH_VERSION", "HashCache"]

HASH_VERSION = 1


class HashCache:
    """Cache of stamps in ``directory``, made when needed; None disables it.

    Nothing is raised: what cannot be kept or read is hashed again.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path | None:
        """The directory of the cache, where other caches may have files, too."""
        return self._directory

    def find(self, path: str, status: os.stat_result) -> Stamp | None:
        """Return the cached stamp of the file at ``path`` if it matches."""
        if self._directory is None or status.st_size < LARGE:
            return None
        file = self._file(self._directory, path)
        try:
            if file.stat().st_uid != os.getuid():
                return None
            table = read_object(file)
            if (table["version"], table["path"]) != (HASH_VERSION, path):
                return None
            stamp = Stamp(table["size"], table["mtime_ns"], table["inode"], table["sha256"])
        except (OSError, ValueError, KeyError):
            return None
        return stamp if isinstance(stamp.sha256, str) and stamp.matches(status) else None

    def keep(self, path: str, stamp: Stamp) -> None:
        """Cache the stamp of a large file, unless it is untrusted."""
        if self._directory is None or stamp.size < LARGE or stamp.mtime_ns == UNTRUSTED:
            return
        content = json.dumps({"version": HASH_VERSION, "path": path} | stamp._asdict()).encode()
        with contextlib.suppress(OSError, LightconeError):
            private_directory(self._directory, "")
            write_atomically(self._file(self._directory, path), content, durable=False)

    @staticmethod
    def _file(directory: Path, path: str) -> Path:
        return directory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
