"""Search for the project's files that scripts bring in, by reading them.

What each language refers to is found by its reader (``readers.py``). Here it is looked for:

- A module: beside the script that is run, in what is set as ``PYTHONPATH`` or added to
  ``sys.path`` on the way, in the project's directory and in its ``src``; a relative one in its
  package. The ``__init__`` of every package on the way counts. In the last two places a module of
  the standard library's name is taken to be that one.
- A path: from the project's directory, from where ``cd`` goes, or beside the script. A pattern
  counts by every file that it matches there.

What is found is followed in turn, and each file keeps the way in which it was found. Not found are
compiled modules, what a ``PYTHONPATH`` of the caller's own leads to, and what is computed, which is
reported.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from lightcone.state.languages import is_script
from lightcone.state.reference_cache import ReferenceCache
from lightcone.state.references import HERE, Kind, References

__all__ = ["Found", "Scripts", "SearchPaths", "Way", "from_root", "is_script"]

# Where a module may be though nothing says so: such a project is installed in place.
_IMPLICIT_DIRECTORIES = ("", "src")
_MOST_DIRECTORIES = 16
_MOST_ROUNDS = 5

_Parts = tuple[str, ...]


class Way(NamedTuple):
    """The way in which a file was found.

    Attributes:
        kind: ``"command"``, ``"import"``, ``"module"``, ``"path"``, ``"pattern"``; also
            ``"depend_on"``, ``"container"`` or ``"observed"``, of what no text shows.
        script: the file whose text names it; "" for the command.
        line: the line of that file, or the cell of a notebook; 0 where it is not known.
        pattern: the pattern that it matches, if any.
        is_written: whether the text shows it to be written.
    """

    kind: str
    script: str = ""
    line: int = 0
    pattern: str = ""
    is_written: bool = False

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        where = f" in {self.script}{line}" if self.script else ""
        return f"{self.kind}{f' {self.pattern}' if self.pattern else ''}{where}"


class Found(NamedTuple):
    """The project's files that a script or a command brings in.

    Attributes:
        files: the files, each with the way in which it was found.
        not_followed: what was not followed.
        written: the files among them that a text shows to be written.
    """

    files: dict[str, Way]
    not_followed: tuple[str, ...] = ()
    written: frozenset[str] = frozenset()


class SearchPaths(NamedTuple):
    """A script's possible working directories and its ``PYTHONPATH``."""

    directories: tuple[str, ...] = ("",)
    python_path: tuple[str, ...] = ()

    def updated_by(self, read: References, beside: str = "", root: str = "") -> SearchPaths:
        """Return these paths as a text changes them, of a script in the directory ``beside``."""
        if not read.directories and not read.search:
            return self
        directories = list(self.directories)
        for each in read.directories[:_MOST_DIRECTORIES]:
            directories += [
                _located(each, base, beside, root) for base in directories[:_MOST_DIRECTORIES]
            ]
        directories = [each for each in dict.fromkeys(directories) if not each.startswith("../")]
        if len(directories) > _MOST_DIRECTORIES:
            directories.sort(key=lambda each: not os.path.isdir(os.path.join(root, each)))
        paths = [
            _located(each, base, beside, root)
            for each in read.search
            for base in self.directories[:_MOST_DIRECTORIES]
        ]
        return SearchPaths(
            tuple(dict.fromkeys(directories))[:_MOST_DIRECTORIES],
            tuple(dict.fromkeys([*paths, *self.python_path])),
        )


class _Script(NamedTuple):
    """A script to follow, and the directories that Python searches first."""

    name: str
    directories: tuple[str, ...]
    search_paths: SearchPaths


