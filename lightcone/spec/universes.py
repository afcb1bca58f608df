"""The universes of a project and their choices."""

from __future__ import annotations

import contextlib
import os
import re
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lightcone.errors import SpecError, UsageError
from lightcone.spec.document import describe_dangling, read_document
from lightcone.spec.layout import RESULTS
from lightcone.spec.schema import Node, check_universe
from lightcone.spec.suggestions import capped, listed
from lightcone.spec.tree import Scope, Tree, display_path

__all__ = ["DEFAULT", "Universe", "list_universes", "load_universes", "unread_universes"]

DEFAULT = "baseline"
"""The universe of a project that has none of its own: every decision at its default."""

_DIRECTORY = "universes"
_SUFFIX = ".yaml"
_MEANT = re.compile(r"(.+)\.ya?ml(?:\.txt)?\s*", re.IGNORECASE)
_OTHER_DIRECTORIES = ("Universe", "Universes", "universe")
# What the older tool called the only universe of a project that has none.
_OLDER_DEFAULT = "default"


@dataclass(frozen=True)
class Universe:
    """One complete selection of options.

    Attributes:
        name: the name of its file, without ``.yaml``.
        data: what it chooses throughout the analysis, in the form that ``astra`` resolves.
        files: what messages call the file that chooses for a sub-analysis and what lies below
            it; for the root "" where the defaults choose.
    """

    name: str
    data: Node
    files: dict[Scope, str] = field(default_factory=dict)

    def file(self, scope: Scope) -> str:
        """Return the name in messages of the file that chooses at ``scope``."""
        while scope not in self.files:
            scope = scope[:-1]
        return self.files[scope]


def list_universes(root: Path) -> list[str]:
    """List a project's universes alphabetically; ``baseline`` where it has none.

    Raises:
        SpecError: where their directory cannot be read.
    """
    names = _own_universes(root)
    if names:
        return names
    return [_OLDER_DEFAULT if (root / RESULTS / _OLDER_DEFAULT).is_dir() else DEFAULT]


def _own_universes(root: Path) -> list[str]:
    """List the universes that have a file, alphabetically.

    Raises:
        SpecError: where there are such files that cannot be found, or have no usable name.
    """
    directory = root / _DIRECTORY
    try:
        names = [
            name.removesuffix(_SUFFIX)
            for name in os.listdir(directory)
            if name.endswith(_SUFFIX) and not name.startswith(".")
        ]
    except FileNotFoundError as error:
        if not directory.is_symlink():
            return []
        raise SpecError(f"{describe_dangling(directory, str(directory))}.") from error
    except NotADirectoryError as error:
        if not root.is_dir():
            return []
        raise SpecError(
            f"{directory} is a file: rename it, and make it a directory with a file <name>.yaml "
            "for each universe."
        ) from error
    except OSError as error:
        raise SpecError(
            f"The directory {directory} cannot be read ({error.strerror}): check it."
        ) from error
    for name in names:
        if not name.isprintable():
            raise SpecError(
                f"{directory} has a file {name + _SUFFIX!a}, whose name cannot be printed: "
                "rename it."
            )
    return sorted(names)


def unread_universes(tree: Tree) -> list[str]:
    """Return sentences on the files that were meant as universes, but are not read."""
    sentences: list[str] = []
    for directory in tree.directories.values():
        if not os.path.lexists(directory / _DIRECTORY):
            sentences += _misnamed(directory, tree.root)
        # A directory that cannot be listed is reported where it is used.
        with contextlib.suppress(OSError):
            for file in sorted(os.listdir(directory / _DIRECTORY)):
                path = directory / _DIRECTORY / file
                if not file.startswith(".") and not file.endswith(_SUFFIX):
                    sentences += _unread(path, display_path(path, tree.root))
    return capped(sentences)


def _misnamed(directory: Path, root: Path) -> Iterator[str]:
    """Yield a sentence on a directory that may be meant as that of the universes."""
    for other in _OTHER_DIRECTORIES:
        with contextlib.suppress(OSError):
            if any(_MEANT.fullmatch(file) for file in os.listdir(directory / other)):
                name = display_path(directory / other, root)
                yield f"{name} is ignored: rename it to {_DIRECTORY} to have its universes."


def _unread(path: Path, name: str) -> Iterator[str]:
    """Yield a sentence on a path among the universes that is none, if it may be meant as one."""
    meant = _MEANT.fullmatch(path.name)
    if path.is_dir():
        first = _first_universe(path)
        if first is not None:
            yield (
                f"{name} is ignored, with {first} in it: universes are the files directly in "
                f"{_DIRECTORY}; move it there to have its universe."
            )
    elif meant is not None:
        read = f"{meant[1]}{_SUFFIX}"
        if os.path.lexists(path.with_name(read)):
            yield f"{name} is ignored, as {read} is read: remove it, or call it <name>{_SUFFIX}."
        else:
            yield f"{name} is ignored: rename it to {read} to have its universe."


