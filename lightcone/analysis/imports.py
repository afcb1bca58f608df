"""The project's files that a script of the project brings in, found without running it.

- Python: ``import`` and ``from … import`` at the beginning of a line, indented or not, for modules
  that lie beside the script, in the project's directory or in its ``src``, in that order, and
  relative ones within their package. A package's ``__init__`` counts with each of its modules.
- Shell: ``source FILE`` and ``. FILE`` at the beginning of a line, from the project's directory
  (where recipes run) or beside the script; a path with a variable in it is not followed.

What is found is followed in turn. Not found: what is computed (``importlib``, ``exec``), what
follows a ``;``, modules on a ``PYTHONPATH`` of the caller's own, data that a script opens. A word
of a docstring that looks like an import counts where there is such a file, and costs nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

__all__ = ["imported"]

_FROM = re.compile(
    r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n#;]+)", re.MULTILINE
)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([^\n#;]+)", re.MULTILINE)
_SOURCE = re.compile(r"^[ \t]*(?:source|\.)[ \t]+[\"']?([^\s\"';|&$]+)", re.MULTILINE)
_SHELL = (".sh", ".bash", ".zsh", ".ksh")
_LARGEST = 4 << 20


def imported(root: str, name: str) -> list[str]:
    """The files that ``name`` brings in, directly or not, by their paths from ``root``, sorted.

    Empty for what is neither a Python nor a shell script, or cannot be read.
    """
    found: set[str] = set()
    queue = [name]
    while queue:
        script = queue.pop()
        for other in _direct(root, script):
            if other != name and other not in found:
                found.add(other)
                queue.append(other)
    return sorted(found)


def _direct(root: str, script: str) -> Iterator[str]:
    path = os.path.join(root, script)
    try:
        if os.path.getsize(path) > _LARGEST:
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return
    if script.endswith((".py", ".pyw")) or re.match(r"#!.*\bpython", text):
        yield from _of_python(root, script, text)
    elif script.endswith(_SHELL) or re.match(r"#!.*\b(?:ba|z|k|da)?sh\b", text):
        for named in _SOURCE.findall(text):
            for base in ("", os.path.dirname(script)):
                place = os.path.normpath(os.path.join(base, named))
                if _is_inside(root, place):
                    yield place
                    break


def _of_python(root: str, script: str, text: str) -> Iterator[str]:
    beside = os.path.dirname(script)
    bases = list(dict.fromkeys([beside, "", "src"]))
    for names in _IMPORT.findall(text):
        for one in names.split(","):
            module = one.split(" as ")[0].strip()
            yield from _module(root, bases, module.split("."))
    for dots, module, names in _FROM.findall(text):
        parts = [part for part in module.split(".") if part]
        places = bases
        if dots:
            up = beside
            for _ in dots[1:]:
                up = os.path.dirname(up)
            places = [up]
        yield from _module(root, places, parts)
        for one in re.sub(r"#[^\n]*", "", names).strip("()").split(","):
            inner = one.split(" as ")[0].strip()
            if inner.isidentifier():
                yield from _module(root, places, [*parts, inner])


def _module(root: str, bases: list[str], parts: list[str]) -> Iterator[str]:
    """The files of a module: its packages' ``__init__`` from the outside in, and its own."""
    if not all(part.isidentifier() for part in parts):
        return
    for base in bases:
        found = []
        for length in range(len(parts) + 1):
            place = os.path.join(base, *parts[:length])
            package = os.path.join(place, "__init__.py")
            if length and length == len(parts) and _is_inside(root, f"{place}.py"):
                found.append(f"{place}.py")
            elif (length or base) and _is_inside(root, package):
                found.append(package)
        own = os.path.join(base, *parts)
        if any(file in (f"{own}.py", os.path.join(own, "__init__.py")) for file in found):
            yield from found
            return
        if parts and os.path.isdir(os.path.join(root, own)):
            return  # a namespace package: only its modules are files


def _is_inside(root: str, name: str) -> bool:
    return not name.startswith(("..", "/")) and os.path.isfile(os.path.join(root, name))