class Scripts:
    """Cached reader of the scripts of a project, for one plan.

    ``is_source`` returns whether a path from ``root`` can be a source of the project.
    """

    def __init__(self, root: str, is_source: Callable[[str], bool], cached: ReferenceCache) -> None:
        self._root = root
        self._is_source = is_source
        self._cached = cached
        self._references: dict[str, References] = {}
        self._exists: dict[str, bool] = {}
        self._matches: dict[str, tuple[str, ...]] = {}
        self._module = cache(self._find_module)
        self._dependencies: dict[_Script, Found] = {}

    def dependencies(self, script: str, search_paths: SearchPaths) -> Found:
        """Return the files that ``script`` brings in, relative to the root, without itself.

        Empty where it is no script. Callers share the result and do not change it.
        """
        return self._brought_in(_as_script(script, search_paths))

    def of_command(self, command: References, search_paths: SearchPaths) -> Found:
        """Return the files that a command refers to, and those that they bring in."""
        directories = (*search_paths.directories, *search_paths.python_path)
        itself = _Script("", directories, search_paths)
        not_followed: list[str] = []
        first = list(self._resolved(itself, command, not_followed))
        files: dict[str, Way] = {}
        written: set[str] = set()
        for script, way in first:
            files.setdefault(script.name, way)
            if way.is_written:
                written.add(script.name)
        for script, _ in first:
            more = self._brought_in(script)
            not_followed += more.not_followed
            written |= more.written
            for name, way in more.files.items():
                files.setdefault(name, way)
        return Found(files, tuple(not_followed), frozenset(written))

    def _brought_in(self, script: _Script) -> Found:
        if script not in self._dependencies:
            found = self._follow(script)
            found.files.pop(script.name, None)
            self._dependencies[script] = found
        return self._dependencies[script]

    def matches(self, pattern: str) -> tuple[str, ...]:
        """Return the files that a pattern matches, both from the root."""
        if pattern not in self._matches:
            files = {os.path.normpath(name) for name in self._match(pattern)}
            self._matches[pattern] = tuple(sorted(filter(self.is_file, files)))
        return self._matches[pattern]

    def _match(self, pattern: str) -> Iterator[str]:
        """Yield the paths that a pattern matches; below ``**`` only where sources may be."""
        if pattern.startswith(("/", "..")) or "\0" in pattern:
            return
        above, recursive, rest = pattern.partition("**")
        if not recursive:
            yield from glob.glob(pattern, root_dir=self._root)
            return
        rest = rest.lstrip("/") or "*"
        for base in glob.glob(above, root_dir=self._root) if above else [""]:
            for directory, names, _ in os.walk(os.path.join(self._root, base)):
                inside = os.path.relpath(directory, self._root)
                inside = "" if inside == "." else f"{inside}/"
                names[:] = [
                    name for name in names if name[0] != "." and self._is_source(f"{inside}{name}/")
                ]
                for name in glob.glob(rest.replace("**", "*"), root_dir=directory):
                    yield inside + name

    def is_file(self, name: str) -> bool:
        """Return whether a path from the root is a file that may be a source."""
        if name not in self._exists:
            exists = not name.startswith(("..", "/")) and os.path.isfile(f"{self._root}/{name}")
            self._exists[name] = exists and self._is_source(name)
        return self._exists[name]

    def _follow(self, entry: _Script) -> Found:
        """Follow a script until nothing new is found.

        A module may add a directory to ``sys.path`` for whatever is imported after it, so all is
        followed once more with that directory.
        """
        search: tuple[str, ...] = ()
        files: dict[str, Way] = {}
        written: set[str] = set()
        not_followed: list[str] = []
        for _ in range(_MOST_ROUNDS):
            files, not_followed = {}, []
            added: dict[str, None] = dict.fromkeys(search)
            seen = {(entry.name, entry.directories)}
            queue = [entry]
            while queue:
                script = queue.pop()
                read = self._read(script.name)
                if read.search:
                    beside = os.path.dirname(script.name)
                    for each in read.search:
                        for base in script.search_paths.directories:
                            added[_located(each, base, beside, self._root)] = None
                for found, way in self._resolved(script, read, not_followed, search):
                    files.setdefault(found.name, way)
                    if way.is_written:
                        written.add(found.name)
                    if (found.name, found.directories) not in seen:
                        seen.add((found.name, found.directories))
                        queue.append(found)
            if len(added) == len(search):
                break
            search = tuple(added)
        return Found(files, tuple(dict.fromkeys(not_followed)), frozenset(written))

    def _read(self, name: str) -> References:
        if name not in self._references:
            self._references[name] = self._cached.read(os.path.join(self._root, name))
        return self._references[name]

    def _resolved(
        self,
        script: _Script,
        read: References,
        not_followed: list[str],
        search: tuple[str, ...] = (),
    ) -> Iterator[tuple[_Script, Way]]:
        """Yield the files that a script refers to, as scripts to follow, with the way."""
        if not read.found and not read.not_followed:
            return
        beside = os.path.dirname(script.name)
        paths = script.search_paths.updated_by(read, beside, self._root)
        label = script.name or "the command"
        for reference in read.found:
            kind = "command" if not script.name else reference.kind.value
            way = Way(kind, script.name, reference.line)
            if reference.kind is Kind.MODULE:
                for name in self._imported(reference.text, script.directories, search, beside):
                    yield script._replace(name=name, search_paths=paths), way
            elif reference.kind is Kind.RUN:
                directories = (*paths.directories, *paths.python_path)
                for name in self._imported(reference.text, directories, search, beside):
                    yield _Script(name, directories, paths), way
            elif reference.kind is Kind.PATTERN:
                for name in self._matched(reference.text, paths, beside):
                    found = _as_script(name, paths, script.directories)
                    yield found, way._replace(pattern=reference.text)
            else:
                names = self._located_files(reference.text, paths, beside)
                if reference.kind in (Kind.GUESS, Kind.WRITTEN):
                    way = way._replace(
                        kind="command" if not script.name else "path",
                        is_written=reference.kind is Kind.WRITTEN,
                    )
                for name in names:
                    yield _as_script(name, paths, script.directories), way
                if not names and reference.kind is Kind.GUESS:
                    where = f"{label}:{reference.line}" if script.name else label
                    not_followed.append(
                        f"{reference.origin} in {where}: a variable in it is not set there"
                    )
        for each in read.not_followed:
            where = f"{label}:{each.line}" if each.line and script.name else label
            not_followed.append(f"{each.what} in {where}: {each.why}")

    def _imported(
        self, module: str, directories: tuple[str, ...], search: tuple[str, ...], beside: str
    ) -> Iterable[str]:
        name = module.lstrip(".")
        parts = tuple(filter(None, name.split(".")))
        dots = len(module) - len(name)
        if not dots:
            if not parts:
                return ()
            found = self._module(parts, directories)
            if search:
                found = [*found, *self._module(parts, search)]
            return found
        package = beside
        for _ in range(dots - 1):
            package = os.path.dirname(package)
        names = [os.path.join(package, "__init__.py"), *self._package_files(package, parts)]
        return filter(self.is_file, names)

    def _located_files(self, path: str, paths: SearchPaths, beside: str) -> list[str]:
        """Return the files at a path that a script names.

        Where the text changes directories, it may mean any of them.
        """
        path = os.path.expanduser(path) if path.startswith("~") else path
        if path.startswith((HERE, "/")):
            name = _located(path, "", beside, self._root)
            return [name] if self.is_file(name) else []
        names = [os.path.normpath(os.path.join(base, path)) for base in paths.directories]
        found = list(filter(self.is_file, dict.fromkeys(names)))
        name = os.path.normpath(os.path.join(beside, path))
        return found or ([name] if self.is_file(name) else [])

    def _matched(self, pattern: str, paths: SearchPaths, beside: str) -> Iterator[str]:
        if pattern.startswith((HERE, "/")):
            yield from self.matches(_located(pattern, "", beside, self._root))
            return
        found: dict[str, None] = {}
        for base in paths.directories:
            found |= dict.fromkeys(self.matches(os.path.normpath(os.path.join(base, pattern))))
        yield from found or self.matches(os.path.normpath(os.path.join(beside, pattern)))

    def _find_module(self, parts: _Parts, directories: tuple[str, ...]) -> list[str]:
        """Return the files of a module, from its outermost package on."""
        if parts[0] not in sys.stdlib_module_names:
            directories = (*directories, *_IMPLICIT_DIRECTORIES)
        for directory in directories:
            top = os.path.join(directory, parts[0])
            if self.is_file(f"{top}/__init__.py") or self.is_file(f"{top}.py"):
                return self._package_files(directory, parts)
        # Packages without an __init__ are one, wherever their parts are.
        return [
            name
            for directory in dict.fromkeys(directories)
            for name in self._package_files(directory, parts)
        ]

    def _package_files(self, directory: str, parts: _Parts) -> list[str]:
        files = []
        for part in parts:
            directory = os.path.join(directory, part)
            if self.is_file(f"{directory}/__init__.py"):
                files.append(f"{directory}/__init__.py")
            elif self.is_file(f"{directory}.py"):
                return [*files, f"{directory}.py"]
        return files


def _as_script(script: str, search_paths: SearchPaths, searched: tuple[str, ...] = ()) -> _Script:
    """Return a script that is run, or executed where Python searches ``searched``."""
    own = (os.path.dirname(script), *search_paths.python_path)
    return _Script(script, tuple(dict.fromkeys((*own, *searched))), search_paths)


def _located(path: str, base: str, beside: str, root: str) -> str:
    """Return a path as a script in ``beside`` means it, from the root."""
    if path.startswith(HERE):
        path, base = path[1:].lstrip("/"), beside
    name = os.path.normpath(os.path.join(base, path))
    return "" if name == "." else from_root(name, root)


@lru_cache(maxsize=1 << 10)
def from_root(path: str, root: str) -> str:
    """Return an absolute path into the project from its root; any other as it is."""
    if not root or not path.startswith("/"):
        return path
    for each in (
        path,
        os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)),
    ):
        if each.startswith(f"{root}/"):
            return each[len(root) + 1 :]
    return "" if path == root else path
