"""A project of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.projects import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty directory to write a project into."""
    root = tmp_path / "project"
    root.mkdir()
    return Project(root)
