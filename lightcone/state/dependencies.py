"""The project's files and inputs that an output depends on, hashed."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE
from lightcone.spec.output import Input, Output
from lightcone.state.directories import Directories
from lightcone.state.fingerprint import REFUTED, Data, Stamp, fingerprint_foreign
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Found, Scripts, SearchPaths, Way, from_root
from lightcone.state.languages import read_commands
from lightcone.state.manifest import Observed, Provenance
from lightcone.state.reference_cache import ReferenceCache
from lightcone.state.references import References
from lightcone.state.shell_references import split_words, written_words

__all__ = ["CommandScanner", "SourceFiles", "ignored"]

_PIECES = re.compile(r"[=,:@]")

_GLUED = re.compile(r"-\w[\w./]")

# Of a command without any of these every word stands for itself.
_SPECIAL = re.compile(
    r"[$`*?~{[]|<<|\b(?:cd|pushd|import|open|make|snakemake)\b|PYTHONPATH=|-[mcC]"
    r"|\bpython[\d.]*\s+(?:-\w+\s+)*[\w/]+(?![\w/.])"
)

_ENVIRONMENT = re.compile(r"/(?:bin|lib|lib64)/")

_NO_SOURCES = re.compile(r"(?:^|/)(?:\.git|__pycache__|\.ipynb_checkpoints|\.lightcone)/")

_AT_ROOT = SearchPaths()

_BY_COMMAND = Way("command")


class CommandScanner:
    """Cached scanner of a project's commands and scripts, for one plan.

    ``references`` is the file that keeps what scripts refer to from one plan to the next.
    """

    def __init__(self, root: Path, references: Path | None = None) -> None:
        self._root = os.fspath(root)
        self._root_prefix = f"{root}/"
        self._scripts = Scripts(self._root, self.is_source, ReferenceCache(references))
        self._words: dict[str, dict[str, tuple[str, ...]]] = {}
        self._all_files: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._exists: dict[str, bool] = {}

    def all_files(self, command: str) -> tuple[str, ...]:
        """Return the files that a command names, and those that these bring in.

        They are relative to the root.
        """
        if _SPECIAL.search(command) is not None:
            return tuple(self.found(command).files)
        key = tuple(self._named_files(command, _AT_ROOT.directories))
        if key not in self._all_files:
            brought_in = [self._scripts.dependencies(name, _AT_ROOT).files for name in key]
            self._all_files[key] = tuple(dict.fromkeys(chain(key, *brought_in)))
        return self._all_files[key]

    def found(self, command: str) -> Found:
        """Return the same files with the way in which each was found, and what was not followed."""
        read = read_commands(command) if _SPECIAL.search(command) is not None else References()
        search_paths = _AT_ROOT.updated_by(read, "", self._root)
        by_references = self._scripts.of_command(read, search_paths)
        files: dict[str, Way] = {}
        not_followed = [*by_references.not_followed]
        named = self._named_files(command, search_paths.directories)
        for name in named:
            files[name] = _BY_COMMAND
        for name, way in by_references.files.items():
            files.setdefault(name, way)
        for name in named:
            more = self._scripts.dependencies(name, search_paths)
            not_followed += more.not_followed
            for each, way in more.files.items():
                files.setdefault(each, way)
        return Found(files, tuple(dict.fromkeys(not_followed)))

    def directories(self, command: str) -> tuple[str, ...]:
        """Return the directories that a command names, whose files do not count by that."""
        into = read_commands(command).directories
        names = {os.path.normpath(word) for word in split_words(command)} - {*into, ".", ".."}
        return tuple(
            sorted(
                name
                for name in names
                if not name.startswith(("/", "../"))
                and os.path.isdir(self._root_prefix + name)
                and self.is_source(f"{name}/")
            )
        )

    def save(self) -> None:
        """Keep what was read of scripts for the next plan."""
        self._scripts.save()

    def is_source(self, name: str) -> bool:
        """Return whether a path may be a source: no result, not installed."""
        return (
            not self._is_result(name)
            and not self._is_installed(name)
            and _NO_SOURCES.search(name) is None
        )

    def _named_files(self, command: str, directories: tuple[str, ...]) -> dict[str, None]:
        names = self._files(split_words(command), directories)
        if ">" in command or "tee" in command:
            for name in self._files(written_words(command), directories):
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
        if _GLUED.match(word) is not None:
            pieces.append(word[2:])
        for piece in pieces:
            if piece and len(piece) < 1024:
                path = os.path.normpath(os.path.join(self._root, directory, piece))
                if not path.startswith(self._root_prefix):
                    path = os.path.join(self._root, from_root(path, self._root))
                    if not path.startswith(self._root_prefix):
                        continue
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


class SourceFiles:
    """A project's files, each checked once and read only if changed.

    A file that was checked counts as unchanged, so an instance serves one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of files are kept from one plan to the next.
    """

    def __init__(self, root: Path, hashes: HashCache | None = None) -> None:
        self.root = root
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
            times = []
            for stamp in (self._known.get(full), self._recorded.get(self._relative(full))):
                if stamp is not None:
                    if stamp.matches(status):
                        return stamp
                    times.append(stamp.mtime_ns)
            cached = None if REFUTED in times else self.hashes.find(full, status)
            if cached is None:
                fresh.append(name)
            return cached

        data = fingerprint_foreign(Path(path), known, ignored(ignore))
        for name in fresh:
            full = _join(path, name)
            self._known[full] = data.files[name]
            self.hashes.keep(full, data.files[name])
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
