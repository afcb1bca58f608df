"""The bytes of what an output is made from: the project's files, and what inputs consist of."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE
from lightcone.spec.output import Input, Output
from lightcone.state.fingerprint import Data, Stamp, fingerprint_foreign
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Scripts, Surroundings
from lightcone.state.manifest import Provenance

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

_HERE = Surroundings()


class CommandScanner:
    """Reads the commands of a project, and each of its scripts once: one serves for one plan."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._inside = f"{root}/"
        self._scripts = Scripts(self._root, self.is_source)
        self._words: dict[str, dict[str, tuple[str, ...]]] = {}
        self._all: dict[tuple[tuple[str, ...], Surroundings], tuple[str, ...]] = {}
        self._homes: dict[str, bool] = {}

    def named(self, command: str) -> tuple[str, ...]:
        """The files that the command itself names, by their paths from the root, as it does."""
        return tuple(self._named(command, _HERE.after(command).directories))

    def all(self, command: str) -> tuple[str, ...]:
        """The files that the command names, and those that the scripts among them bring in."""
        around = _HERE.after(command)
        key = (tuple(self._named(command, around.directories)), around)
        names = self._all.get(key)
        if names is None:
            brought = [self._scripts.brought_in(name, around) for name in key[0]]
            names = self._all[key] = tuple(dict.fromkeys(chain(key[0], *brought)))
        if "-m" in command or "import" in command:
            run = self._scripts.of_command(command, around)
            names = tuple(dict.fromkeys(chain(names, run)))
        return names

    def is_source(self, name: str) -> bool:
        """Whether a path from the root may be a source, neither a result nor installed."""
        return not self._is_result(name) and not self._is_installed(name)

    def _named(self, command: str, directories: tuple[str, ...]) -> dict[str, None]:
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
                found = known.get(word)
                if found is None:
                    found = known[word] = tuple(self._files_in(word, directory))
                for name in found:
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
                if path.startswith(self._inside):
                    name = path[len(self._inside) :]
                    if os.path.isfile(path) and self.is_source(name):
                        yield name

    def _is_result(self, name: str) -> bool:
        """Whether a path lies in the results of the project or of one below it."""
        start = 0
        while (end := name.find("results/", start)) >= 0:
            start = end + 1
            above = name[:end]
            if not above or (above.endswith("/") and self._holds(above, SPEC_FILE)):
                return True
        return False

    def _is_installed(self, name: str) -> bool:
        """Whether a path lies in an environment of Python's or conda's making."""
        for match in _ENVIRONMENT.finditer(name):
            above = name[: match.start() + 1]
            if self._holds(above, "pyvenv.cfg") or self._holds(above, "conda-meta"):
                return True
        return False

    def _holds(self, directory: str, name: str) -> bool:
        path = f"{self._inside}{directory}{name}"
        if path not in self._homes:
            self._homes[path] = os.path.exists(path)
        return self._homes[path]


def _split(command: str) -> list[str]:
    words: list[str] = _WORD.findall(command)
    if _QUOTING.search(command) is None:
        return words
    return words + [_unquoted(quoted) for quoted in _WITH_SPACES.findall(command)]


def _written(command: str) -> list[str]:
    """The words of a command that it writes to."""
    words = []
    for redirected, teed in _WRITTEN.findall(command):
        words += [_unquoted(redirected)] if redirected else _split(teed)
    return words


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word.strip("'\""))


class SourceFiles:
    """A project's files, each looked at once and read only where no known stamp stands.

    What it has seen it takes as unchanged, so one serves for one plan and no longer.

    Args:
        root: the project's directory.
        hashes: where the stamps of large files are kept from one plan to the next.
    """

    def __init__(self, root: Path, hashes: HashCache | None = None) -> None:
        self.root = root
        self.mentions = CommandScanner(root)
        self.tree_versions: dict[str, str] = {}
        self._hashes = hashes or HashCache(None)
        self._inside = f"{root}/"
        self._recorded: dict[str, Stamp] = {}
        self._known: dict[str, Stamp] = {}
        self._learned: dict[str, str] = {}
        self._data: dict[str, Data | None] = {}
        self._together: dict[tuple[str, ...], dict[str, Stamp]] = {}
        self._always: dict[tuple[str, ...], tuple[str, ...]] = {}

    def learn(self, provenance: Provenance) -> None:
        """Take the stamps that were recorded for an output as known."""
        self._recorded.update(provenance.files)
        for source in provenance.inputs.values():
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
                if stamp is not None and stamp.matches(found):
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
