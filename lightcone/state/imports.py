"""Static search for the project's files that a script brings in.

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

__all__ = ["Scripts", "SearchPaths", "is_script"]

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
_MAX_SIZE = 4 << 20
# How far before an ``import`` its statement may begin: a line may be as long as the file.
_LOOKBACK = 500
# Where a module may lie though nothing says so: such a project is installed in place.
_IMPLICIT_DIRECTORIES = ("", "src")

_Parts = tuple[str, ...]


def is_script(name: str) -> bool:
    """Return whether a file's name is that of a Python or shell script."""
    return name.endswith((*_PYTHON, *_SHELL))


class SearchPaths(NamedTuple):
    """A script's possible working directories and its ``PYTHONPATH``."""

    directories: tuple[str, ...] = ("",)
    python_path: tuple[str, ...] = ()

    def updated_by(self, text: str) -> SearchPaths:
        """Return these paths as the commands of a text change them."""
        into = _CD.findall(text) if "cd " in text else ()
        paths = _PYTHON_PATH.findall(text) if "PYTHONPATH=" in text else ()
        if not into and not paths:
            return self
        added = [_relative(one) for path in paths for one in path.split(":") if one]
        return SearchPaths(
            tuple(dict.fromkeys([*self.directories, *map(_normalize, into)])),
            tuple(dict.fromkeys([*map(_normalize, added), *self.python_path])),
        )


class _References(NamedTuple):
    """The references of one script: modules with leading dots, or possible scripts."""

    modules: tuple[tuple[int, _Parts], ...] = ()
    candidates: tuple[str, ...] = ()
    shell_text: str = ""


class _Script(NamedTuple):
    """A script to follow, and the directories that Python searches first."""

    name: str
    directories: tuple[str, ...]
    search_paths: SearchPaths


class Scripts:
    """Cached reader of the scripts of a project, for one plan.

    ``is_source`` returns whether a path from ``root`` can be a source of the project.
    """

    def __init__(self, root: str, is_source: Callable[[str], bool]) -> None:
        self._root = root
        self._is_source = is_source
        self._references: dict[str, _References] = {}
        self._exists: dict[str, bool] = {}
        self._module = cache(self._find_module)
        self._dependencies: dict[tuple[str, SearchPaths], tuple[str, ...]] = {}

    def dependencies(self, script: str, search_paths: SearchPaths) -> tuple[str, ...]:
        """Return the files that ``script`` brings in, relative to the root.

        Empty where it is no script.
        """
        key = (script, search_paths)
        if key not in self._dependencies:
            files = self._follow([_as_script(script, search_paths)])
            self._dependencies[key] = tuple(sorted(files - {script}))
        return self._dependencies[key]

    def modules_of(self, command: str, search_paths: SearchPaths) -> tuple[str, ...]:
        """Return the modules that a command runs or imports, with dependencies.

        They are sorted.
        """
        modules = [*_run_modules(command)]
        modules += (parts for dots, parts in _imports(command) if not dots)
        return tuple(sorted(self._follow([*self._modules_run(modules, search_paths)])))

    def _follow(self, queue: list[_Script]) -> set[str]:
        seen = {(each.name, each.directories) for each in queue}
        while queue:
            for script in self._references_of(queue.pop()):
                if (script.name, script.directories) not in seen:
                    seen.add((script.name, script.directories))
                    queue.append(script)
        return {name for name, _ in seen}

    def _references_of(self, script: _Script) -> Iterator[_Script]:
        if script.name not in self._references:
            self._references[script.name] = _read(os.path.join(self._root, script.name))
        references = self._references[script.name]
        beside = os.path.dirname(script.name)
        for dots, parts in references.modules:
            if not dots:
                names = self._module(parts, script.directories)
            else:
                package = beside
                for _ in range(dots - 1):
                    package = os.path.dirname(package)
                names = [os.path.join(package, "__init__.py"), *self._package_files(package, parts)]
            for name in filter(self._is_file, names):
                yield script._replace(name=name)
        search_paths = script.search_paths.updated_by(references.shell_text)
        for word in references.candidates:
            path = _relative(word.removeprefix(f"{self._root}/"))
            for base in (*search_paths.directories, beside):
                name = os.path.normpath(os.path.join(base, path))
                if path and self._is_file(name):
                    yield _as_script(name, search_paths)
                    break
        yield from self._modules_run(_run_modules(references.shell_text), search_paths)

    def _modules_run(
        self, modules: Iterable[_Parts], search_paths: SearchPaths
    ) -> Iterator[_Script]:
        """Yield the files of modules run or imported from the working directory."""
        directories = (*search_paths.directories, *search_paths.python_path)
        for parts in modules:
            for name in self._module(parts, directories):
                yield _Script(name, directories, search_paths)

    def _find_module(self, parts: _Parts, directories: tuple[str, ...]) -> list[str]:
        """Return the files of a module, from its outermost package on."""
        if parts[0] not in sys.stdlib_module_names:
            directories = (*directories, *_IMPLICIT_DIRECTORIES)
        for directory in directories:
            top = os.path.join(directory, parts[0])
            if self._is_file(f"{top}/__init__.py") or self._is_file(f"{top}.py"):
                return self._package_files(directory, parts)
        # Packages without an __init__ are one, wherever their parts lie.
        return [
            name
            for directory in dict.fromkeys(directories)
            for name in self._package_files(directory, parts)
        ]

    def _package_files(self, directory: str, parts: _Parts) -> list[str]:
        files = []
        for part in parts:
            directory = os.path.join(directory, part)
            if self._is_file(f"{directory}/__init__.py"):
                files.append(f"{directory}/__init__.py")
            elif self._is_file(f"{directory}.py"):
                return [*files, f"{directory}.py"]
        return files

    def _is_file(self, name: str) -> bool:
        if name not in self._exists:
            exists = not name.startswith(("..", "/")) and os.path.isfile(f"{self._root}/{name}")
            self._exists[name] = exists and self._is_source(name)
        return self._exists[name]


