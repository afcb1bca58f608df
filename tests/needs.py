"""What a test cannot do without: it is skipped where that is missing, or fails if it has to run."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import pytest

__all__ = ["do_without"]

# Read when this is imported: the tests' clean environment is without it.
_REQUIRED = any(os.environ.get(name) for name in ("CI", "LIGHTCONE_TESTS_REQUIRE_ALL"))


def do_without(why: str) -> NoReturn:
    """Skip the test, and tell why; fail it on Linux where ``CI`` or the tests' variable is set."""
    if _REQUIRED and sys.platform == "linux":
        pytest.fail(f"{why}, and these tests are required here", pytrace=False)
    pytest.skip(why)
