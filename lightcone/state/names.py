"""Names of files and directories that never count: one list, for every part of lc.

Interpreters, editors, desktops and network file systems leave such files in any directory, so they
count in no input, no listing and no pattern of a command. A result is what its recipe made, so it
has those that the recipe left; those that come later do not count.

A repository, a cache of programs and an environment are left out in the project's own directories
alone. Within an input they may well be the data, and ``ignore`` can leave them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lightcone.spec.layout import STATE

__all__ = ["NOT_IN_PROJECT", "does_count", "is_incidental"]

# What desktops and network file systems leave in any directory, and what lc itself did.
_INCIDENTAL = r"\.DS_Store|\.snakemake_timestamp|\.nfs[0-9a-f]{8,}|\.lightcone-[^/]*"

is_incidental = re.compile(_INCIDENTAL).fullmatch
"""Return whether a name counts nowhere, not even in a result when it is made."""

_LEFT_BEHIND = re.compile(
    rf"(?:^|/)(?:{_INCIDENTAL}|__pycache__|\.ipynb_checkpoints|\.(?:pytest|mypy|ruff)_cache"
    r"|\.Rhistory|\.directory|Thumbs\.db|desktop\.ini|\._[^/]*|\.#[^/]*|#[^/]*#"
    r"|\.[^/]*\.sw[a-z]|\.~lock\.[^/]*#|[^/]*(?:~|\.py[co]))(?:/|$)"
).search

NOT_IN_PROJECT = frozenset({".cache", ".git", ".hg", ".nox", ".svn", ".tox", STATE})
"""Names of directories that, besides, count nowhere but in an input that contains them."""


def does_count(name: str, ignore: Callable[[str], object] | None = None) -> bool:
    """Return whether a file or directory counts, by its path within a tree.

    Not that of an interpreter's cache, of an editor that has a file open, or one that ``ignore``
    accepts.
    """
    return _LEFT_BEHIND(name) is None and not (ignore is not None and ignore(name))
