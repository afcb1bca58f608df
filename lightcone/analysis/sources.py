"""The files of a project that a command names, and the files that inputs consist of.

A command is not run to see what it reads. What counts is every word of it, and every part of a
word after ``=`` or between ``,`` and ``:``, that is the path of a file in the project, from the
project's directory or from one that the command changes into with ``cd``. Results do not count:
they are inputs, or nobody's business.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lightcone.analysis.fingerprint import Data, Stamp, fingerprint_foreign
from lightcone.analysis.manifest import Parts
from lightcone.analysis.output import Input, Output
from lightcone.errors import SpecError

__all__ = ["Sources"]

_WORD = re.compile(r"[^\s;|&<>()'\"`]+")
_QUOTING = re.compile(r"['\"\\]")
_PIECES = re.compile(r"[=,:]")
_CD = re.compile(r"\bcd\s+([^\s;|&<>()'\"`]+)")
_WITH_SPACES = re.compile(
    r"""'[^'\n]* [^'\n]*'|"[^"\n]* [^"\n]*"|(?:[^\s\\'"]|\\.)*\\ (?:[^\s\\'"]|\\.)*"""
)
_SPEC = "astra.yaml"


class Sources:
    """A project's files, each looked at once and read only where no known stamp stands.

    What it has seen it takes as unchanged, so one serves for one plan and no longer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inside = f"{root}/"
        self._known: dict[str, Stamp] = {}
        self._learned: dict[str, str] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._data: dict[str, Data | None] = {}
        self._homes: dict[str, bool] = {}

    def learn(self, parts: Parts) -> None:
        """Take the stamps that were recorded for an output as known."""
        for name, stamp in parts.files.items():
            self._known[self._inside + name] = stamp
        for source in parts.inputs.values():
            if source.files and self._learned.get(source.text) != source.version:
                self._learned[source.text] = source.version
                path = self._place(source.text)
                for name, stamp in source.files.items():
                    # A pattern's files are recorded by their own paths, a tree's by those in it.
                    key = self._place(name) if _is_pattern(source.text) else _join(path, name)
                    self._known[key] = stamp

    def named(self, output: Output) -> dict[str, Stamp]:
        """The project's files that an output's command names, by their path from the root."""
        command = output.command
        given = {each.text for each in output.inputs}
        words = self._split(command)
        names: list[str] = []
        for word in words:
            if word.startswith("results/"):
                continue
            found = self._words.get(word)
            if found is None:
                found = self._words[word] = tuple(self._files_in(word, ""))
            names += found
        for directory in _CD.findall(command) if "cd " in command else ():
            for word in words:
                names += self._files_in(word, directory)
        stamps = {name: self.file(name, output) for name in names if name not in given}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def file(self, name: str, output: Output) -> Stamp | None:
        """The stamp of a project's file, or None where it is none."""
        data = self._look(self._inside + name, output)
        return None if data is None else data.files.get("")

    def given(self, given: Input, output: Output) -> Data:
        """What an input that no output makes consists of; its text where that is no path."""
        data = None
        if given.path is not None:
            data = self._look(os.fspath(given.path), output)
        if data is None and _is_pattern(given.text):
            data = self._match(given.text, output)
        return data or Data(f"text:{given.text}")

    def _match(self, pattern: str, output: Output) -> Data | None:
        """All that a pattern of the shell's matches, as one."""
        if pattern not in self._data:
            files: dict[str, Stamp] = {}
            versions = []
            for path in sorted(glob.glob(self._place(pattern))):
                data = self._look(path, output)
                if data is not None:
                    name = path.removeprefix(self._inside)
                    versions.append(f"{name} {data.version}")
                    files.update((_join(name, inner), stamp) for inner, stamp in data.files.items())
            version = hashlib.sha256("\n".join(versions).encode(errors="surrogateescape"))
            self._data[pattern] = Data(version.hexdigest(), files) if versions else None
        return self._data[pattern]

    def _look(self, path: str, output: Output) -> Data | None:
        if path not in self._data:
            try:
                self._data[path] = fingerprint_foreign(
                    Path(path), lambda name: self._known.get(_join(path, name))
                )
            except (FileNotFoundError, NotADirectoryError):
                self._data[path] = None
            except OSError as error:
                raise SpecError(
                    f"{error.filename or path}, which {output.name} depends on, cannot be read "
                    f"({error.strerror}): make it readable."
                ) from error
        return self._data[path]

    def _place(self, text: str) -> str:
        expanded = os.path.expandvars(os.path.expanduser(text))
        return os.path.normpath(os.path.join(self.root, expanded))

    def _split(self, command: str) -> list[str]:
        words: list[str] = _WORD.findall(command)
        if _QUOTING.search(command) is None:
            return words
        for quoted in _WITH_SPACES.findall(command):
            words.append(re.sub(r"\\(.)", r"\1", quoted.strip("'\"")))
        return words

    def _files_in(self, word: str, directory: str) -> Iterator[str]:
        pieces = _PIECES.split(word)
        if len(pieces) > 1:
            pieces.append(word)
            pieces.append(word.partition("=")[2])
        for piece in pieces:
            if piece and len(piece) < 1024:
                path = os.path.normpath(os.path.join(self.root, directory, piece))
                if path.startswith(self._inside):
                    name = path[len(self._inside) :]
                    if not self._is_result(name) and os.path.isfile(path):
                        yield name

    def _is_result(self, name: str) -> bool:
        """Whether a path lies in the results of the project or of one below it."""
        start = 0
        while (end := name.find("results/", start)) >= 0:
            start = end + 1
            above = name[:end]
            if not above:
                return True
            if above.endswith("/"):
                if above not in self._homes:
                    self._homes[above] = os.path.exists(self._inside + above + _SPEC)
                if self._homes[above]:
                    return True
        return False


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
