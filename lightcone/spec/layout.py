"""Layouts of outputs in a project's results.

Two layouts are in use. As a *file*, an output is ``results/<universe>/<id>.<format>``, and the
recipe makes it. As a *directory*, it is ``results/<universe>/<id>/``, made before the recipe runs.
Either way a recipe may put the other there, and that is taken.

A sub-analysis in a directory of its own has ``results`` there. One declared inline has them with
the analysis around it: as files under its qualified id (``sub.id``); as directories under its own
id, as the older tool has it, unless another output has that one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.spec.output import MANIFEST, OLD_MANIFEST
from lightcone.spec.tree import Scope, Tree, display_path

__all__ = ["RESULTS", "STATE", "Layout", "Locations", "find_layout"]

RESULTS = "results"
STATE = ".lightcone"

_OLD_SETTINGS = Path(".lightcone", "lightcone.yaml")
_FORMAT = re.compile(r"\w[\w.+-]*", re.ASCII)


class Layout(StrEnum):
    """Arrangement of a project's outputs in its results."""

    FILE = "file"
    DIRECTORY = "directory"


def find_layout(tree: Tree, setting: str, universes: Iterable[str]) -> Layout:
    """Determine the layout of a project.

    The settings decide; else the older tool's settings or the results that are there,
    so that nothing moves when an output is added; else files if every output says its format.
    """
    if setting != "auto":
        return Layout(setting)
    if (tree.root / _OLD_SETTINGS).exists():
        return Layout.DIRECTORY
    declared = list(_declared(tree))
    for universe in universes:
        for home, directory in tree.directories.items():
            detected = _detect_layout(tree, home, directory / RESULTS / universe, declared)
            if detected is not None:
                return detected
    if declared and all(extension for _, _, extension in declared):
        return Layout.FILE
    return Layout.DIRECTORY


@dataclass(frozen=True)
class Locations:
    """The paths of all outputs of a project."""

    tree: Tree
    layout: Layout
    names: dict[tuple[Scope, str], str]
    bases: dict[Scope, str]

    @classmethod
    def of(cls, tree: Tree, layout: Layout) -> Locations:
        """Compute the paths that a layout gives the outputs of an analysis.

        Raises:
            SpecError: where a format cannot be part of a file's name.
        """
        names: dict[tuple[Scope, str], str] = {}
        taken: dict[tuple[str, str], str] = {}
        bases = {scope: str(directory / RESULTS) for scope, directory in tree.directories.items()}
        declared = list(_declared(tree))
        name_counts = Counter((tree.home(scope), name) for scope, name, _ in declared)
        for scope, name, extension in declared:
            home = tree.home(scope)
            qualified = ".".join((*scope[len(home) :], name))
            if layout is Layout.FILE:
                stem = f"{qualified}.{extension}" if extension else qualified
            else:
                stem = name if name_counts[(home, name)] == 1 or scope == home else qualified
            names[(scope, name)] = stem
            full = ".".join((*scope, name))
            other = taken.setdefault((bases[home], stem), full)
            if other != full:
                path = display_path(Path(bases[home], "<universe>", stem), tree.root)
                raise SpecError(
                    f"Outputs '{other}' and '{full}' would both lie at {path}: "
                    "rename one, or give the sub-analyses directories of their own."
                )
        return cls(tree, layout, names, bases)

    def find(self, universe: str, scope: Scope, name: str) -> tuple[str, str]:
        """Return the absolute paths of an output and of its state directory.

        The state directory has the manifest and the log.
        """
        home = self.tree.home(scope)
        directory = f"{self.bases[home]}/{universe}"
        filename = stem = self.names[(scope, name)]
        if self.layout is Layout.FILE:
            stem = ".".join((*scope[len(home) :], name))
        return f"{directory}/{filename}", f"{directory}/{STATE}/{stem}"


def _declared(tree: Tree) -> Iterator[tuple[Scope, str, str]]:
    """Yield scope, id and format (or "") of every output except re-exports."""
    from astra.helpers import parse_from_path

    for scope, node in tree.nodes.items():
        for output in node["outputs"]:
            reference = parse_from_path(output.get("from") or "")
            if reference and not reference[0] and len(reference[1]) > 1:
                continue
            extension = (output.get("format") or "").strip().lstrip(".")
            if extension and not _FORMAT.fullmatch(extension):
                raise SpecError(
                    f"Output '{output['id']}' in {tree.file(scope)} has the format "
                    f"'{extension}', which cannot end a file's name: write one such as 'csv'."
                )
            yield scope, output["id"], extension


def _detect_layout(
    tree: Tree, home: Scope, results: Path, declared: list[tuple[Scope, str, str]]
) -> Layout | None:
    """Detect the layout of a results directory from its first finished output."""
    try:
        with os.scandir(results) as entries:
            present = {entry.name: entry.is_dir() for entry in entries}
    except OSError:
        return None
    for scope, name, extension in declared:
        if tree.home(scope) != home:
            continue
        qualified = ".".join((*scope[len(home) :], name))
        for stem in {name, qualified}:
            records = (results / stem / OLD_MANIFEST, results / STATE / stem / MANIFEST)
            # A directory that this user may not enter shows no record, and is no error.
            if present.get(stem) and any(map(os.path.exists, records)):
                return Layout.DIRECTORY
        if extension and f"{qualified}.{extension}" in present:
            record = results / STATE / qualified / MANIFEST
            if f".{qualified}.manifest.json" in present or os.path.exists(record):
                return Layout.FILE
    return None
