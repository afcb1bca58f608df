"""Which callers and sessions understand each other."""

from __future__ import annotations

import sys

__all__ = ["PROTOCOL", "PYTHON"]

PROTOCOL = 3
"""The number of the protocol that callers, scheduler and workers of a session speak."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python that they need to have in common."""
