"""Pointers to data that is kept elsewhere: of git-annex, git-lfs and DVC.

A clone has a small file or a dangling link where the data will be. A recipe would run on that, so
a plan reads it as what it is: data that is not here, and a command that fetches it. A pointer may
name the SHA-256 of the data, which shows whether the data is what a result was made from.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import NamedTuple

__all__ = ["Absence", "describe_absence", "find_pointer"]

_MAX_BYTES = 1 << 10
_ANNEX = b"/annex/objects/"
_LFS = b"version https://git-lfs.github.com/spec/v1"
_LFS_HASH = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_ANNEX_HASH = re.compile(r"SHA256E?-[^/]*--([0-9a-f]{64})")
_ANNEX_LINK = re.compile(r"(?:^|/)annex/objects/")
_DVC_LINK = re.compile(r"/\.dvc/cache/|/files/md5/[0-9a-f]{2}/")


class Absence(NamedTuple):
    """Data that is not here.

    Attributes:
        problem: a clause that names the path.
        remedy: what to do; "" where the data is to be put there.
        sha256: the hash of the data, where a pointer says it.
    """

    problem: str
    remedy: str = ""
    sha256: str | None = None


def find_pointer(path: str, status: os.stat_result, root: str, whole: str) -> Absence | None:
    """Return what a file, or a link that is not followed, points to, if it is a pointer.

    ``root`` is the directory that messages name paths from, and commands run in. ``whole`` is the
    path to fetch: the file, or a directory above it.

    Raises:
        OSError: where the file cannot be read.
    """
    if stat.S_ISLNK(status.st_mode):
        return None if os.path.exists(path) else _dangling_pointer(path, root, whole)
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size < _MAX_BYTES:
        return None
    with open(path, "rb", buffering=0) as file:
        content = file.read(_MAX_BYTES)
    name = _display(path, root)
    if content.startswith(_LFS):
        match = _LFS_HASH.search(content)
        return Absence(
            f"{name} is a pointer of git-lfs, not the data",
            f"run {_git(whole, root, 'lfs', 'pull', '--include', from_top=True)}",
            match[1].decode() if match is not None else None,
        )
    if content.startswith(_ANNEX):
        return _annexed(path, root, whole, "pointer", content.decode(errors="replace"))
    return None


def describe_absence(path: str, root: str) -> Absence:
    """Describe why nothing is at ``path``, which is absolute."""
    name = _display(path, root)
    link = _dangling_link(path)
    if link is not None:
        pointer = _dangling_pointer(link, root, path)
        if pointer is not None:
            return pointer
    tracked = _dvc_file(path, root)
    if tracked is not None:
        return Absence(
            f"{name} is tracked by DVC and not here", f"run {_quoted('dvc', 'pull', tracked)}"
        )
    if link is None:
        return Absence(f"{name} does not exist")
    target = f"{os.path.realpath(link)}, which does not exist"
    if link == path:
        return Absence(f"{name} is a link to {target}")
    return Absence(f"{name} does not exist, as {_display(link, root)} is a link to {target}")


def _dangling_pointer(link: str, root: str, whole: str) -> Absence | None:
    """Return what a dangling link into an annex or a cache points to."""
    target = os.readlink(link)
    if _ANNEX_LINK.search(target):
        return _annexed(link, root, whole, "link", target)
    if _DVC_LINK.search(os.path.join(os.path.dirname(link), target)):
        name = _display(link, root)
        return Absence(
            f"{name} is a link into the cache of DVC, to {target}, which is not here",
            f"run {_quoted('dvc', 'pull', _display(whole, root))}",
        )
    return None


def _annexed(path: str, root: str, whole: str, kind: str, key: str) -> Absence:
    match = _ANNEX_HASH.search(key)
    name = _display(path, root)
    where = f", to {key.strip()}, which is not here" if kind == "link" else ", not the data"
    return Absence(
        f"{name} is a {kind} of git-annex{where}",
        f"run {_git(whole, root, 'annex', 'get')}",
        match[1] if match is not None else None,
    )


def _git(path: str, root: str, *command: str, from_top: bool = False) -> str:
    """Return a command of git for a path; ``from_top`` names it from the repository's top."""
    top = path
    while not os.path.lexists(os.path.join(top, ".git")):
        if top == os.path.dirname(top):
            top = root
            break
        top = os.path.dirname(top)
    if f"{root}/".startswith(f"{top}/"):
        name = os.path.relpath(path, top) if from_top else _display(path, root)
        return _quoted("git", *command, name)
    # Of another repository, such as a submodule.
    return _quoted("git", "-C", _display(top, root), *command, os.path.relpath(path, top))


def _dangling_link(path: str) -> str | None:
    """Return the link on the way to ``path`` that leads to nothing, if there is one."""
    while path != os.path.dirname(path):
        if os.path.lexists(path):
            return path if os.path.islink(path) and not os.path.exists(path) else None
        path = os.path.dirname(path)
    return None


def _dvc_file(path: str, root: str) -> str | None:
    """Return the file by which DVC tracks a path in the project, or one above it."""
    while path.startswith(f"{root}/"):
        if os.path.isfile(f"{path}.dvc"):
            return f"{_display(path, root)}.dvc"
        path = os.path.dirname(path)
    return None


def _display(path: str, root: str) -> str:
    return path.removeprefix(f"{root}/")


def _quoted(*command: str) -> str:
    return f"'{shlex.join(command)}'"
