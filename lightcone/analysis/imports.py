"""The project's files that a script brings in, found without running it.

- Python: ``import`` and ``from … import`` wherever a statement may begin. A module is looked for
  beside the script that is run, in what the command has as ``PYTHONPATH``, in the project's
  directory and in its ``src``, in that order; a relative one in its package. The ``__init__`` of
  every package on the way counts. In the last two places a module of the standard library's name
  is taken to be that one.
- Shell: what stands after ``source`` and ``.``, and every Python or shell script that is named,
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
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Scripts", "is_script"]

_BEGINS = r"(?:^[ \t]*|[;:'\"][ \t]*)"
_FROM = re.compile(
    _BEGINS + r"from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]*\bimport\b[ \t]*(\([^)]*\)|[^\n#;'\"]+)",
    re.MULTILINE,
)
_IMPORT = re.compile(_BEGINS + r"import[ \t]+([^\n#;'\"]+)", re.MULTILINE)
_SOURCED = re.compile(r"(?:^|[;&|({]|\bthen|\bdo|\belse)[ \t]*(?:source|\.)[ \t]+(\S+)", re.MULTILINE)
_MODULE = re.compile(r"(?<!\S)-m[ \t]*([A-Za-z_][\w.]*)")
_COMMENT = re.compile(r"^[ \t]*#.*", re.MULTILINE)
_CD = re.compile(r"\bcd\s+([^\s;|&<>()'\"`]+)")
_WORD = re.compile(r"[^\s;|&<>()'\"`=,:]+")
# ``$HERE/``, ``${0%/*}/``, and what is left of ``$(dirname "$0")/``.
_COMPUTED = re.compile(r"\$(?:\w+|\{[^}]*\})?/?|/")
_PYTHON = (".py", ".pyw")
_SHELL = (".sh", ".bash", ".zsh", ".ksh")
_PYTHON_RUNS = re.compile(rb"#!.*\bpython")
_SHELL_RUNS = re.compile(rb"#!.*\b(?:ba|z|k|da)?sh\b")
_LARGEST = 4 << 20
# Where a module may lie though nothing in the command says so: installed in place, as a rule.
_INSTALLED = ("", "src")


def is_script(name: str) -> bool:
    """Whether a file's name says that it is a Python or a shell script."""
    return name.endswith((*_PYTHON, *_SHELL))


class _Script(NamedTuple):
    """What one script asks for: modules, with the dots before them, and paths."""

    modules: tuple[tuple[int, tuple[str, ...]], ...] = ()
    run: tuple[tuple[str, ...], ...] = ()
    paths: tuple[str, ...] = ()
    changes_into: tuple[str, ...] = ()


