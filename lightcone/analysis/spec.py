"""An ASTRA project as outputs to make: ``astra.yaml`` and its universes, read and resolved.

What the spec means is asked of ``astra``. Added here is where things lie, what a command looks
like with its placeholders filled in, and which mistakes stop the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lightcone.analysis.builder import Builder
from lightcone.analysis.diagnosis import check_conditions
from lightcone.analysis.layout import Places, find_layout
from lightcone.analysis.output import Output
from lightcone.analysis.selection import named, select
from lightcone.analysis.tree import load_tree
from lightcone.analysis.universes import list_universes, load_universes
from lightcone.context import find_root
from lightcone.garbage import no_garbage
from lightcone.settings import Settings

__all__ = ["find_root", "list_universes", "load_outputs", "named", "select"]


def load_outputs(root: Path, settings: Settings, universe: str | None = None) -> list[Output]:
    """Every output with a recipe, in every universe or in the one named, in dependency order.

    Raises:
        SpecError: where the spec or a universe cannot be used.
        UsageError: where there is no such universe.
    """
    with no_garbage(), _quiet():
        tree = load_tree(root)
        check_conditions(tree)
        universes = load_universes(tree, universe)
        layout = find_layout(tree, settings.layout, list_universes(root))
        builder = Builder(tree, Places.of(tree, layout), settings.depend_on)
        return [output for each in universes for output in builder.outputs(each)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ``astra`` logs off the terminal: what matters of it is said in our own words."""
    import logging

    logger = logging.getLogger("astra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
