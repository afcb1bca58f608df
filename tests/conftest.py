"""Fixtures for every test: a clean environment, and sandboxes that prove they leave nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from libtmux import Server

from tests.helpers import FOREIGN, Sandbox
from tests.projects import Project
from tests.run.analyses import Analysis

# How long an example takes is the machine's doing; each makes files of its own.
settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")
# What a shell runs in the background ignores these, and so would every program that a test starts;
# one that is heard, to no effect here, is not passed on.
for _signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, lambda *_: None)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty directory to write a project into."""
    root = tmp_path / "project"
    root.mkdir()
    return Project(root)


@pytest.fixture
def outer(server: Server) -> Server:
    """A terminal server of the test's own, in which commands are run as a user runs them."""
    server.config_file = os.devnull
    return server


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox without a session; the test fails if it leaves anything behind."""
    box = Sandbox()
    try:
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A sandbox with a session, for the tests of a module that leave it as it is."""
    box = Sandbox()
    try:
        box.start()
        yield box
    finally:
        box.close()


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