def _first_universe(directory: Path) -> str | None:
    """Return the first file in or below ``directory`` that may be meant as a universe."""
    for above, _, files in os.walk(directory):
        for file in sorted(files):
            if _MEANT.fullmatch(file) is not None and not file.startswith("."):
                return os.path.relpath(os.path.join(above, file), directory)
    return None


def load_universes(tree: Tree, only: str | None = None) -> list[Universe]:
    """Load every universe of the analysis, or only the one named.

    Raises:
        UsageError: where there is no universe of that name.
        SpecError: where a file cannot be used.
    """
    names = list_universes(tree.root)
    if only is not None:
        if only not in names:
            from difflib import get_close_matches

            guess = get_close_matches(only, names, 1)
            hint = f"did you mean '{guess[0]}'? There are" if guess else "there are"
            raise UsageError(f"There is no universe '{only}': {hint} {listed(names)}.")
        names = [only]
    reader = _Reader(tree)
    return [reader.universe(name) for name in names]


class _Reader:
    """Cached reader of universes."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.documents: dict[Path, Node] = {}
        # What is listed is read: a link that leads nowhere must not count as no universe.
        self.own = cache(_own_universes)

    def universe(self, name: str) -> Universe:
        path = self.tree.root / _DIRECTORY / f"{name}{_SUFFIX}"
        if name not in self.own(self.tree.root):
            return Universe(name, _defaults(self.tree), {(): ""})
        universe = Universe(name, {}, {(): display_path(path, self.tree.root)})
        universe.data.update(self._complete(universe, (), self._document(path), name))
        return universe

    def _complete(self, universe: Universe, scope: Scope, node: Node, name: str) -> Node:
        """Return the choices of ``node`` with the universes it names filled in."""
        subs = dict(node["analyses"])
        for sub in self.tree.nodes[scope]["analyses"]:
            below = (*scope, sub)
            chosen, picked = self._pick(universe, below, subs.get(sub), name)
            if chosen is not None:
                subs[sub] = self._complete(universe, below, chosen, picked)
        return {"decisions": node["decisions"], "analyses": subs}

    def _pick(
        self, universe: Universe, scope: Scope, chosen: Node | None, name: str
    ) -> tuple[Node | None, str]:
        """Return the choices for one sub-analysis and their universe's name."""
        directory = self.tree.directories.get(scope)
        picked: str | None = chosen.get("universe") if chosen else None
        if picked is None:
            if directory is None or (chosen and (chosen["decisions"] or chosen["analyses"])):
                return chosen, name
            # A project of its own without choices here: its universe of the same name applies.
            path = directory / _DIRECTORY / f"{name}{_SUFFIX}"
            if name not in self.own(directory):
                return chosen, name
        else:
            label = f"{universe.file(scope[:-1])} chooses universe '{picked}' of '{scope[-1]}'"
            if directory is None:
                raise SpecError(
                    f"{label}, which has no universes of its own: list its decisions instead."
                )
            path = directory / _DIRECTORY / f"{picked}{_SUFFIX}"
            if picked not in self.own(directory):
                known = listed(list_universes(directory))
                raise SpecError(f"{label}, where there is no such file: choose one of {known}.")
        universe.files[scope] = display_path(path, self.tree.root)
        return self._document(path), picked or name

    def _document(self, path: Path) -> Node:
        if path not in self.documents:
            name = display_path(path, self.tree.root)
            self.documents[path] = check_universe(read_document(path, name), name)
        return self.documents[path]


def _defaults(tree: Tree) -> Node:
    """Build the universe in which every decision has its default."""
    from astra.helpers import create_universe_from_defaults, is_condition_met
    from astra.resolve import resolve_universe

    data: Node = create_universe_from_defaults(tree.data, DEFAULT)
    waiting = [
        (scope, name)
        for scope, node in tree.nodes.items()
        for name, decision in node["decisions"].items()
        if decision.get("when") and decision.get("default") is not None
    ]
    # The helper judges a condition by the decisions beside it; it may also be about those above.
    changed = bool(waiting)
    while changed:
        settled: dict[Scope, dict[str, str]] = {}
        for key, option in resolve_universe(tree.data, data).items():
            *above, name = key.split(".")
            settled.setdefault(tuple(above), {})[name] = option
        left = []
        for scope, name in waiting:
            decision = tree.nodes[scope]["decisions"][name]
            chosen = _node_at(data, scope).setdefault("decisions", {})
            visible = ChainMap(
                *(settled.setdefault(scope[:depth], {}) for depth in range(len(scope), -1, -1))
            )
            if name not in chosen and is_condition_met(decision["when"], visible):
                # Those that follow see it at once, or a chain of conditions would take as many
                # rounds as it has links.
                chosen[name] = settled[scope][name] = decision["default"]
            elif name not in chosen:
                left.append((scope, name))
        changed = len(left) < len(waiting)
        waiting = left
    return data


def _node_at(data: Node, scope: Scope) -> dict[str, Any]:
    for name in scope:
        data = data.setdefault("analyses", {}).setdefault(name, {})
    return data
