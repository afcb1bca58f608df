"""The project's files that a command names, and those that they bring in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lightcone.project.context import SPEC_FILE
from lightcone.state.imports import Found, Scripts, SearchPaths, Way, from_root
from lightcone.state.languages import Language
from lightcone.state.reference_cache import ReferenceCache
from lightcone.state.references import References
from lightcone.state.shell_words import split_words

__all__ = ["CommandScanner"]

_PIECES = re.compile(r"[=,:@]")

_GLUED = re.compile(r"-\w[\w./]")

# Of a command without any of these every word stands for itself.
_SPECIAL_MARK = re.compile(r"[$`*?~{[]")
_SPECIAL_WORDS = (
    *("<<", "cd ", "pushd ", "import", "open(", "make", "PYTHONPATH="),
    *(" -m", " -c", " -C", "--directory"),
)
_RESULTS = re.compile(r"(?<![\w./}-])results/[\w./-]+")

_RUNS_MODULE = re.compile(r"python[\d.]*\s+(?:-\w+\s+)*(?:[\w/]+(?![\w/.])|-\w*[cm])")

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
        self._cached = ReferenceCache(references)
        self._scripts = Scripts(self._root, self.is_source, self._cached)
        self._words: dict[str, dict[str, tuple[str, ...]]] = {}
        self._all_files: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._special: dict[str, tuple[str, ...]] = {}
        self._exists: dict[str, bool] = {}

    def all_files(self, command: str) -> tuple[str, ...]:
        """Return the files that a command names, and those that these bring in.

        They are relative to the root.
        """
        if _is_special(command):
            return self._special_files(command)
        key = tuple(self._named_files(command, _AT_ROOT.directories))
        if key not in self._all_files:
            brought_in = [self._scripts.dependencies(name, _AT_ROOT).files for name in key]
            self._all_files[key] = tuple(dict.fromkeys(chain(key, *brought_in)))
        return self._all_files[key]

    def _special_files(self, command: str) -> tuple[str, ...]:
        # Results are no sources, and in their names alone many commands differ.
        if "cd " not in command and "-C" not in command:
            command = _RESULTS.sub("results/", command)
        files = self._special.get(command)
        if files is None:
            files = self._special[command] = tuple(self.found(command).files)
        return files

    def found(self, command: str) -> Found:
        """Return the same files with the way in which each was found, and what was not followed."""
        read = self._read(command)
        search_paths = _AT_ROOT.updated_by(read, "", self._root)
        by_references = self._scripts.of_command(read, search_paths)
        files: dict[str, Way] = {}
        not_followed = [*by_references.not_followed]
        written = by_references.written
        named = self._named_files(command, search_paths.directories)
        for name in named:
            files[name] = _BY_COMMAND
        for name, way in by_references.files.items():
            files.setdefault(name, way)
        for name in named:
            more = self._scripts.dependencies(name, search_paths)
            not_followed += more.not_followed
            written |= more.written
            for each, way in more.files.items():
                files.setdefault(each, way)
        return Found(files, tuple(dict.fromkeys(not_followed)), written)

    def directories(self, command: str) -> tuple[str, ...]:
        """Return the directories that a command names, whose files do not count by that."""
        into = self._read(command).directories
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

    def results(self, command: str) -> tuple[str, ...]:
        """Return the paths in the project's results that a command names."""
        return tuple(dict.fromkeys(map(os.path.normpath, _RESULTS.findall(command))))

    def save(self) -> None:
        """Keep what was read of scripts for the next plan."""
        self._cached.save()

    def _read(self, command: str) -> References:
        content = command.encode(errors="surrogateescape")
        return self._cached.references(Language.SHELL, content)

    def is_source(self, name: str) -> bool:
        """Return whether a path may be a source: no result, not installed."""
        return (
            not self._is_result(name)
            and not self._is_installed(name)
            and _NO_SOURCES.search(name) is None
        )

    def _named_files(self, command: str, directories: tuple[str, ...]) -> dict[str, None]:
        return self._files(split_words(command), directories)

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


def _is_special(command: str) -> bool:
    """Return whether a command has to be read as the shell reads it."""
    return (
        _SPECIAL_MARK.search(command) is not None
        or any(word in command for word in _SPECIAL_WORDS)
        or ("python" in command and _RUNS_MODULE.search(command) is not None)
    )
