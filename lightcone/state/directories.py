"""A project's directories, for one plan: what is in them, and which names count."""

from __future__ import annotations

import os

from lightcone.project.context import SPEC_FILE
from lightcone.spec.layout import RESULTS
from lightcone.state.trees import NOT_IN_PROJECT, does_count

__all__ = ["Directories"]

_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")


class Directories:
    """The directories of the project at ``root``, each read once.

    Names are paths from the root; "." is the root itself.
    """

    def __init__(self, root: str) -> None:
        self._prefix = f"{root}/"
        self._names: dict[str, tuple[str, ...]] = {}
        self._is_directory: dict[str, bool] = {}
        self._counts: dict[str, bool] = {".": True}

    def is_directory(self, name: str) -> bool:
        """Return whether a directory is there; links are followed."""
        known = self._is_directory.get(name)
        if known is None:
            known = self._is_directory[name] = os.path.isdir(self._prefix + name)
        return known

    def names_in(self, name: str) -> tuple[str, ...]:
        """Return the names in a directory that count, sorted; without its results."""
        known = self._names.get(name)
        if known is None:
            try:
                entries = os.listdir(self._prefix + name)
            except OSError:
                entries = []
            if SPEC_FILE in entries and RESULTS in entries:
                entries.remove(RESULTS)
            above = "" if name == "." else f"{name}/"
            known = tuple(sorted(entry for entry in entries if self.counts(above + entry)))
            self._names[name] = known
        return known

    def counts(self, name: str) -> bool:
        """Return whether a path is in no repository, cache or environment of programs."""
        known = self._counts.get(name)
        if known is None:
            above, _, last = name.rpartition("/")
            known = (
                (not above or self.counts(above))
                and last not in NOT_IN_PROJECT
                and does_count(last)
                and not self._is_environment(name)
            )
            self._counts[name] = known
        return known

    def _is_environment(self, name: str) -> bool:
        return any(os.path.exists(f"{self._prefix}{name}/{mark}") for mark in _ENVIRONMENT_MARKS)
