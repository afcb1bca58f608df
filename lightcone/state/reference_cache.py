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
from lightcone.state.languages import NOT_READ, Language, language_of
from lightcone.state.references import Kind, NotFollowed, Reference, References
from lightcone.system.files import private_directory, read_object, write_atomically

__all__ = ["REFERENCES_VERSION", "ReferenceCache"]

REFERENCES_VERSION = 3
"""To be raised whenever a reader finds anything else in the same text."""

_HEAD = 256
_MOST = 4096
# More than a reader takes of any script, so that it can tell that there is more.
_MOST_READ = (64 << 20) + 1
_NOTHING = References()

_memory: dict[str, References] = {}


class ReferenceCache:
    """Reader of scripts that reads no content twice.

    Args:
        file: where the references are kept from one plan to the next; None for this process alone.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept: dict[str, References] | None = None
        self._fresh: dict[str, References] = {}

    def read(self, path: str) -> References:
        """Return what the script at ``path`` refers to; nothing where it is no script."""
        try:
            with open(path, "rb") as file:
                head = file.read(_HEAD)
                language = language_of(path, head)
                if language is None:
                    return _NOTHING
                if language is Language.OTHER:
                    return NOT_READ
                content = head + file.read(_MOST_READ)
        except OSError:
            return _NOTHING
        return self.references(language, content)

    def save(self) -> None:
        """Keep what this plan read, if any of it is new."""
        if self._file is None or not self._fresh:
            return
        kept = self._load() | self._fresh
        table = {
            "version": REFERENCES_VERSION,
            "python": list(sys.version_info[:2]),
            "scripts": dict(list(kept.items())[-_MOST:]),
        }
        with contextlib.suppress(OSError, LightconeError):
            private_directory(self._file.parent, "")
            write_atomically(self._file, json.dumps(table).encode(), durable=False)
        self._kept, self._fresh = kept, {}

    def references(self, language: Language, content: bytes) -> References:
        """Return what a text refers to, reading it if no plan has."""
        key = f"{language} {hashlib.sha256(content).hexdigest()}"
        read = _memory.get(key) or self._load().get(key)
        if read is None:
            from lightcone.state.readers import read_script

            read = self._fresh[key] = read_script(language, content)
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
