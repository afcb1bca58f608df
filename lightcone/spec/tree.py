"""The whole analysis, with the sub-analyses in directories of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE
from lightcone.spec.document import describe_dangling, read_document
from lightcone.spec.keys import UnknownKeys
from lightcone.spec.schema import Node, check_analysis

__all__ = ["Scope", "Tree", "load_tree"]

Scope = tuple[str, ...]
"""The sub-analyses descended through; empty at the root."""

_CONTENT = frozenset({"inputs", "outputs", "decisions", "analyses", "container"})


@dataclass(frozen=True)
class Tree:
    """An analysis and its sub-analyses, nested to any depth.

    Attributes:
        root: the project's directory.
        data: the analysis, in the form that ``astra`` resolves, all sub-analyses inline.
        nodes: each analysis by its scope, parents before children.
        directories: those analyses that have a directory of their own, the root among them.
        files: the results of :meth:`file`, cached.
        unknown: the keys of its files that are ignored.
    """

    root: Path
    data: Node
    nodes: dict[Scope, Node] = field(default_factory=dict)
    directories: dict[Scope, Path] = field(default_factory=dict)
    files: dict[Scope, str] = field(default_factory=dict)
    unknown: UnknownKeys = field(default_factory=UnknownKeys)

    def home(self, scope: Scope) -> Scope:
        """Return the nearest scope, at or above ``scope``, with a directory."""
        while scope not in self.directories:
            scope = scope[:-1]
        return scope

    def file(self, scope: Scope) -> str:
        """Return the name in messages of the file that declares an analysis."""
        home = self.home(scope)
        if home not in self.files:
            self.files[home] = display_path(self.directories[home] / SPEC_FILE, self.root)
        return self.files[home]


def display_path(path: Path, root: Path) -> str:
    """Return a path as a user would type it in the project's directory."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def load_tree(root: Path) -> Tree:
    """Read the analysis at ``root`` and every sub-analysis.

    Raises:
        SpecError: where a file cannot be used.
    """
    unknown = UnknownKeys()
    tree = Tree(root, _read(root, root, unknown), unknown=unknown)
    tree.directories[()] = root
    _register(tree, (), tree.data, (root,))
    return tree


def _read(directory: Path, root: Path, unknown: UnknownKeys) -> Node:
    path = directory / SPEC_FILE
    name = display_path(path, root)
    return check_analysis(read_document(path, name), name, unknown)


def _register(tree: Tree, scope: Scope, node: Node, ancestors: tuple[Path, ...]) -> None:
    """Record an analysis and all below it in ``tree``.

    ``ancestors`` are the directories that led to it.
    """
    tree.nodes[scope] = node
    subs: dict[str, Node] = node["analyses"]
    for name, sub in subs.items():
        below = (*scope, name)
        if not sub.get("path"):
            _register(tree, below, sub, ancestors)
            continue
        directory = _directory(tree, scope, name, ancestors)
        subs[name] = _read(directory, tree.root, tree.unknown)
        tree.directories[below] = directory
        _register(tree, below, subs[name], (*ancestors, directory))


def _directory(tree: Tree, scope: Scope, name: str, ancestors: tuple[Path, ...]) -> Path:
    """Return the directory of the sub-analysis ``name`` after checking it."""
    stub = tree.nodes[scope]["analyses"][name]
    label = f"Sub-analysis '{name}' in {tree.file(scope)}"
    content = sorted(part for part in _CONTENT if stub.get(part))
    if content:
        raise SpecError(
            f"{label} has both 'path' and '{content[0]}': "
            "move its content to the file in that path."
        )
    directory = Path(os.path.normpath(ancestors[-1] / stub["path"]))
    file = directory / SPEC_FILE
    for link in (directory, file):
        if link.is_symlink() and not os.path.exists(link):
            raise SpecError(f"{label}: {describe_dangling(link, display_path(link, tree.root))}.")
    if not os.path.isfile(file):
        raise SpecError(
            f"{label} lies in '{stub['path']}', where there is no {SPEC_FILE}: correct the path."
        )
    if any(os.path.samefile(directory, above) for above in ancestors):
        raise SpecError(f"{label} contains itself by its path '{stub['path']}': correct the path.")
    return directory
