"""Trees of files: which names in them count, and what the links in them lead to.

Interpreters, editors, desktops and network file systems leave files in any directory, so these
count in no input, no listing and no pattern of a command. A result is what its recipe made, so it
has those that the recipe left; those that come later do not count. A repository, a cache of
programs and an environment are left out in the project's own directories alone: within an input
they may well be the data, and ``ignore`` can leave them out.

A program reads through links, so what they lead to counts: a file as its own bytes, a directory as
the tree there. A link counts by where it points, as a file of its own, where following it tells
nothing more or would not end: it dangles; it leads to a directory that the tree already has, or
above itself or the tree; it leads into ``/proc`` or another file system that the kernel makes up.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeAlias

from lightcone.spec.layout import STATE

__all__ = ["NOT_IN_PROJECT", "Entry", "does_count", "hash_link", "walk"]

Entry: TypeAlias = tuple[str, str, os.stat_result]
"""The name of a file from the top of its tree, a path to it, and its status.

The status is that of a link only where the link counts by where it points.
"""

# What desktops and network file systems leave in any directory, and what lc itself did.
_INCIDENTAL = r"\.DS_Store|\.snakemake_timestamp|\.nfs[0-9a-f]{8,}|\.lightcone-[^/]*"

# Such a name counts nowhere, not even in a result when it is made.
_is_incidental = re.compile(_INCIDENTAL).fullmatch

_LEFT_BEHIND = re.compile(
    rf"(?:^|/)(?:{_INCIDENTAL}|__pycache__|\.ipynb_checkpoints|\.(?:pytest|mypy|ruff)_cache"
    r"|\.Rhistory|\.directory|Thumbs\.db|desktop\.ini|\._[^/]*|\.#[^/]*|#[^/]*#"
    r"|\.[^/]*\.sw[a-z]|\.~lock\.[^/]*#|[^/]*(?:~|\.py[co]))(?:/|$)"
).search

NOT_IN_PROJECT = frozenset({".cache", ".git", ".hg", ".nox", ".svn", ".tox", STATE})
"""Names of directories that, besides, count nowhere but in an input that contains them."""

_MADE_UP = ("/proc", "/sys", "/dev", "/run")


def does_count(name: str, ignore: Callable[[str], object] | None = None) -> bool:
    """Return whether a file or directory counts, by its path within a tree.

    Not that of an interpreter's cache, of an editor that has a file open, or one that ``ignore``
    accepts.
    """
    return _LEFT_BEHIND(name) is None and not (ignore is not None and ignore(name))


def walk(top: str, counts: Callable[[str], object] | None = None) -> Iterator[Entry]:
    """Yield every file below the directory ``top``, in no particular order.

    Each directory is read once, under the name that comes first of those that links give it.
    Names that ``counts`` refuses are left out, of directories with all that is below.

    Raises:
        OSError: where a directory cannot be read; one that a link leads to, or that is below such
            a directory, is then a file of its own.
    """
    walked: set[str] = set()
    links: list[tuple[str, str]] = []
    yield from _scan("", top, counts, walked, links)
    if not links:
        return
    real_top = os.path.realpath(top)
    walked = {real_top + each[len(top) :] for each in walked}
    while links:
        found = sorted(links)
        links.clear()
        for name, path in found:
            target = os.path.realpath(path)
            above = (real_top, os.path.realpath(os.path.dirname(path)))
            if target in walked or any(_is_within(each, target) for each in above):
                yield name, path, os.lstat(path)
            else:
                yield from _scan(f"{name}/", target, counts, walked, links, is_linked=True)


def hash_link(path: str) -> str:
    """Return the hash of a link by where it points, in hexadecimal."""
    text = os.readlink(path)
    if os.path.isdir(path) and not _is_made_up(os.stat(path)):
        real, directory = os.path.realpath(path), os.path.realpath(os.path.dirname(path))
        if os.path.normpath(os.path.join(directory, text)) != real:
            # Another link is on the way, which may lead elsewhere one day.
            text = os.path.relpath(real, directory)
    return hashlib.sha256(b"link\0" + os.fsencode(text)).hexdigest()


def _scan(
    prefix: str,
    top: str,
    counts: Callable[[str], object] | None,
    walked: set[str],
    links: list[tuple[str, str]],
    *,
    is_linked: bool = False,
) -> Iterator[Entry]:
    """Yield the files of the directories below ``top`` that are not yet ``walked``.

    Links to directories are appended to ``links``, each with its name and path.
    """
    waiting = [(prefix, top)]
    while waiting:
        prefix, directory = waiting.pop()
        if directory in walked:
            continue
        walked.add(directory)
        try:
            entries = os.scandir(directory)
        except PermissionError:
            if not is_linked:
                raise
            # Such as lost+found at the top of a disk: no recipe of this user reads it either.
            yield prefix.rstrip("/"), directory, os.stat(directory)
            continue
        with entries:
            for entry in entries:
                base = entry.name
                if base[0] == "." and _is_incidental(base):
                    continue
                name = prefix + base
                if counts is not None and not counts(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{name}/", entry.path))
                elif not entry.is_symlink():
                    yield name, entry.path, entry.stat(follow_symlinks=False)
                else:
                    status = _status_behind(entry)
                    if stat.S_ISDIR(status.st_mode):
                        links.append((name, entry.path))
                    else:
                        yield name, entry.path, status


def _status_behind(link: os.DirEntry[str]) -> os.stat_result:
    """Return the status of what a link leads to; its own where it counts by where it points."""
    try:
        status = link.stat()
    except OSError:
        return link.stat(follow_symlinks=False)
    return link.stat(follow_symlinks=False) if _is_made_up(status) else status


def _is_within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _is_made_up(status: os.stat_result) -> bool:
    return status.st_dev in _made_up_devices()


@cache
def _made_up_devices() -> frozenset[int]:
    """Return the file systems whose files the kernel or a boot makes up.

    Disks and shared memory that are mounted below these directories are others.
    """
    devices = {os.stat(each).st_dev for each in _MADE_UP if os.path.isdir(each)}
    return frozenset(devices - {os.stat("/").st_dev})
