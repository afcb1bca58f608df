"""The project's files and inputs that an output depends on, hashed."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Callable, Container
from functools import cache
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.spec.output import Input, Output
from lightcone.state.commands import CommandScanner
from lightcone.state.fingerprint import Data, Stamp, fingerprint_foreign
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Found, Way
from lightcone.state.manifest import Provenance

__all__ = ["SourceFiles", "ignored"]


class SourceFiles:
    """A project's files, each checked once and read only if changed.

    A file that was checked counts as unchanged, so an instance serves one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of large files are kept from one plan to the next.
    """

    def __init__(self, root: Path, hashes: HashCache | None = None) -> None:
        self.root = root
        self._hashes = hashes or HashCache(None)
        self.scanner = CommandScanner(root, _references_file(self._hashes, root))
        self.tree_versions: dict[str, str] = {}
        self._root_prefix = f"{root}/"
        self._recorded: dict[str, Stamp] = {}
        self._known: dict[str, Stamp] = {}
        self._learned: dict[str, str] = {}
        self._data: dict[str, Data | None] = {}
        self._stamps_by_names: dict[tuple[str, ...], dict[str, Stamp]] = {}
        self._depend_on_files: dict[tuple[str, ...], tuple[str, ...]] = {}

    def learn(self, provenance: Provenance) -> None:
        """Take the stamps recorded for an output as known."""
        self._recorded.update(provenance.files)
        for source in provenance.inputs.values():
            if source.files and self._learned.get(source.text) != source.version:
                self._learned[source.text] = source.version
                path = self._absolute(source.text)
                for name, stamp in source.files.items():
                    # A pattern's files are recorded by their own paths, a tree's by those in it.
                    key = self._absolute(name) if _is_pattern(source.text) else _join(path, name)
                    self._known[key] = stamp

    def project_files(self, output: Output) -> dict[str, Stamp]:
        """Return the stamps of the project's files that an output needs.

        Keys are paths from the root: of the files that its command names, of those that scripts
        among these bring in, and of those that every output depends on. Outputs may share the
        result, so callers do not change it.
        """
        stamps = self._stamps(self.scanner.all_files(output.command), output)
        declared = self._declared(output, stamps)
        if declared:
            stamps = {name: stamp for name, stamp in stamps.items() if name not in declared}
        if output.depend_on:
            stamps = stamps | self._stamps(self._files_matching(output.depend_on), output)
        return stamps

    def found(self, output: Output) -> Found:
        """Return the same files with the way in which each is found, and what is not followed."""
        by_command = self.scanner.found(output.command)
        declared = self._declared(output, by_command.files)
        files = {name: way for name, way in by_command.files.items() if name not in declared}
        for name in self._files_matching(output.depend_on) if output.depend_on else ():
            files.setdefault(name, Way("depend_on"))
        if output.container is not None and self.file(output.container, output) is not None:
            files.setdefault(output.container, Way("container"))
        texts = {given.text for given in output.inputs}
        directories = [
            f"{name} in the command: of a directory that is no input, no file counts"
            for name in self.scanner.directories(output.command)
            if name not in texts
        ]
        return Found(files, (*directories, *by_command.not_followed))

    def _declared(self, output: Output, files: Container[str]) -> set[str]:
        """Return the files that a command names, as they are its inputs."""
        declared = {given.text for given in output.inputs if given.text in files}
        for given in output.inputs:
            if given.producer is None and _is_pattern(given.text):
                declared.update(self.input_data(given, output).files)
        return declared

    def file(self, name: str, output: Output) -> Stamp | None:
        """Return the stamp of a project's file, or None if missing."""
        data = self._data_at(self._root_prefix + name, output)
        return None if data is None else data.files.get("")

    def input_data(self, given: Input, output: Output) -> Data:
        """Return the data of an input that no output makes.

        Where nothing is there, its text is the version.
        """
        return self._find_data(given, output) or Data(f"text:{given.text}")

    def is_missing(self, given: Input, output: Output) -> bool:
        """Return whether a required input that no output makes is missing."""
        return given.certain and self._find_data(given, output) is None

    def _find_data(self, given: Input, output: Output) -> Data | None:
        data = None
        if given.place is not None:
            data = self._data_at(given.place, output)
        if data is None and _is_pattern(given.text):
            data = self._match_pattern(given.text, output)
        return data

    def _stamps(self, names: tuple[str, ...], output: Output) -> dict[str, Stamp]:
        if names not in self._stamps_by_names:
            stamps = {name: self.file(name, output) for name in names}
            self._stamps_by_names[names] = {name: stamp for name, stamp in stamps.items() if stamp}
        return self._stamps_by_names[names]

    def _files_matching(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if patterns not in self._depend_on_files:
            names = {
                os.path.normpath(name)
                for pattern in patterns
                for name in glob.glob(pattern, root_dir=self.root, recursive=True)
                if os.path.isfile(self._root_prefix + name)
            }
            self._depend_on_files[patterns] = tuple(sorted(filter(self.scanner.is_source, names)))
        return self._depend_on_files[patterns]

    def _match_pattern(self, pattern: str, output: Output) -> Data | None:
        """Return the data of all files that a shell pattern matches."""
        if pattern not in self._data:
            files: dict[str, Stamp] = {}
            versions = []
            for path in sorted(glob.glob(self._absolute(pattern))):
                data = self._data_at(path, output)
                if data is not None:
                    name = self._relative(path)
                    versions.append(f"{name} {data.version}")
                    files.update((_join(name, inner), stamp) for inner, stamp in data.files.items())
            version = hashlib.sha256("\n".join(versions).encode(errors="surrogateescape"))
            self._data[pattern] = Data(version.hexdigest(), files) if versions else None
        return self._data[pattern]

    def _data_at(self, path: str, output: Output) -> Data | None:
        if path not in self._data:
            try:
                self._data[path] = self._fingerprint(path, output.ignore)
            except (FileNotFoundError, NotADirectoryError):
                self._data[path] = None
            except OSError as error:
                raise SpecError(
                    f"{error.filename or path}, which {output.name} depends on, cannot be read "
                    f"({error.strerror}): make it readable."
                ) from error
        return self._data[path]

    def _fingerprint(self, path: str, ignore: tuple[str, ...]) -> Data:
        fresh = []

        def known(name: str, status: os.stat_result) -> Stamp | None:
            full = _join(path, name)
            for stamp in (self._known.get(full), self._recorded.get(self._relative(full))):
                if stamp is not None and stamp.matches(status):
                    return stamp
            cached = self._hashes.find(full, status)
            if cached is None:
                fresh.append(name)
            return cached

        data = fingerprint_foreign(Path(path), known, ignored(ignore))
        for name in fresh:
            full = _join(path, name)
            self._known[full] = data.files[name]
            self._hashes.keep(full, data.files[name])
        return data

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._root_prefix)

    def _absolute(self, text: str) -> str:
        expanded = os.path.expandvars(os.path.expanduser(text))
        return os.path.normpath(os.path.join(self.root, expanded))


@cache
def ignored(patterns: tuple[str, ...]) -> Callable[[str], object] | None:
    """Return what accepts a path that a pattern matches, or that is below such a directory.

    None where there are no patterns.
    """
    if not patterns:
        return None
    choices = []
    for pattern in patterns:
        path = pattern.removeprefix("./").rstrip("/")
        # In fnmatch's translation only the end of the whole text would end a match.
        matched = fnmatch.translate(path).removesuffix(r"\Z").removesuffix(r"\z")
        choices.append(f"{'' if '/' in path else '(?:.*/)?'}{matched}(?:/.*)?")
    return re.compile("|".join(choices), re.DOTALL).fullmatch


def _references_file(hashes: HashCache, root: Path) -> Path | None:
    if hashes.directory is None:
        return None
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return hashes.directory / f"scripts-{name}.json"


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
