"""Fixtures for every test: a clean environment, and sandboxes that prove they leave nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.helpers import FOREIGN, Sandbox


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)


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
