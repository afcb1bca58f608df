"""Analyses that share a session, and ones that have it to themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis


@pytest.fixture
def analysis(shared: Sandbox) -> Iterator[Analysis]:
    """An analysis on the session of the module's tests, which has to survive every one."""
    before = shared.status()["address"]
    project = Analysis(shared)
    yield project
    project.close()
    assert shared.status()["address"] == before


@pytest.fixture
def alone(sandbox: Sandbox) -> Iterator[Analysis]:
    """An analysis without a session so far."""
    project = Analysis(sandbox)
    yield project
    project.close()
