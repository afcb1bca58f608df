"""A project of a test's own, and what is read of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightcone.analysis import fingerprint
from tests.analysis.projects import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty directory to write a project into."""
    root = tmp_path / "project"
    root.mkdir()
    return Project(root)


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
