"""The project's files and inputs that an output depends on, hashed."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE
from lightcone.spec.inputs import is_pattern
from lightcone.spec.output import Input, Output
from lightcone.state.fingerprint import Data, Stamp, fingerprint_foreign
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Scripts, SearchPaths
from lightcone.state.manifest import Provenance, Source
from lightcone.state.pointers import Absence, describe_absence, find_pointer

__all__ = ["CommandScanner", "SourceFiles"]

_WORD = re.compile(r"[^\s;|&<>()'\"`]+")

_QUOTING = re.compile(r"['\"\\]")

_PIECES = re.compile(r"[=,:]")

_WITH_SPACES = re.compile(
    r"""'[^'\n]* [^'\n]*'|"[^"\n]* [^"\n]*"|(?:[^\s\\'"]|\\.)*\\ (?:[^\s\\'"]|\\.)*"""
)

_WRITTEN = re.compile(
    r""">>?[|&]?[ \t]*('[^'\n]*'|"[^"\n]*"|[^\s;|&<>()'"`]+)|(?<![\w.-])tee[ \t]([^\n;|&<>()]+)"""
)

_ENVIRONMENT = re.compile(r"/(?:bin|lib|lib64)/")

_AT_ROOT = SearchPaths()

# Earlier versions of lc recorded pointers as data; most have such a size.
_POINTER_SIZES = range(90, 200)


class CommandScanner:
    """Cached scanner of a project's commands and scripts, for one plan."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._root_prefix = f"{root}/"
        self._scripts = Scripts(self._root, self.is_source)
        self._words: dict[str, dict[str, tuple[str, ...]]] = {}
        self._all_files: dict[tuple[tuple[str, ...], SearchPaths], tuple[str, ...]] = {}
        self._exists: dict[str, bool] = {}

    def named_files(self, command: str) -> tuple[str, ...]:
        """Return the files that the command itself names, relative to the root."""
        return tuple(self._named_files(command, _AT_ROOT.updated_by(command).directories))

    def all_files(self, command: str) -> tuple[str, ...]:
        """Return the files that the command names, and their scripts' dependencies."""
        search_paths = _AT_ROOT.updated_by(command)
        key = (tuple(self._named_files(command, search_paths.directories)), search_paths)
        names = self._all_files.get(key)
        if names is None:
            dependencies = [self._scripts.dependencies(name, search_paths) for name in key[0]]
            names = self._all_files[key] = tuple(dict.fromkeys(chain(key[0], *dependencies)))
        if "-m" in command or "import" in command:
            modules = self._scripts.modules_of(command, search_paths)
            names = tuple(dict.fromkeys(chain(names, modules)))
        return names

    def is_source(self, name: str) -> bool:
        """Return whether a path may be a source: no result, not installed."""
        return not self._is_result(name) and not self._is_installed(name)

    def _named_files(self, command: str, directories: tuple[str, ...]) -> dict[str, None]:
        names = self._files(_split(command), directories)
        if ">" in command or "tee" in command:
            for name in self._files(_written(command), directories):
                names.pop(name, None)
        return names

    def _files(self, words: Iterable[str], directories: tuple[str, ...]) -> dict[str, None]:
        names: dict[str, None] = {}
        for directory in directories:
            known = self._words.setdefault(directory, {})
            for word in words:
                if word.startswith("results/") and not directory:
                    continue
                matched = known.get(word)
                if matched is None:
                    matched = known[word] = tuple(self._files_in(word, directory))
                for name in matched:
                    names[name] = None
        return names

    def _files_in(self, word: str, directory: str) -> Iterator[str]:
        pieces = _PIECES.split(word)
        if len(pieces) > 1:
            pieces.append(word)
            pieces.append(word.partition("=")[2])
        for piece in pieces:
            if piece and len(piece) < 1024:
                path = os.path.normpath(os.path.join(self._root, directory, piece))
                if path.startswith(self._root_prefix):
                    name = path[len(self._root_prefix) :]
                    if os.path.isfile(path) and self.is_source(name):
                        yield name

    def _is_result(self, name: str) -> bool:
        """Return whether a path is in the results of any project.

        That is, of this project or of one below it.
        """
        start = 0
        while (end := name.find("results/", start)) >= 0:
            start = end + 1
            above = name[:end]
            if not above or (above.endswith("/") and self._has_file(above, SPEC_FILE)):
                return True
        return False

    def _is_installed(self, name: str) -> bool:
        """Return whether a path is in a Python or conda environment."""
        for match in _ENVIRONMENT.finditer(name):
            above = name[: match.start() + 1]
            if self._has_file(above, "pyvenv.cfg") or self._has_file(above, "conda-meta"):
                return True
        return False

    def _has_file(self, directory: str, name: str) -> bool:
        path = f"{self._root_prefix}{directory}{name}"
        if path not in self._exists:
            self._exists[path] = os.path.exists(path)
        return self._exists[path]


def _split(command: str) -> list[str]:
    words: list[str] = _WORD.findall(command)
    if _QUOTING.search(command) is None:
        return words
    return words + [_unquoted(quoted) for quoted in _WITH_SPACES.findall(command)]


def _written(command: str) -> list[str]:
    """Return the words that a command writes to."""
    words = []
    for redirected, teed in _WRITTEN.findall(command):
        words += [_unquoted(redirected)] if redirected else _split(teed)
    return words


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word.strip("'\""))


class SourceFiles:
    """A project's files, each checked once and read only if changed.

    A file that was checked counts as unchanged, so an instance serves one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of large files are kept from one plan to the next.
    """

    def __init__(self, root: Path, hashes: HashCache | None = None) -> None:
        self.root = root
        self.scanner = CommandScanner(root)
        self.tree_versions: dict[str, str] = {}
        self._hashes = hashes or HashCache(None)
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
        if any(given.text in stamps for given in output.inputs):
            texts = {given.text for given in output.inputs}
            stamps = {name: stamp for name, stamp in stamps.items() if name not in texts}
        if output.depend_on:
            stamps = stamps | self._stamps(self._files_matching(output.depend_on), output)
        return stamps

    def file(self, name: str, output: Output) -> Stamp | None:
        """Return the stamp of a project's file, or None if missing."""
        data = self._data_at(self._root_prefix + name, output)
        return None if data is None else data.files.get("")

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
        small = {}

        def known(name: str, status: os.stat_result) -> Stamp | None:
            full = _join(path, name)
            if status.st_size in _POINTER_SIZES:
                small[name] = status
            for stamp in (self._known.get(full), self._recorded.get(self._relative(full))):
                if stamp is not None and stamp.matches(status):
                    return stamp
            cached = self._hashes.find(full, status)
            if cached is None:
                fresh.append(name)
                small[name] = status
            return cached

        data = fingerprint_foreign(Path(path), known)
        for name in fresh:
            full = _join(path, name)
            self._known[full] = data.files[name]
            self._hashes.keep(full, data.files[name])
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


def _may_be(now: Stamp | None, absence: Absence | None, recorded: Stamp) -> bool:
    """Return whether a file of an input may have the recorded bytes."""
    is_same = now is not None and now.sha256 == recorded.sha256
    if absence is None:
        return is_same
    # Of the pointer itself, a result is not good.
    return not is_same and absence.sha256 in (None, recorded.sha256)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
