"""Tokens of the files that a recipe starts from, which change whenever one of these is written.

A recipe that comes to its end has the bytes of its sources and inputs compared with those that the
run read. For one that was killed nobody does that, and later the same bytes may be there again. The
journal has tokens of them from before the recipe began, of sizes, times and inodes. Where they are
still the same, nothing has been written in between.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from lightcone.spec.inputs import match_again
from lightcone.spec.output import Output
from lightcone.state.dependencies import ignored
from lightcone.state.trees import does_count, walk

__all__ = ["describe_changed", "describe_changes_since", "take_tokens"]

_MAX_NAMED = 3


def take_tokens(output: Output, files: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tokens of the project's ``files`` and of the inputs of ``output``.

    Files by their path from the root, inputs by id.
    """
    output = match_again(output)
    places = {
        given.id: [given.place] if given.place is not None else list(given.words)
        for given in output.inputs
        if given.place is not None or given.pattern is not None
    }
    return {
        "files": {name: _token(output, [name]) for name in files},
        "inputs": {name: _token(output, paths) for name, paths in places.items()},
    }


def describe_changes_since(output: Output, tokens: Any) -> str:
    """Describe, as a clause, what may have changed since :func:`take_tokens` returned ``tokens``.

    "" where nothing has; ``tokens`` may be damaged or missing.
    """
    before = tokens if isinstance(tokens, dict) else {}
    if not all(isinstance(before.get(key), dict) for key in ("files", "inputs")):
        return "what it was made from is not recorded"
    now = take_tokens(output, before["files"])
    changed = [
        name
        for key in now
        for name in {**before[key], **now[key]}
        if now[key].get(name) != before[key].get(name)
    ]
    return describe_changed(output, changed)


def describe_changed(output: Output, names: Sequence[str]) -> str:
    """Describe, as a clause, that sources, by path, and inputs, by id, changed; "" without any."""
    if not names:
        return ""
    texts = {given.id: given.text for given in output.inputs}
    shown = [
        f"input {name} ({texts[name]})" if name in texts else name for name in names[:_MAX_NAMED]
    ]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(shown)}{more} changed after it was begun"


def _token(output: Output, paths: Iterable[str]) -> str:
    counts_not = ignored(output.ignore)
    digest = hashlib.sha256()
    for path in paths:
        full = os.path.join(output.root, path)
        try:
            _add(digest, "", os.lstat(full))
            top = os.stat(full)
            _add(digest, "", top)
            if not stat.S_ISDIR(top.st_mode):
                continue
            # Of a directory that was exchanged for another one and put back, no file differs.
            directories = set()
            for name, place, status in sorted(
                walk(full, lambda name: does_count(name, counts_not)), key=lambda entry: entry[0]
            ):
                _add(digest, name, status)
                directories.add(os.path.dirname(place))
            for directory in sorted(directories):
                _add(digest, directory, os.stat(directory))
        except OSError as error:
            digest.update(f"{error.errno}\n".encode())
    return digest.hexdigest()[:32]


def _add(digest: Any, name: str, status: os.stat_result) -> None:
    values = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    digest.update(f"{name!r} {values}\n".encode("utf-8", "surrogateescape"))
