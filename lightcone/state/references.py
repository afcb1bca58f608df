"""References of a script: the modules, paths and patterns that its text names.

A reader of each language finds them in the text alone, so equal texts have equal references. Where
the files are is decided later, by where the script is and where it runs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

__all__ = [
    "HERE",
    "WHOLE_SCRIPT",
    "Kind",
    "NotFollowed",
    "Reference",
    "References",
    "is_like_a_path",
    "join",
    "merged",
    "parent",
]

HERE = "\0"
"""Stands for the script's own directory at the beginning of a path."""

WHOLE_SCRIPT = "the script"
"""What is not followed where that is so of a whole script."""

_LIKE_A_PATH = re.compile(r"[^\n\0]*(?:/|\w\.\w)[^\n\0]*|\0[^\n\0]*")
_LONGEST = 1024


class Kind(StrEnum):
    """The kinds of references.

    ``MODULE`` is imported, with its leading dots; ``RUN`` is a module that a command runs;
    ``GUESS`` is a path whose beginning could not be resolved and was left out; ``WRITTEN`` is a
    path that the text shows to be written, at least where all of it runs.
    """

    MODULE = "import"
    RUN = "module"
    PATH = "path"
    PATTERN = "pattern"
    GUESS = "guess"
    WRITTEN = "written"


class Reference(NamedTuple):
    """One reference: its text, the line that has it, and the text as written of a guess."""

    kind: Kind
    text: str
    line: int
    origin: str = ""


class NotFollowed(NamedTuple):
    """A place that a reader understands and cannot follow, with the reason."""

    what: str
    why: str
    line: int = 0


class References(NamedTuple):
    """Everything that one text refers to.

    Attributes:
        found: the references.
        search: directories that the text adds to where Python looks for modules.
        directories: directories that the text changes into, in order.
        not_followed: what may bring in more, and cannot be followed.
    """

    found: tuple[Reference, ...] = ()
    search: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    not_followed: tuple[NotFollowed, ...] = ()


def merged(several: Iterable[References]) -> References:
    """Return the references of several texts of one script as one."""
    each = list(several)
    return References(
        tuple(dict.fromkeys(chain.from_iterable(one.found for one in each))),
        tuple(dict.fromkeys(chain.from_iterable(one.search for one in each))),
        tuple(chain.from_iterable(one.directories for one in each)),
        tuple(dict.fromkeys(chain.from_iterable(one.not_followed for one in each))),
    )


def parent(path: str) -> str:
    """Return the directory around a path, which may be relative or begin with ``HERE``."""
    if path in ("", ".", HERE) or posixpath.basename(path) == "..":
        return join(path, "..")
    return posixpath.dirname(path) or "."


def join(base: str, path: str) -> str:
    """Join two paths; ``HERE`` begins an absolute one."""
    return path if path.startswith((HERE, "/")) else posixpath.join(base, path)


def is_like_a_path(text: str) -> bool:
    """Return whether a literal text could well be the path of a file."""
    return len(text) < _LONGEST and "://" not in text and _LIKE_A_PATH.fullmatch(text) is not None
