"""The project's files that a script brings in, found without running it.

- Python: ``import`` and ``from … import`` wherever a statement may begin. A module is looked for
  beside the script that is run, in what is set as ``PYTHONPATH`` on the way, in the project's
  directory and in its ``src``, in that order; a relative one in its package. The ``__init__`` of
  every package on the way counts. In the last two places a module of the standard library's name
  is taken to be that one.
- Shell: every Python or shell script that is named, and what stands after ``source`` and ``.``,
  from the project's directory, from where ``cd`` goes, or beside the script; a variable or a
  substitution at the beginning of a path is taken to be one of these. ``python -m`` names a
  module.

What is found is followed in turn. Not found: what is computed (``importlib``, ``exec``, a path
with a variable in its middle), compiled modules, a ``PYTHONPATH`` of the caller's own, scripts
that Python starts, data that a script opens. A line of a docstring that looks like an import
counts where there is such a file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

__all__ = ["Scripts", "Surroundings", "is_script"]

_IMPORT = re.compile(r"import\b[ \t]*(\([^)]*\)|[^\n#;'\"]*)")
_BEFORE = re.compile(r"(?:^|[;:'\"])[ \t]*(?:from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]*)?$")
_SOURCED = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else)[ \t])[ \t]*(?:source|\.)[ \t]+([^\n;&|]+)", re.MULTILINE
)
_MODULE = re.compile(r"(?<!\S)-m[ \t]*([A-Za-z_][\w.]*)")
_COMMENT = re.compile(r"^[ \t]*#.*", re.MULTILINE)
_CD = re.compile(r"\bcd\s+[\"']?([^\s;|&<>()'\"`]+)")
_PYTHON_PATH = re.compile(r"\bPYTHONPATH=[\"']?([^\s;|&<>()'\"`]+)")
_WORD = re.compile(r"[^\s;|&<>()'\"`=,:]+")
# ``$HERE/``, ``${0%/*}/``, and what is left of ``$(dirname "$0")/``.
_COMPUTED = re.compile(r"\$(?:\w+|\{[^}]*\})?/?|/")
_PYTHON = (".py", ".pyw")
_SHELL = (".sh", ".bash", ".zsh", ".ksh")
_RUN_BY_PYTHON = re.compile(rb"#!.*\bpython")
_RUN_BY_SHELL = re.compile(rb"#!.*\b(?:ba|z|k|da)?sh\b")
_LARGEST = 4 << 20
# How far before an ``import`` its statement may begin: a line may be as long as the file.
_FAR = 500
# Where a module may lie though nothing says so: such a project is installed in place.
_INSTALLED = ("", "src")

_Parts = tuple[str, ...]


def is_script(name: str) -> bool:
    """Whether a file's name says that it is a Python or a shell script."""
    return name.endswith((*_PYTHON, *_SHELL))


class Surroundings(NamedTuple):
    """Where a script runs: its possible working directories, and what ``PYTHONPATH`` holds."""

    directories: tuple[str, ...] = ("",)
    python_path: tuple[str, ...] = ()

    def after(self, text: str) -> Surroundings:
        """The surroundings that the commands of a text make of these."""
        into = _CD.findall(text) if "cd " in text else ()
        paths = _PYTHON_PATH.findall(text) if "PYTHONPATH=" in text else ()
        if not into and not paths:
            return self
        added = [_relative(one) for path in paths for one in path.split(":") if one]
        return Surroundings(
            tuple(dict.fromkeys([*self.directories, *map(_place, into)])),
            tuple(dict.fromkeys([*map(_place, added), *self.python_path])),
        )


class _Asks(NamedTuple):
    """What one script asks for: modules with the dots before them, or what may be scripts."""

    modules: tuple[tuple[int, _Parts], ...] = ()
    words: tuple[str, ...] = ()
    shell: str = ""


class _Found(NamedTuple):
    """A script to follow, and where the Python that runs it looks for modules first."""

    name: str
    places: tuple[str, ...]
    around: Surroundings


