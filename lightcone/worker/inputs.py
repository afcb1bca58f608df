"""The produced inputs of a recipe, compared with their records before and after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightcone.state.claims import Busy, lock_inputs
from lightcone.state.manifest import Data, difference, read_manifest, stat_token
from lightcone.system.locks import Lock
from lightcone.wire.requests import ProducedInput

__all__ = ["InputChange", "Inputs"]

# Of an input with more files the record is read again after the recipe: it would take tens of
# megabytes for as long as the recipe runs.
_KEPT_FILES = 1000


@dataclass(frozen=True)
class InputChange:
    """An input that is not as the run planned it.

    Attributes:
        name: its id.
        detail: how it differs from its record, "" where the record itself has changed.
    """

    name: str
    detail: str = ""

    @property
    def is_remade(self) -> bool:
        """Whether a run has remade the input or is about to, so that another attempt may do."""
        return not self.detail


class Inputs:
    """The inputs of one recipe that other outputs make.

    While they are locked, no run of this context remakes them. Another context has locks of its
    own, and a program may write to any file, so the recipe's inputs are checked as well.

    Args:
        produced: the inputs, as the run planned them.
        root: the project's directory.
    """

    def __init__(self, produced: Sequence[ProducedInput], root: Path) -> None:
        self._produced = produced
        self._root = root
        self._locks: list[Lock] = []
        self._tokens: dict[str, tuple[int, int] | None] = {}
        self._data: dict[str, Data] = {}

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that hold the locks."""
        return [lock.fd for lock in self._locks]

    def lock(self, claims: Path, real_path: Callable[[str], str]) -> Busy | None:
        """Lock the inputs until :meth:`close`, or return who is making one of them.

        Raises:
            SessionError: where a lock cannot be had.
        """
        paths = [(each.path, each.state_dir) for each in self._produced]
        locks = lock_inputs(claims, paths, real_path)
        if isinstance(locks, Busy):
            return locks
        self._locks = locks
        return None

    def close(self) -> None:
        """Close the locks; the processes of the recipe may still hold them."""
        for lock in self._locks:
            lock.close()

    def check_before(self) -> InputChange | None:
        """Return the first input that is not good, or not what the run planned."""
        for each in self._produced:
            token = self._tokens[each.id] = stat_token(each.state_dir)
            manifest = read_manifest(each.state_dir)
            if (
                manifest is None
                or (manifest.data.version, manifest.identity) != (each.version, each.identity)
                or manifest.disturbed
            ):
                return InputChange(each.id)
            change = self._compare(each, manifest.data, token)
            if change is not None:
                return change
            if len(manifest.data.files) <= _KEPT_FILES:
                self._data[each.id] = manifest.data
        return None

    def check_after(self) -> list[InputChange]:
        """Return the inputs that changed since :meth:`check_before` found them good."""
        changes = []
        for each in self._produced:
            token, data = self._tokens[each.id], self._data.get(each.id)
            if data is None:
                manifest = read_manifest(each.state_dir)
                data = None if manifest is None else manifest.data
            change = InputChange(each.id) if data is None else self._compare(each, data, token)
            if change is not None:
                changes.append(change)
        return changes

    def _compare(
        self, planned: ProducedInput, data: Data, token: tuple[int, int] | None
    ) -> InputChange | None:
        """Compare the input's files with ``data``, the record that has ``token``."""
        detail = difference(planned.path, data)
        if stat_token(planned.state_dir) != token:
            return InputChange(planned.id)
        if not detail:
            return None
        return InputChange(planned.id, f"{os.path.relpath(planned.path, self._root)} {detail}")
