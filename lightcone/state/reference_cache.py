"""Cache of what scripts refer to, by their content.

Parsing a thousand lines of Python takes 20 ms, and a plan needs the references of every script.
They follow from the content alone, so they are kept in this process, and in one file of a project
from one plan to the next; nothing but time is lost with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from lightcone.errors import LightconeError
from lightcone.state.languages import Reader, read_script, reader_of
from lightcone.state.references import Kind, NotFollowed, Reference, References
from lightcone.system.files import private_directory, read_object, write_atomically

__all__ = ["REFERENCES_VERSION", "ReferenceCache"]

REFERENCES_VERSION = 1
"""To be raised whenever a reader finds anything else in the same text."""

_HEAD = 256
_MOST = 4096
# Shorter ones are read faster than they are looked up.
_WORTH_KEEPING = 512
_NOTHING = References()

_memory: dict[tuple[str, str], References] = {}


class ReferenceCache:
    """Reader of scripts that reads no content twice.

    Args:
        file: where the references are kept from one plan to the next; None for this process alone.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept: dict[str, References] | None = None
        self._used: dict[str, References] = {}
        self._is_changed = False

    def read(self, path: str) -> References:
        """Return what the script at ``path`` refers to; nothing where it is no script."""
        try:
            with open(path, "rb") as file:
                head = file.read(_HEAD)
                reader = reader_of(path, head)
                if reader is None:
                    return _NOTHING
                content = head + file.read()
        except OSError:
            return _NOTHING
        return self._references(reader, content)

    def save(self) -> None:
        """Keep what this plan read, if any of it is new."""
        if self._file is None or not self._is_changed:
            return
        kept = (self._kept or {}) | self._used
        table = {
            "version": REFERENCES_VERSION,
            "python": list(sys.version_info[:2]),
            "scripts": dict(list(kept.items())[-_MOST:]),
        }
        with contextlib.suppress(OSError, LightconeError):
            private_directory(self._file.parent, "")
            write_atomically(self._file, json.dumps(table).encode(), durable=False)
        self._is_changed = False

    def _references(self, reader: Reader, content: bytes) -> References:
        digest = hashlib.sha256(content).hexdigest()
        key = (reader.__name__, digest)
        read = _memory.get(key)
        if read is None:
            name = f"{reader.__name__} {digest}"
            read = self._load().get(name) if len(content) >= _WORTH_KEEPING else None
            if read is None:
                read = read_script(reader, content)
                if len(content) >= _WORTH_KEEPING:
                    self._used[name] = read
                    self._is_changed = True
            if len(_memory) >= _MOST:
                _memory.clear()
            _memory[key] = read
        return read

    def _load(self) -> dict[str, References]:
        if self._kept is None:
            self._kept = {}
            if self._file is not None:
                # Another user's could hide what scripts bring in.
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    if self._file.stat().st_uid == os.getuid():
                        self._kept = _parse(read_object(self._file))
        return self._kept


def _parse(table: dict[str, Any]) -> dict[str, References]:
    if (table["version"], table["python"]) != (REFERENCES_VERSION, list(sys.version_info[:2])):
        return {}
    return {name: _parse_references(*fields) for name, fields in table["scripts"].items()}


def _parse_references(
    found: list[list[Any]], search: list[str], directories: list[str], others: list[list[Any]]
) -> References:
    return References(
        tuple(Reference(Kind(each[0]), *each[1:]) for each in found),
        tuple(search),
        tuple(directories),
        tuple(NotFollowed(*each) for each in others),
    )
