"""The bytes of what an output is made from: the project's files, and what inputs consist of."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path

from lightcone.analysis.fingerprint import Data, Stamp, fingerprint_foreign
from lightcone.analysis.hashes import Hashes
from lightcone.analysis.manifest import Parts
from lightcone.analysis.mentions import Mentions
from lightcone.analysis.output import Input, Output
from lightcone.errors import SpecError

__all__ = ["Sources"]


class Sources:
    """A project's files, each looked at once and read only where no known stamp stands.

    What it has seen it takes as unchanged, so one serves for one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of large files are kept from one plan to the next.
    """

    def __init__(self, root: Path, hashes: Hashes | None = None) -> None:
        self.root = root
        self.mentions = Mentions(root)
        self.tree_versions: dict[str, str] = {}
        self._hashes = hashes or Hashes(None)
        self._inside = f"{root}/"
        self._recorded: dict[str, Stamp] = {}
        self._known: dict[str, Stamp] = {}
        self._learned: dict[str, str] = {}
        self._data: dict[str, Data | None] = {}
        self._together: dict[tuple[str, ...], dict[str, Stamp]] = {}
        self._always: dict[tuple[str, ...], tuple[str, ...]] = {}

    def learn(self, parts: Parts) -> None:
        """Take the stamps that were recorded for an output as known."""
        self._recorded.update(parts.files)
        for source in parts.inputs.values():
            if source.files and self._learned.get(source.text) != source.version:
                self._learned[source.text] = source.version
                path = self._place(source.text)
                for name, stamp in source.files.items():
                    # A pattern's files are recorded by their own paths, a tree's by those in it.
                    key = self._place(name) if _is_pattern(source.text) else _join(path, name)
                    self._known[key] = stamp

    def of(self, output: Output) -> dict[str, Stamp]:
        """The project's files that an output depends on, by their path from the root.

        Those that its command names, those that scripts among these bring in, and those that
        every output of the project depends on. Not to be changed: outputs may share it.
        """
        stamps = self._stamps(self.mentions.all(output.command), output)
        if any(given.text in stamps for given in output.inputs):
            texts = {given.text for given in output.inputs}
            stamps = {name: stamp for name, stamp in stamps.items() if name not in texts}
        if output.depend_on:
            stamps = stamps | self._stamps(self._always_of(output.depend_on), output)
        return stamps

    def file(self, name: str, output: Output) -> Stamp | None:
        """The stamp of a project's file, or None where it is none."""
        data = self._look(self._inside + name, output)
        return None if data is None else data.files.get("")

    def given(self, given: Input, output: Output) -> Data:
        """What an input that no output makes consists of; its text where nothing is there."""
        return self._find(given, output) or Data(f"text:{given.text}")

    def lacks(self, given: Input, output: Output) -> bool:
        """Whether nothing is there of an input that no output makes, and something has to be."""
        return given.certain and self._find(given, output) is None

    def _find(self, given: Input, output: Output) -> Data | None:
        data = None
        if given.place is not None:
            data = self._look(given.place, output)
        if data is None and _is_pattern(given.text):
            data = self._match(given.text, output)
        return data

    def _stamps(self, names: tuple[str, ...], output: Output) -> dict[str, Stamp]:
        if names not in self._together:
            found = {name: self.file(name, output) for name in names}
            self._together[names] = {name: stamp for name, stamp in found.items() if stamp}
        return self._together[names]

    def _always_of(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if patterns not in self._always:
            found = {
                os.path.normpath(name)
                for pattern in patterns
                for name in glob.glob(pattern, root_dir=self.root, recursive=True)
                if os.path.isfile(self._inside + name)
            }
            self._always[patterns] = tuple(sorted(filter(self.mentions.is_source, found)))
        return self._always[patterns]

    def _match(self, pattern: str, output: Output) -> Data | None:
        """All that a pattern of the shell's matches, as one."""
        if pattern not in self._data:
            files: dict[str, Stamp] = {}
            versions = []
            for path in sorted(glob.glob(self._place(pattern))):
                data = self._look(path, output)
                if data is not None:
                    name = self._relative(path)
                    versions.append(f"{name} {data.version}")
                    files.update((_join(name, inner), stamp) for inner, stamp in data.files.items())
            version = hashlib.sha256("\n".join(versions).encode(errors="surrogateescape"))
            self._data[pattern] = Data(version.hexdigest(), files) if versions else None
        return self._data[pattern]

    def _look(self, path: str, output: Output) -> Data | None:
        if path not in self._data:
            try:
                self._data[path] = self._fingerprint(path)
            except (FileNotFoundError, NotADirectoryError):
                self._data[path] = None
            except OSError as error:
                raise SpecError(
                    f"{error.filename or path}, which {output.name} depends on, cannot be read "
                    f"({error.strerror}): make it readable."
                ) from error
        return self._data[path]

    def _fingerprint(self, path: str) -> Data:
        fresh = []

        def known(name: str, found: os.stat_result) -> Stamp | None:
            full = _join(path, name)
            for stamp in (self._known.get(full), self._recorded.get(self._relative(full))):
                if stamp is not None and stamp.stands(found):
                    return stamp
            kept = self._hashes.find(full, found)
            if kept is None:
                fresh.append(name)
            return kept

        data = fingerprint_foreign(Path(path), known)
        for name in fresh:
            full = _join(path, name)
            self._known[full] = data.files[name]
            self._hashes.keep(full, data.files[name])
        return data

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._inside)

    def _place(self, text: str) -> str:
        expanded = os.path.expandvars(os.path.expanduser(text))
        return os.path.normpath(os.path.join(self.root, expanded))


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
