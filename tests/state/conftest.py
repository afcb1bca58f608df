"""A fixture that notes which files are hashed."""

from __future__ import annotations

import os

import pytest

from lightcone.state import fingerprint


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed, as they are."""
    names: list[str] = []
    original = fingerprint._hash

    def count(path: str, found: os.stat_result) -> str:
        names.append(os.path.basename(path))
        return original(path, found)

    monkeypatch.setattr(fingerprint, "_hash", count)
    return names