def _as_script(script: str, search_paths: SearchPaths) -> _Script:
    return _Script(script, (os.path.dirname(script), *search_paths.python_path), search_paths)


def _read(path: str) -> _References:
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            is_python = path.endswith(_PYTHON) or _RUN_BY_PYTHON.match(head) is not None
            is_shell = path.endswith(_SHELL) or _RUN_BY_SHELL.match(head) is not None
            if not is_python and not is_shell:
                return _References()
            text = (head + file.read(_MAX_SIZE)).decode(errors="replace")
    except OSError:
        return _References()
    text = text.replace("\r\n", "\n").replace("\\\n", " ")
    if is_python:
        return _References(modules=tuple(dict.fromkeys(_imports(text))))
    text = _COMMENT.sub("", text)
    candidates = [word for rest in _SOURCED.findall(text) for word in _WORD.findall(rest)]
    candidates += [word for word in _WORD.findall(text) if is_script(word)]
    return _References(candidates=tuple(dict.fromkeys(candidates)), shell_text=text)


def _relative(path: str) -> str:
    """Return a path without the computed directory at its beginning."""
    computed = _COMPUTED.match(path)
    return path[computed.end() :] if computed else path


def _normalize(path: str) -> str:
    directory = os.path.normpath(path)
    return "" if directory == "." else directory


def _imports(text: str) -> Iterator[tuple[int, _Parts]]:
    """Yield every module that a text imports, with its leading dots."""
    for match in _IMPORT.finditer(text):
        start = max(0, match.start() - _LOOKBACK)
        before = _BEFORE.search(text[start : match.start()].rpartition("\n")[2])
        if before is not None:
            dots, module = before.groups("")
            for target in re.sub(r"#[^\n]*", "", match[1]).strip("()").split(","):
                yield from _import_targets(len(dots), module, target)


def _import_targets(dots: int, module: str, name: str) -> Iterator[tuple[int, _Parts]]:
    """Yield the module that an imported name may be.

    ``name`` is a module of ``module`` or anything else in it, ``*`` for instance.
    """
    words = name.split()
    parts = [*module.split("."), *(words[0].split(".") if words else ())]
    named = tuple(part for part in parts if part.isidentifier())
    if named or dots:
        yield dots, named


def _run_modules(text: str) -> Iterator[_Parts]:
    for name in _MODULE.findall(text) if "-m" in text else ():
        parts = tuple(filter(None, name.split(".")))
        yield from (parts, (*parts, "__main__"))
