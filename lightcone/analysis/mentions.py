"""The project's files that a command depends on, found by reading it.

A command is not run to see what it reads. What counts is every word of it, and every part of a
word after ``=`` or between ``,`` and ``:``, that is the path of a file in the project, from the
project's directory or from one that the command changes into with ``cd``; and what the scripts
among these bring in. What a command writes does not count, as far as it can be seen: results, and
what follows ``>`` or ``tee``. Nor does what lies in an environment of installed programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lightcone.analysis.imports import Scripts, Surroundings
from lightcone.context import SPEC_FILE

__all__ = ["Mentions"]

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


class Mentions:
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
