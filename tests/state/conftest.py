"""Fixtures that note which files are hashed, and let the time of their last change pass."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

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


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every plan take place ten seconds after the files were written.

    A test can set a file's mtime, but only the kernel its ctime.
    """
    later = SimpleNamespace(
        time_ns=lambda: time.time_ns() + 10 * 10**9, monotonic=time.monotonic, sleep=time.sleep
    )
    monkeypatch.setattr(fingerprint, "time", later)
