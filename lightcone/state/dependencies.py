"""The project's files and inputs that an output depends on, hashed."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE
from lightcone.spec.inputs import is_pattern
from lightcone.spec.output import Input, Output
from lightcone.state.commands import CommandScanner
from lightcone.state.directories import Directories
from lightcone.state.fingerprint import REFUTED, Data, Stamp, fingerprint_foreign
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Found, Way
from lightcone.state.manifest import Observed, Provenance, Source
from lightcone.state.pointers import Absence, describe_absence, find_pointer

__all__ = ["SourceFiles", "ignored"]

_BY_COMMAND = Way("command")

# Earlier versions of lc recorded pointers as data; most have such a size.
_POINTER_SIZES = range(90, 200)


class SourceFiles:
    """A project's files, each checked once and read only if changed.

    A file that was checked counts as unchanged, so an instance serves one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of files are kept from one plan to the next.
        unreadable: where given, a file that cannot be read counts as missing, and its absolute path
            is added here.
    """

    def __init__(
        self, root: Path, hashes: HashCache | None = None, unreadable: set[str] | None = None
    ) -> None:
        self.root = root
        self._unreadable = unreadable
        self.directories = Directories(os.fspath(root))
        # What outputs of one recipe were observed to use is mostly the same.
        self.observed: dict[object, Observed] = {}
        self.tree_versions: dict[str, str] = {}
        self.hashes = hashes or HashCache(None)
        self.scanner = CommandScanner(root, _references_file(self.hashes, root))
        self._root_prefix = f"{root}/"
        self._recorded: dict[str, Stamp] = {}
        self._known: dict[str, Stamp] = {}
        self._learned: dict[str, str] = {}
        self._data: dict[str, Data | None] = {}
        self._matched: dict[tuple[str, ...], Data | None] = {}
        self._pointers: dict[str, Absence] = {}
        self._stamps_by_names: dict[tuple[str, ...], dict[str, Stamp]] = {}
        self._depend_on_files: dict[tuple[str, ...], tuple[str, ...]] = {}

    def learn(self, provenance: Provenance) -> None:
        """Take the stamps recorded for an output as known."""
        self._recorded.update(provenance.files)
        self._recorded.update(provenance.observed.files)
        for source in provenance.inputs.values():
            if source.files and self._learned.get(source.text) != source.version:
                self._learned[source.text] = source.version
                path = self._absolute(source.text)
                # A pattern's files are recorded by their own paths, a tree's by those in it.
                matched = "" not in source.files and is_pattern(source.text)
                for name, stamp in source.files.items():
                    key = self._from_root(name) if matched else _join(path, name)
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
        if output.container is not None and self.container_file(output) is not None:
            files.setdefault(output.container, Way("container"))
        texts = {given.text for given in output.inputs}
        directories = [
            f"{name} in the command: of a directory that is no input, no file counts"
            for name in self.scanner.directories(output.command)
            if name not in texts
        ]
        declared_results = [output.display_path, *texts]
        results = [
            f"{name} in the command: a result counts only as an input"
            for name in self.scanner.results(output.command)
            if not any(f"{name}/".startswith(f"{each}/") for each in declared_results)
            and os.path.exists(self._root_prefix + name)
        ]
        not_followed = (*directories, *results, *by_command.not_followed)
        return Found(files, not_followed, by_command.written)

    def _declared(self, output: Output, files: Container[str]) -> set[str]:
        """Return the files that a command names, as they are its inputs."""
        declared = {given.text for given in output.inputs if given.text in files}
        for given in output.inputs:
            if given.producer is None and given.pattern is not None:
                declared.update(self.input_data(given, output).files)
            elif given.place is not None and ("$" in given.text or given.text.startswith("~")):
                declared.add(self._relative(given.place))
        return declared

    def file(self, name: str, output: Output) -> Stamp | None:
        """Return the stamp of a project's file, or None if missing."""
        data = self._data_at(self._root_prefix + name, output)
        return None if data is None else data.files.get("")

    def container_file(self, output: Output) -> Stamp | None:
        """Return the stamp of the project's file that an output's container is, if it is one.

        Of an image that is a directory only the name counts: it has links to the host's files.
        """
        if output.container is None or self.directories.is_directory(output.container):
            return None
        return self.file(output.container, output)

    def input_data(self, given: Input, output: Output) -> Data:
        """Return the data of an input that no output makes.

        Where nothing is there, the text that the command receives is the version.
        """
        if given.unset:
            return Data(f"unset:{given.text}")
        data = self._find_data(given, output)
        if data is None:
            return Data(f"text:{given.value[0]}")
        if self._pointers and any(
            path in self._pointers for path in self._paths(given, data.files)
        ):
            # No result of a pointer is good, even if an earlier version of lc recorded one.
            return Data(f"pointer:{data.version}", data.files)
        return data

    def absences(self, given: Input, output: Output) -> list[Absence]:
        """Return what is not here of an input that no output makes and that has to be here."""
        if given.unset:
            one = len(given.unset) == 1
            needs = (
                f"{given.text} needs {' and '.join(given.unset)}, which {'is' if one else 'are'}"
            )
            return [
                Absence(
                    f"{needs} not set", f"set {'it' if one else 'them'}, or correct {SPEC_FILE}"
                )
            ]
        return list(self._absent(given, output).values())

    def may_be(self, given: Input, output: Output, recorded: Source) -> bool:
        """Return whether an input of which something is not here may be as ``recorded``.

        It may unless a file that is here, or the hash in a pointer, shows another.
        """
        if given.text != recorded.text or not recorded.files:
            return False
        if given.unset:
            return True
        data, absent = self._find_data(given, output), self._absent(given, output)
        if data is None:
            return all(each.sha256 in (None, recorded.version) for each in absent.values())
        now = dict(zip(self._paths(given, data.files), data.files.values(), strict=True))
        then = dict(zip(self._paths(given, recorded.files), recorded.files.values(), strict=True))
        return now.keys() | absent.keys() == then.keys() and all(
            _may_be(now.get(path), absent.get(path), stamp) for path, stamp in then.items()
        )

    def pointer_files(self, files: Mapping[str, Stamp]) -> dict[str, Absence]:
        """Return those among a project's ``files`` that are pointers."""
        if not self._pointers:
            return {}
        found = {name: self._pointers.get(self._root_prefix + name) for name in files}
        return {name: pointer for name, pointer in found.items() if pointer is not None}

    def _absent(self, given: Input, output: Output) -> dict[str, Absence]:
        """Return what is not here of an input, by its absolute path."""
        root = os.fspath(self.root)
        data = self._find_data(given, output)
        if data is not None:
            absent = {
                path: self._pointers[path]
                for path in self._paths(given, data.files)
                if path in self._pointers
            }
            for path in map(self._from_root, given.words if given.pattern is not None else ()):
                if self._data_at(path, output) is None:
                    absent[path] = describe_absence(path, root)
            return absent
        if not given.certain:
            return {}
        if given.place is not None:
            absence = describe_absence(given.place, root)
            if absence.problem != f"{self._relative(given.place)} does not exist":
                return {given.place: absence}
        return {given.text: Absence(f"{given.text} does not exist")}

    def _find_data(self, given: Input, output: Output) -> Data | None:
        if given.place is not None:
            return self._data_at(given.place, output)
        return self._match_pattern(given.words, output) if given.pattern is not None else None

    def _paths(self, given: Input, names: Iterable[str]) -> list[str]:
        """Return the absolute paths of the files of an input, as its record names them."""
        if given.place is not None:
            return [_join(given.place, name) for name in names]
        return [self._from_root(name) for name in names]

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

    def _match_pattern(self, words: tuple[str, ...], output: Output) -> Data | None:
        """Return the data of all that a pattern matches, which the command receives."""
        if words not in self._matched:
            files: dict[str, Stamp] = {}
            versions = []
            for path in sorted(map(self._from_root, words)):
                data = self._data_at(path, output)
                name = self._relative(path)
                versions.append(f"{name} {'' if data is None else data.version}")
                if data is not None:
                    files.update((_join(name, inner), stamp) for inner, stamp in data.files.items())
            version = hashlib.sha256("\n".join(versions).encode(errors="surrogateescape"))
            self._matched[words] = Data(version.hexdigest(), files) if versions else None
        return self._matched[words]

    def _data_at(self, path: str, output: Output) -> Data | None:
        if path not in self._data:
            try:
                self._data[path] = self._fingerprint(path, output.ignore)
            except (FileNotFoundError, NotADirectoryError):
                self._data[path] = None
            except OSError as error:
                if self._unreadable is not None:
                    self._unreadable.add(path)
                    self._data[path] = None
                    return None
                raise SpecError(
                    f"{error.filename or path}, which {output.name} depends on, cannot be read "
                    f"({error.strerror}): make it readable."
                ) from error
        return self._data[path]

    def _fingerprint(self, path: str, ignore: tuple[str, ...]) -> Data:
        fresh = []
        small = {}

        def known(name: str, status: os.stat_result) -> Stamp | None:
            full = _join(path, name)
            if status.st_size in _POINTER_SIZES:
                small[name] = status
            times = []
            for stamp in (self._known.get(full), self._recorded.get(self._relative(full))):
                if stamp is not None:
                    if stamp.matches(status):
                        return stamp
                    times.append(stamp.mtime_ns)
            cached = None if REFUTED in times else self.hashes.find(full, status)
            if cached is None:
                fresh.append(name)
                small[name] = status
            return cached

        data = fingerprint_foreign(Path(path), known, ignored(ignore))
        for name in fresh:
            full = _join(path, name)
            self._known[full] = data.files[name]
            self.hashes.keep(full, data.files[name])
        for name, status in small.items():
            full = _join(path, name)
            pointer = find_pointer(full, status, os.fspath(self.root), path)
            if pointer is not None:
                self._pointers[full] = pointer
        return data

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._root_prefix)

    def _from_root(self, name: str) -> str:
        return os.path.normpath(os.path.join(self.root, name))

    def _absolute(self, text: str) -> str:
        expanded = os.path.expandvars(os.path.expanduser(text))
        return self._from_root(expanded)


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


def _may_be(now: Stamp | None, absence: Absence | None, recorded: Stamp) -> bool:
    """Return whether a file of an input may have the recorded bytes."""
    is_same = now is not None and now.sha256 == recorded.sha256
    if absence is None:
        return is_same
    # Of the pointer itself, a result is not good.
    return not is_same and absence.sha256 in (None, recorded.sha256)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