class Scripts:
    """The scripts of a project, each read once, so one serves for one plan and no longer.

    ``is_ours`` says of a path from ``root`` whether it can be a source of the project's.
    """

    def __init__(self, root: str, is_ours: Callable[[str], bool]) -> None:
        self._root = root
        self._is_ours = is_ours
        self._read: dict[str, _Script] = {}
        self._there: dict[str, bool] = {}
        self._found: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def brought_in(self, script: str, python_path: tuple[str, ...] = ()) -> tuple[str, ...]:
        """All that ``script``, a path from the root, brings in when it is run, sorted.

        Empty where it is no script or cannot be read.
        """
        key = (script, python_path)
        if key not in self._found:
            self._found[key] = self._follow([(script, self._beside(script, python_path))])
        return self._found[key]

    def of_command(
        self, command: str, directories: tuple[str, ...], python_path: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The modules that a command runs or imports itself, with all they bring in, sorted."""
        places = (*directories, *python_path)
        asked = [
            *_run_modules(command),
            *(parts for dots, parts in _imports(command) if not dots),
        ]
        found = [name for parts in asked for name in self._module(parts, places)]
        return tuple(sorted({*found, *self._follow([(name, places) for name in found])}))

    def _follow(self, queue: list[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
        start = {name for name, _ in queue}
        seen = set(queue)
        while queue:
            script, places = queue.pop()
            for following in self._direct(script, places):
                if following not in seen:
                    seen.add(following)
                    queue.append(following)
        return tuple(sorted({name for name, _ in seen} - start))

    def _direct(self, script: str, places: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What a script asks for itself, each with the places where that looks for modules."""
        if script not in self._read:
            self._read[script] = _read(os.path.join(self._root, script))
        asks = self._read[script]
        beside = os.path.dirname(script)
        for dots, parts in asks.modules:
            if not dots:
                yield from ((name, places) for name in self._module(parts, places))
                continue
            package = beside
            for _ in range(dots - 1):
                package = os.path.dirname(package)
            yield from ((name, places) for name in self._within(package, parts))
        for path in asks.paths:
            text = path.removeprefix(f"{self._root}/")
            text = text[match.end() :] if (match := _COMPUTED.match(text)) else text
            for base in (*asks.changes_into, "", beside):
                name = os.path.normpath(os.path.join(base, text))
                if text and self._is_file(name):
                    yield name, self._beside(name, places[1:])
                    break
        for parts in asks.run:
            run_from = ("", *asks.changes_into, *places[1:])
            yield from ((name, run_from) for name in self._module(parts, run_from))

    def _beside(self, script: str, python_path: tuple[str, ...]) -> tuple[str, ...]:
        return (os.path.dirname(script), *python_path)

    def _module(self, parts: tuple[str, ...], places: tuple[str, ...]) -> list[str]:
        """The files of a module, from its outermost package on."""
        spaces = []
        is_standard = parts[0] in sys.stdlib_module_names
        for place in dict.fromkeys(places if is_standard else (*places, *_INSTALLED)):
            top = os.path.join(place, parts[0])
            if self._is_file(f"{top}/__init__.py") or self._is_file(f"{top}.py"):
                return self._within(place, parts)
            spaces.append(place)
        # Packages without an __init__ are one, wherever their parts lie.
        return [name for place in spaces for name in self._within(place, parts)]

    def _within(self, place: str, parts: tuple[str, ...]) -> list[str]:
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
            inside = not name.startswith(("..", "/"))
            there = inside and os.path.isfile(os.path.join(self._root, name))
            self._there[name] = there and self._is_ours(name)
        return self._there[name]


def _read(path: str) -> _Script:
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            is_python = path.endswith(_PYTHON) or _PYTHON_RUNS.match(head) is not None
            is_shell = path.endswith(_SHELL) or _SHELL_RUNS.match(head) is not None
            if not (is_python or is_shell):
                return _Script()
            text = (head + file.read(_LARGEST)).decode(errors="replace").replace("\r\n", "\n")
    except OSError:
        return _Script()
    if is_python:
        return _Script(modules=tuple(dict.fromkeys(_imports(text))))
    text = _COMMENT.sub("", text.replace("\\\n", " "))
    paths = [name.strip("'\"") for name in _SOURCED.findall(text)]
    paths += [word for word in _WORD.findall(text) if is_script(word)]
    return _Script(
        run=tuple(_run_modules(text)),
        paths=tuple(dict.fromkeys(paths)),
        changes_into=tuple(dict.fromkeys(_CD.findall(text))),
    )


def _imports(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every module that a text imports, with the number of dots before it."""
    if "import" not in text:
        return
    text = text.replace("\\\n", " ")
    for names in _IMPORT.findall(text):
        for one in names.split(","):
            yield from _parts(0, "", one)
    for dots, module, names in _FROM.findall(text):
        listed = re.sub(r"#[^\n]*", "", names).strip("()").split(",")
        for one in listed:
            yield from _parts(len(dots), module, one)


def _parts(dots: int, module: str, name: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """``name`` may be a module of ``module`` or anything else in it, ``*`` for instance."""
    inner = name.split(" as ")[0].strip()
    parts = [part for part in f"{module}.{inner}".split(".") if part and part != "*"]
    if (parts or dots) and all(part.isidentifier() for part in parts):
        yield dots, tuple(parts)


def _run_modules(text: str) -> Iterator[tuple[str, ...]]:
    if "-m" in text:
        for name in _MODULE.findall(text):
            parts = tuple(name.strip(".").split("."))
            yield parts
            yield (*parts, "__main__")