class Scripts:
    """The scripts of a project, each read once, so one serves for one plan and no longer.

    ``is_ours`` says of a path from ``root`` whether it can be a source of the project's.
    """

    def __init__(self, root: str, is_ours: Callable[[str], bool]) -> None:
        self._root = root
        self._is_ours = is_ours
        self._asks: dict[str, _Asks] = {}
        self._there: dict[str, bool] = {}
        self._module = cache(self._look_up)
        self._brought: dict[tuple[str, Surroundings], tuple[str, ...]] = {}

    def brought_in(self, script: str, around: Surroundings) -> tuple[str, ...]:
        """All that ``script``, if it is one, brings in when it is run; paths are from the root."""
        key = (script, around)
        if key not in self._brought:
            found = self._follow([_run(script, around)])
            self._brought[key] = tuple(sorted(found - {script}))
        return self._brought[key]

    def of_command(self, command: str, around: Surroundings) -> tuple[str, ...]:
        """The modules that a command runs or imports itself, with all they bring in, sorted."""
        modules = [*_run_modules(command)]
        modules += (parts for dots, parts in _imports(command) if not dots)
        return tuple(sorted(self._follow([*self._modules_run(modules, around)])))

    def _follow(self, queue: list[_Found]) -> set[str]:
        seen = {(each.name, each.places) for each in queue}
        while queue:
            for found in self._direct(queue.pop()):
                if (found.name, found.places) not in seen:
                    seen.add((found.name, found.places))
                    queue.append(found)
        return {name for name, _ in seen}

    def _direct(self, script: _Found) -> Iterator[_Found]:
        if script.name not in self._asks:
            self._asks[script.name] = _read(os.path.join(self._root, script.name))
        asks = self._asks[script.name]
        beside = os.path.dirname(script.name)
        for dots, parts in asks.modules:
            if not dots:
                names = self._module(parts, script.places)
            else:
                package = beside
                for _ in range(dots - 1):
                    package = os.path.dirname(package)
                names = [os.path.join(package, "__init__.py"), *self._within(package, parts)]
            for name in filter(self._is_file, names):
                yield script._replace(name=name)
        around = script.around.after(asks.shell)
        for word in asks.words:
            path = _relative(word.removeprefix(f"{self._root}/"))
            for base in (*around.directories, beside):
                name = os.path.normpath(os.path.join(base, path))
                if path and self._is_file(name):
                    yield _run(name, around)
                    break
        yield from self._modules_run(_run_modules(asks.shell), around)

    def _modules_run(self, modules: Iterable[_Parts], around: Surroundings) -> Iterator[_Found]:
        """The files of modules that are imported or run from the working directory."""
        places = (*around.directories, *around.python_path)
        for parts in modules:
            for name in self._module(parts, places):
                yield _Found(name, places, around)

    def _look_up(self, parts: _Parts, places: tuple[str, ...]) -> list[str]:
        """The files of a module, from its outermost package on."""
        if parts[0] not in sys.stdlib_module_names:
            places = (*places, *_INSTALLED)
        for place in places:
            top = os.path.join(place, parts[0])
            if self._is_file(f"{top}/__init__.py") or self._is_file(f"{top}.py"):
                return self._within(place, parts)
        # Packages without an __init__ are one, wherever their parts lie.
        return [name for place in dict.fromkeys(places) for name in self._within(place, parts)]

    def _within(self, place: str, parts: _Parts) -> list[str]:
        found = []
        for part in parts:
            place = os.path.join(place, part)
            if self._is_file(f"{place}/__init__.py"):
                found.append(f"{place}/__init__.py")
            elif self._is_file(f"{place}.py"):
                return [*found, f"{place}.py"]
        return found

    def _is_file(self, name: str) -> bool:
        if name not in self._there:
            there = not name.startswith(("..", "/")) and os.path.isfile(f"{self._root}/{name}")
            self._there[name] = there and self._is_ours(name)
        return self._there[name]


def _run(script: str, around: Surroundings) -> _Found:
    return _Found(script, (os.path.dirname(script), *around.python_path), around)


def _read(path: str) -> _Asks:
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            is_python = path.endswith(_PYTHON) or _RUN_BY_PYTHON.match(head) is not None
            is_shell = path.endswith(_SHELL) or _RUN_BY_SHELL.match(head) is not None
            if not is_python and not is_shell:
                return _Asks()
            text = (head + file.read(_LARGEST)).decode(errors="replace")
    except OSError:
        return _Asks()
    text = text.replace("\r\n", "\n").replace("\\\n", " ")
    if is_python:
        return _Asks(modules=tuple(dict.fromkeys(_imports(text))))
    text = _COMMENT.sub("", text)
    words = [word for rest in _SOURCED.findall(text) for word in _WORD.findall(rest)]
    words += [word for word in _WORD.findall(text) if is_script(word)]
    return _Asks(words=tuple(dict.fromkeys(words)), shell=text)


def _relative(path: str) -> str:
    """What is known of a path, without the computed directory at its beginning."""
    computed = _COMPUTED.match(path)
    return path[computed.end() :] if computed else path


def _place(path: str) -> str:
    place = os.path.normpath(path)
    return "" if place == "." else place


def _imports(text: str) -> Iterator[tuple[int, _Parts]]:
    """Every module that a text imports, with the number of dots before it."""
    for found in _IMPORT.finditer(text):
        start = max(0, found.start() - _FAR)
        before = _BEFORE.search(text[start : found.start()].rpartition("\n")[2])
        if before is not None:
            dots, module = before.groups("")
            for one in re.sub(r"#[^\n]*", "", found[1]).strip("()").split(","):
                yield from _parts(len(dots), module, one)


def _parts(dots: int, module: str, name: str) -> Iterator[tuple[int, _Parts]]:
    """``name`` may be a module of ``module`` or anything else in it, ``*`` for instance."""
    words = name.split()
    parts = [*module.split("."), *(words[0].split(".") if words else ())]
    named = tuple(part for part in parts if part.isidentifier())
    if named or dots:
        yield dots, named


def _run_modules(text: str) -> Iterator[_Parts]:
    for name in _MODULE.findall(text) if "-m" in text else ():
        parts = tuple(filter(None, name.split(".")))
        yield from (parts, (*parts, "__main__"))
